"""Config -> the models it describes: what each modality is made of and what links them; no weights.

A modality is a codec, a text encoder and a tower, held together as `models.modalities[name]`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from avlink_jax.codecs import codec as codecs
from avlink_jax.codecs.codec import Codec
from avlink_jax.codecs.t5_text import Pretrained
from avlink_jax.codecs.text import WordEncoder
from avlink_jax.data.batch import Layout
from avlink_jax.data.prepare import embeddings
from avlink_jax.errors import UserError
from avlink_jax.model import attention
from avlink_jax.model import tower as tower_seam
from avlink_jax.model.aided_fusion import AidedFusion
from avlink_jax.model.avlink import AVLink
from avlink_jax.model.fusion import Fusion
from avlink_jax.model.injection import Injection
from avlink_jax.model.tower import Tower

NAMES = ('audio', 'video')  # the modalities, in the order of Fusion Blocks' streams


@dataclasses.dataclass(frozen=True)
class Modality:
  """What one modality is made of.

  Attributes:
    codec: media to data and back (codecs/codec.py).
    text: prompts to embeddings (codecs/text.py).
    tower: the flow model of its data.
  """
  codec: Codec
  text: WordEncoder | Pretrained
  tower: Tower

  @property
  def prompted(self) -> bool:
    """Whether its tower listens to prompts; features from outside do not."""
    return self.tower.depth > 0


@dataclasses.dataclass(frozen=True)
class Models:
  """Everything a config builds. `link` is None where no modality conditions another."""
  layout: Layout
  modalities: dict[str, Modality]
  link: AVLink | Injection | None

  @property
  def towers(self) -> dict[str, Tower]:
    """{modality: its tower}."""
    return {name: modality.tower for name, modality in self.modalities.items()}

  @property
  def prepare(self) -> dict[str, Callable]:
    """{modality: function of a list of prompts -> arrays (B, ...)}, as data/batch.py takes it."""
    return {name: modality.text.prepare for name, modality in self.modalities.items()}

  @property
  def shapes_only(self) -> 'Models':
    """These models with text encoders whose weights nobody reads: for shapes and FLOPs."""
    return dataclasses.replace(self, modalities={
        name: dataclasses.replace(modality, text=modality.text.shapes_only)
        for name, modality in self.modalities.items()})

  @property
  def texts(self) -> dict[str, WordEncoder | Pretrained]:
    """{modality: its text encoder}."""
    return {name: modality.text for name, modality in self.modalities.items()}


def build(config: ConfigDict, dtype: Any = jnp.float32, platform: str | None = None) -> Models:
  """ConfigDict -> Models, computing in `dtype` on `platform` (default: this process's).

  Raises UserError for a config that does not fit together, or an attention that cannot be had.
  """
  if config.remat not in ('none', 'block', 'segment'):
    raise UserError(f'remat={config.remat!r}: use none, block or segment')
  text = build_text(config.text, config.data.source)
  context = codecs.Context(dtype, platform, remat=config.remat != 'none')
  made = {name: codecs.make(codec_kind(config.towers[name]), name, config, context)
          for name in NAMES}
  rates = {codec.sample_rate for codec in made.values()} - {None}
  layout = Layout.of(config.data, *rates)
  modalities = {name: Modality(codec, text, tower) for (name, codec), tower in zip(
      made.items(), build_towers(config, made, text, dtype, platform), strict=True)}
  towers = {name: modality.tower for name, modality in modalities.items()}
  # The paper's η_v: a position for each moment of video tokens.
  clock_rate = made['video'].rate / config.towers.video.patch[0]
  return Models(layout, modalities, build_link(config, towers, clock_rate, dtype, platform))


def codec_kind(tower):
  """Which codec a tower's data come from; of features from outside there is but one."""
  return 'features' if tower.features else tower.codec


def fused(config):
  """Whether Fusion Blocks link the towers."""
  return 'fusion' in config and config.fusion.injection in ('fusion', 'cross')


def build_towers(config, made, text, dtype, platform):
  """The tower of each codec in `made` {name: Codec}, in order."""
  # Without Fusion Blocks there are no segments between them: then it is each block.
  remat = config.remat == 'block' or config.remat == 'segment' and not fused(config)
  kernel = attention.Kernel(attention.choose(config.attention, platform))
  for name, codec in made.items():
    yield tower_seam.make(config.towers[name], tower_seam.Context(
        channels=codec.channels, rate=codec.rate, seconds=codec.seconds, text_width=text.width,
        axis=f'{name}_tokens', attention=kernel, dtype=dtype, remat=remat, name=name))


def build_link(config, towers, clock_rate, dtype, platform):
  """What lets the towers condition each other, None where nothing does. `clock_rate`: positions a
  second of the Fusion Blocks' temporal RoPE."""
  if 'fusion' not in config:
    return None
  f = config.fusion
  if fused(config):
    kernel = attention.Kernel(attention.choose(config.attention, platform))
    attention.check(kernel.implementation, f.width // f.heads, dtype)
    axes = [tower.axis for tower in towers.values()]
    fusion = Fusion(f.blocks, f.width, f.heads, f.mlp, f.rank, clock_rate=clock_rate,
                    rope_base=f.rope_base, attention=kernel.between(axes, axes), dtype=dtype,
                    cross=f.injection == 'cross', remat=config.remat == 'block')
    if f.contrast or f.nearness:
      fusion = AidedFusion(fusion, f.contrast, f.nearness)
    link = AVLink(towers, fusion, f.placement, config.remat == 'segment', f.reinject)
  else:
    link = Injection(towers, config.generate[0], f.injection, f.blocks, f.placement, dtype)
  one_way = len(config.generate) == 1 and '+' not in config.generate[0]
  if not one_way and not (fused(config) and f.reinject):
    raise UserError('fusion.injection=text or add, and fusion.reinject=False, keep the '
                    f'conditioning modality apart: {config.task} generates both')
  if towers['audio'].depth == 0 or any(
      towers[name].depth == 0 for way in config.generate for name in way.split('+')):
    raise UserError('towers.NAME.features: only the video that conditions can be features '
                    'from outside')
  return link


def build_text(config, source=''):
  """config.text -> the text encoder it names; it knows what `data.source` has prepared for it."""
  if config.encoder == 't5':
    return Pretrained(config.t5, config.width, config.max_tokens, config.cache or None,
                      prepared=embeddings.for_source(source, config))
  if config.encoder == 'words':
    return WordEncoder(config.width, config.depth, config.heads, config.buckets, config.max_tokens)
  raise UserError(f'text.encoder={config.encoder!r}: use t5 or words')


def example_shapes(models: Models) -> dict[str, tuple[int, ...]]:
  """Data shapes of one example of the flow models: {'audio': (T, C), 'video': (F, H, W, 3)}, or
  what their codecs make of it."""
  return {name: modality.codec.shape(models.layout)
          for name, modality in models.modalities.items()}
