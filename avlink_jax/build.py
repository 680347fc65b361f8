"""Builder of a config's models: each modality's parts and the link between modalities; no weights.

A modality is a codec, a text encoder and a tower, together in `models.modalities[name]`.
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from avlink_jax.codecs import codec as codec_seam
from avlink_jax.codecs import text as text_seam
from avlink_jax.codecs.codec import Codec
from avlink_jax.codecs.pretrained_text import Pretrained
from avlink_jax.codecs.text import WordEncoder
from avlink_jax.data.batch import Layout
from avlink_jax.data.prepare import embeddings
from avlink_jax.errors import UserError
from avlink_jax.model import attention, pretrained
from avlink_jax.model import tower as tower_seam
from avlink_jax.model.aided_fusion import AidedFusion
from avlink_jax.model.avlink import AVLink
from avlink_jax.model.fusion import Fusion
from avlink_jax.model.injection import Injection
from avlink_jax.model.remat import POLICIES
from avlink_jax.model.tower import Tower
from avlink_jax.storage import config_bounds

NAMES = ('audio', 'video')  # the modalities, in the order of Fusion Blocks' streams


@dataclasses.dataclass(frozen=True)
class Modality:
  """Parts of one modality.

  Attributes:
    codec: media to data and back (codecs/codec.py).
    text: prompts to embeddings (codecs/text.py); one object if modalities share an encoder.
    tower: flow model of the data (model/tower.py).
  """
  codec: Codec
  text: WordEncoder | Pretrained
  tower: Tower

  @property
  def prompted(self) -> bool:
    """Tells whether its tower uses prompts; external features do not."""
    return self.tower.depth > 0


@dataclasses.dataclass(frozen=True)
class Models:
  """Models of a config. `link` is None if no modality conditions another."""
  layout: Layout
  modalities: dict[str, Modality]
  link: AVLink | Injection | None

  @property
  def towers(self) -> dict[str, Tower]:
    """Mapping {modality: tower}."""
    return {name: modality.tower for name, modality in self.modalities.items()}

  @property
  def shapes_only(self) -> 'Models':
    """Copy of these models with text encoders for shapes only, whose weights are never read."""
    return dataclasses.replace(self, modalities={
        name: dataclasses.replace(modality, text=modality.text.shapes_only)
        for name, modality in self.modalities.items()})

  @property
  def texts(self) -> dict[str, WordEncoder | Pretrained]:
    """Mapping {modality: text encoder}."""
    return {name: modality.text for name, modality in self.modalities.items()}


def build(config: ConfigDict, dtype: Any = jnp.float32, platform: str | None = None) -> Models:
  """Builds a ConfigDict's Models, which compute in `dtype` on `platform` (default: this process's).

  Raises UserError: contradictory settings, or an unavailable attention kernel.
  """
  config_bounds.check(config)
  if not {name for direction in config.generate for name in direction.split('+')} <= set(NAMES):
    raise UserError(f'generate={tuple(config.generate)}: use audio, video or audio+video')
  if config.remat not in POLICIES:
    raise UserError(f'remat={config.remat!r}: use {", ".join(POLICIES)}')
  texts = build_texts(config, dtype)
  context = codec_seam.Context(dtype, platform, remat=config.remat != 'none')
  codecs = {name: codec_seam.make(codec_kind(config.towers[name]), name, config, context)
            for name in NAMES}
  rates = {codec.sample_rate for codec in codecs.values()} - {None}
  layout = Layout.of(config.data, *rates)
  settings = {name: pretrained.tower_config(config, name, codec.channels, texts[name].width)
              for name, codec in codecs.items()}
  modalities = {name: Modality(codec, texts[name], tower) for (name, codec), tower in zip(
      codecs.items(), build_towers(config, settings, codecs, texts, dtype, platform), strict=True)}
  towers = {name: modality.tower for name, modality in modalities.items()}
  # The paper's η_v: one position for each time step of video tokens.
  clock_rate = codecs['video'].rate / settings['video'].patch[0]
  return Models(layout, modalities, build_link(config, towers, clock_rate, dtype, platform))


def codec_kind(tower):
  """Kind of a tower's codec; external features have their own."""
  return 'features' if tower.features else tower.codec


def fused(config):
  """Tells whether Fusion Blocks link the towers."""
  return 'fusion' in config and config.fusion.injection in ('fusion', 'cross')


def build_towers(config, settings, codecs, texts, dtype, platform):
  """Yields the tower of each codec in `codecs` {name: Codec}, in order; `settings` are the towers'
  ConfigDicts and `texts` the text encoders by name."""
  remat = config.remat
  if remat == 'segment':  # of which there are none without Fusion Blocks between them
    remat = 'none' if fused(config) else 'block'
  kernel = attention.Kernel(attention.choose(config.attention, platform))
  for name, codec in codecs.items():
    yield tower_seam.make(settings[name], tower_seam.Context(
        channels=codec.channels, rate=codec.rate, seconds=codec_seam.Seconds(codec),
        text_width=texts[name].width,
        axis=f'{name}_tokens', attention=kernel, dtype=dtype, remat=remat, name=name))


def build_link(config, towers, clock_rate, dtype, platform):
  """Builds the link by which towers condition each other, or None. `clock_rate`: positions a second
  of the Fusion Blocks' temporal RoPE."""
  if 'fusion' not in config:
    return None
  f = config.fusion
  if fused(config):
    kernel = attention.Kernel(attention.choose(config.attention, platform))
    attention.check(kernel.implementation, f.width // f.heads, dtype)
    axes = [tower.axis for tower in towers.values()]
    fusion = Fusion(f.blocks, f.width, f.heads, f.mlp, f.rank, clock_rate=clock_rate,
                    rope_base=f.rope_base, attention=kernel.between(axes, axes), dtype=dtype,
                    cross=f.injection == 'cross',
                    remat='none' if config.remat == 'segment' else config.remat)
    if f.contrast or f.nearness:
      fusion = AidedFusion(fusion, f.contrast, f.nearness)
    generated = {name for way in config.generate for name in way.split('+')}
    link = AVLink(towers, fusion, f.placement, config.remat == 'segment', f.reinject,
                  trained=tuple(sorted(generated)) if f.finetune else ())
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


def build_texts(config, dtype=jnp.float32):
  """Builds the text encoder of each modality: {name: encoder}, from `config.texts.NAME` where a
  config has that, or else from `config.text`; they use embeddings prepared in `data.source`.

  Equal encoders are one object, so that pretrained weights are read once.
  """
  texts, distinct = {}, {}
  for name in NAMES:
    text = build_text(config, name, dtype)
    texts[name] = distinct.setdefault(text, text)
  return texts


def build_text(config, name, dtype=jnp.float32):
  """Builds the text encoder of a modality."""
  own = 'texts' in config
  return text_seam.make(config.texts[name] if own else config.text, text_seam.Context(
      section=f'texts.{name}' if own else 'text', folder=config.frozen[name],
      seconds=config.data.seconds, dtype=dtype,
      prepared=functools.partial(embeddings.for_source, config.data.source, name)))


def example_shapes(models: Models) -> dict[str, tuple[int, ...]]:
  """Shapes of an example's data by modality, such as {'audio': (T, C), 'video': (F, H, W, 3)}."""
  return {name: modality.codec.shape(models.layout)
          for name, modality in models.modalities.items()}
