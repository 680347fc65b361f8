"""Video as latents of Wan's published autoencoder (wan_vae.py), behind the codec seam."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from avlink_jax.codecs import published_vae, wan_parts
from avlink_jax.codecs.pixels import Frames, as_uint8, frame_count
from avlink_jax.codecs.wan_vae import WanVAE
from avlink_jax.errors import UserError
from avlink_jax.storage import published

CLASS = 'AutoencoderKLWan'
SIZES = {'base_dim': 96, 'dim_mult': [1, 2, 4, 4], 'num_res_blocks': 2, 'z_dim': 16,
         'temperal_downsample': [False, True, True]}  # with the class's own defaults
STATISTICS = ('latents_mean', 'latents_std')
# Options of the class that this one has not, and their values that mean so.
ABSENT = {'decoder_base_dim': (None,), 'attn_scales': ([], ()), 'is_residual': (False,),
          'in_channels': (3,), 'out_channels': (3,), 'patch_size': (None, 1)}
IGNORED = ('dropout', 'scale_factor_temporal', 'scale_factor_spatial')  # training; derived


def build(name, config, context):
  """Codec of the published model that `frozen.video_codec` or `frozen.video` names.

  Only its config.json is read. Raises UserError.
  """
  return of_folder(name, published_vae.of_tower(config, name), config.data.fps, context.platform)


def of_folder(name, folder, fps, platform=None):
  """Codec of the modality `name`, `fps` frames a second, by a model's folder `vae/`, on `platform`
  (default: this process's). Raises UserError."""
  planes = (platform or jax.default_backend()) == 'cpu'
  return WanLatents(name, fps, read_vae(folder, planes), folder)


def read_vae(folder, planes=False):
  """WanVAE of a folder's config.json. Raises UserError: of another model, or with an option that is
  not supported."""
  path, config = folder / 'config.json', published.read_config(folder)
  if config.get('_class_name') != CLASS:
    raise UserError(f'{path}: the config of {config.get("_class_name") or "another model"}, not of '
                    f'{CLASS}')
  for option, allowed in ABSENT.items():
    value = config.get(option, allowed[0])
    if value not in allowed and not (
        option == 'decoder_base_dim' and value == config.get('base_dim', SIZES['base_dim'])):
      raise UserError(f'{path}: {option}={value!r} is not supported: {allowed[0]!r} is')
  known = {*SIZES, *STATISTICS, *ABSENT, *IGNORED}
  if unknown := [option for option in config if option not in known and option[0] != '_']:
    raise UserError(f'{path}: {unknown[0]}={config[unknown[0]]!r} is an option that is not known')
  return _vae(path, {**SIZES, **config}, planes)


def _vae(path, config, planes):
  try:
    vae = WanVAE(
        width=int(config['base_dim']), multipliers=tuple(map(int, config['dim_mult'])),
        halves_time=tuple(map(bool, config['temperal_downsample'])),
        blocks=int(config['num_res_blocks']), latent_channels=int(config['z_dim']),
        mean=tuple(map(float, config['latents_mean'])),
        std=tuple(map(float, config['latents_std'])), planes=planes)
  except KeyError as error:
    raise UserError(f'{path}: lacks {error}') from None
  except (TypeError, ValueError) as error:
    raise UserError(f'{path}: {error}') from None
  if len(vae.halves_time) != len(vae.multipliers) - 1:
    raise UserError(f'{path}: dim_mult has {len(vae.multipliers)} levels, which needs one less in '
                    'temperal_downsample')
  if not len(vae.mean) == len(vae.std) == vae.latent_channels or min(vae.std) <= 0:
    raise UserError(f'{path}: latents_mean and latents_std need z_dim={vae.latent_channels} '
                    'numbers each, and deviations above 0')
  return vae


@dataclasses.dataclass(frozen=True)
class WanLatents(published_vae.PublishedCodec, Frames):
  """Codec whose data are latents (T, H, W, C), without their channels' mean and deviation."""
  vae: WanVAE
  folder: pathlib.Path
  kind = 'wan_vae'
  short_first = True

  @property
  def sizes(self):
    return dataclasses.replace(self.vae, planes=False)  # which is about speed alone

  @property
  def channels(self):
    return self.vae.latent_channels

  @property
  def rate(self):
    return self.fps / self.vae.time_stride

  def seconds(self, count):
    """Mean times of each latent's frames: 0 for the first, which is frame 0 alone, and then
    (4k − 1.5)/fps of frames 4k − 3 … 4k."""
    k, stride = np.arange(count), self.vae.time_stride
    return np.where(k, stride * k - (stride - 1) / 2, 0.0) / self.fps

  def shape(self, layout):
    stride = self.vae.space_stride
    return (self.vae.latent_count(layout.frames), -(-layout.height // stride),
            -(-layout.width // stride), self.channels)

  def mask(self, batch):
    """Mask of latents: True where any of its frames is real."""
    mask, stride = batch[self.mask_name], self.vae.time_stride
    rest = jnp.pad(mask[:, 1:], ((0, 0), (0, -(mask.shape[1] - 1) % stride)))
    rest = rearrange(rest, 'b (k t) -> b k t', t=stride).any(-1)
    return jnp.concatenate([mask[:, :1], rest], axis=1)

  def encode(self, weights, batch):
    if self.latents_name in batch:
      return batch[self.latents_name]
    return self.vae.encode(weights['params'], batch[self.name])

  def encode_window(self, weights, arrays):
    return wan_parts.encode(self.vae, weights['params'], arrays[self.name][None])[0]

  def finish(self, weights, decoded, seconds, layout):
    """Decodes a clip's latents (T, H, W, C) to its frames, uint8."""
    count = frame_count(seconds, self.fps)
    latents = decoded[None, :self.vae.latent_count(count)]
    video = wan_parts.decode(self.vae, weights['params'], latents)[0]
    return as_uint8(video[:count, :layout.height, :layout.width])
