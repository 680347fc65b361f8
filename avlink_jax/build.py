"""Config -> the models it describes: codec, text encoder, towers, Fusion Blocks; no weights."""

import dataclasses

import jax.numpy as jnp

from avlink_jax.codecs.mel_vae import MelVAE
from avlink_jax.codecs.t5_text import Pretrained
from avlink_jax.codecs.text import WordEncoder
from avlink_jax.codecs.video_vae import VideoVAE
from avlink_jax.data.batch import Layout
from avlink_jax.data.prepare import embeddings
from avlink_jax.errors import UserError
from avlink_jax.model import attention
from avlink_jax.model.avlink import AVLink
from avlink_jax.model.dit import DiT
from avlink_jax.model.features import Features
from avlink_jax.model.fusion import Fusion
from avlink_jax.model.injection import Injection


@dataclasses.dataclass(frozen=True)
class Models:
  """Everything a config builds. `link` is None where no modality conditions another, `video_codec`
  where the config has none."""
  layout: Layout
  codec: MelVAE
  text: WordEncoder | Pretrained
  towers: dict[str, DiT | Features]
  link: AVLink | Injection | None
  video_codec: VideoVAE | None = None


def build(config, dtype=jnp.float32, platform=None):
  """ConfigDict -> Models, computing in `dtype` on `platform` (default: this process's).

  Raises UserError for a config that does not fit together, or an attention that cannot be had.
  """
  if config.remat not in ('none', 'block', 'segment'):
    raise UserError(f'remat={config.remat!r}: use none, block or segment')
  fused = 'fusion' in config and config.fusion.injection in ('fusion', 'cross')
  # Without Fusion Blocks there are no segments between them: then it is each block.
  remat = config.remat == 'block' or config.remat == 'segment' and not fused
  kernel = attention.choose(config.attention, platform)
  shared = dict(attention=kernel, dtype=dtype)
  layout = Layout.of(config.data)
  codec = MelVAE.of(config.codec, layout.mel)
  text = build_text(config.text, config.data.source)
  rates = {'audio': layout.mel.rate / codec.stride, 'video': layout.fps}
  channels = {'audio': codec.latent_channels, 'video': 3}
  video_codec = VideoVAE.of(config.video_codec, dtype, platform, remat=config.remat != 'none') \
      if 'video_codec' in config else None
  if video_codec is not None:
    rates['video'] /= video_codec.time_stride
    channels['video'] = video_codec.latent_channels
  towers = {}
  for name in ('audio', 'video'):
    tower = config.towers[name]
    if tower.features:
      towers[name] = Features(tower.features, rates[name])
      continue
    guide, residual = tower.get('guide', 0), tower.prediction == 'residual'
    if tower.prediction not in ('velocity', 'data', 'residual') or residual and not guide:
      raise UserError(f'towers.{name}.prediction={tower.prediction!r}: use velocity or data, or '
                      'residual of a tower with a guide')
    if tower.get('local', 0) and not residual:
      raise UserError(f'towers.{name}.local makes a residual of what a guide shows, and this tower '
                      'names none: set it to 0')
    guide += channels[name] * residual  # and what it says of the data itself
    towers[name] = DiT(
        channels=channels[name], rate=rates[name], patch=tuple(tower.patch), width=tower.width,
        depth=tower.depth, heads=tower.heads, mlp=tower.mlp, text_width=text.width,
        rope_base=tower.rope_base, prediction=tower.prediction, hidden=tower.hidden,
        detail=tower.detail, guide=guide, local=tower.get('local', 0),
        remat=remat,
        split=name == 'video',  # tens of thousands of tokens; a sound has a hundred
        **shared)
    attention.check(kernel, tower.width // tower.heads, dtype)
  link = None
  if 'fusion' in config:
    f = config.fusion
    if fused:
      attention.check(kernel, f.width // f.heads, dtype)
      fusion = Fusion(f.blocks, f.width, f.heads, f.mlp, f.rank,
                      clock_rate=towers['video'].token_rate, rope_base=f.rope_base,
                      nearness=f.nearness, contrast=f.contrast,
                      cross=f.injection == 'cross', remat=config.remat == 'block', **shared)
      link = AVLink(towers, fusion, f.placement, config.remat == 'segment', f.reinject)
    else:
      link = Injection(towers, config.generate[0], f.injection, f.blocks, f.placement, dtype)
    one_way = config.generate in (('audio',), ('video',))
    if not one_way and not (f.injection in ('fusion', 'cross') and f.reinject):
      raise UserError('fusion.injection=text or add, and fusion.reinject=False, keep the '
                      f'conditioning modality apart: {config.task} generates both')
    if towers['audio'].depth == 0 or any(
        towers[name].depth == 0 for way in config.generate for name in way.split('+')):
      raise UserError('towers.NAME.features: only the picture that conditions can be features '
                      'from outside')
  return Models(layout, codec, text, towers, link, video_codec)


def build_text(config, source=''):
  """config.text -> the text encoder it names; it knows what `data.source` has prepared for it."""
  if config.encoder == 't5':
    return Pretrained(config.t5, config.width, config.max_tokens, config.cache or None,
                      prepared=embeddings.for_source(source, config))
  if config.encoder == 'words':
    return WordEncoder(config.width, config.depth, config.heads, config.buckets, config.max_tokens)
  raise UserError(f'text.encoder={config.encoder!r}: use t5 or words')


def example_shapes(models):
  """Data shapes of one example of the flow models: {'audio': (T, C), 'video': (F, H, W, 3)}; of
  those in a video codec's latents 'video': (T, H, W, C), and 'low': (T, H, W, 3) what guides them.
  """
  layout, codec, video_codec = models.layout, models.codec, models.video_codec
  audio = {'audio': (-(-layout.mel_frames // codec.stride), codec.latent_channels)}
  size = (layout.frames, layout.height, layout.width)
  if video_codec is None:
    return audio | {'video': (*size, 3)}
  strides = (video_codec.time_stride, *(video_codec.space_stride,) * 2)
  grid = tuple(-(-n // stride) for n, stride in zip(size, strides, strict=True))
  return audio | {'video': (*grid, video_codec.latent_channels), 'low': (*grid, 3)}
