"""Config -> the models it describes: codec, text encoder, towers, Fusion Blocks; no weights."""

import dataclasses

import jax.numpy as jnp

from avlink_jax.codecs.mel import MelSpec
from avlink_jax.codecs.mel_vae import MelVAE
from avlink_jax.codecs.text import ByteEncoder
from avlink_jax.data.batch import Layout
from avlink_jax.model.avlink import AVLink
from avlink_jax.model.dit import DiT
from avlink_jax.model.fusion import Fusion


@dataclasses.dataclass(frozen=True)
class Models:
  """Everything a config builds. `link` is None where a task has no Fusion Blocks."""
  layout: Layout
  codec: MelVAE
  text: ByteEncoder
  towers: dict[str, DiT]
  link: AVLink | None


def build(config, dtype=jnp.float32):
  """ConfigDict -> Models, computing in `dtype`."""
  data, shared = config.data, dict(attention=config.attention, dtype=dtype)
  layout = Layout(data.seconds, data.fps, data.height, data.width, MelSpec())
  codec = MelVAE(config.codec.width, tuple(config.codec.multipliers), config.codec.blocks,
                 config.codec.latent_channels, layout.mel.n_mels, layout.mel.silence)
  text = ByteEncoder(config.text.width, config.text.depth, config.text.heads,
                     config.text.max_bytes)
  rates = {'audio': layout.mel.rate / codec.stride, 'video': layout.fps}
  channels = {'audio': codec.latent_channels, 'video': 3}
  towers = {}
  for name in ('audio', 'video'):
    tower = config.towers[name]
    towers[name] = DiT(
        channels=channels[name], rate=rates[name], patch=tuple(tower.patch), width=tower.width,
        depth=tower.depth, heads=tower.heads, mlp=tower.mlp, text_width=text.width,
        rope_base=tower.rope_base, prediction=tower.prediction, remat=config.remat == 'block',
        **shared)
  link = None
  if 'fusion' in config:
    f = config.fusion
    fusion = Fusion(f.blocks, f.width, f.heads, f.mlp, f.rank,
                    clock_rate=towers['video'].token_rate, rope_base=f.rope_base,
                    nearness=f.nearness, **shared)
    link = AVLink(towers, fusion, f.placement, remat=config.remat == 'segment')
  return Models(layout, codec, text, towers, link)


def example_shapes(models):
  """Data shapes of one example of the flow models: {'audio': (T, C), 'video': (F, H, W, 3)}."""
  layout, codec = models.layout, models.codec
  return {'audio': (-(-layout.mel_frames // codec.stride), codec.latent_channels),
          'video': (layout.frames, layout.height, layout.width, 3)}
