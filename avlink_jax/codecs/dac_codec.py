"""Audio as latents of a published continuous DAC (dac.py), behind the codec seam.

The wave is read and written at the codec's own rate (48 kHz of MOSS-SoundEffect v2), as it is: it
is not normalised, for the published models hear and make sounds at their own loudness.
"""

import dataclasses
import functools
import math
import pathlib
import re

import jax
import numpy as np

from avlink_jax.codecs import published_vae
from avlink_jax.codecs.dac import DAC
from avlink_jax.errors import UserError
from avlink_jax.storage import foreign, published

SIZES = ('sample_rate', 'encoder_dim', 'encoder_rates', 'latent_dim', 'decoder_dim',
         'decoder_rates')


def build(name, config, context):
  """Codec of the published model that `frozen.codec` or `frozen.audio` names.

  Only its sizes are read. Raises UserError.
  """
  del context  # a wave takes little memory, and float32 everywhere
  return of_folder(name, published_vae.of_tower(config, name))


def of_folder(name, folder):
  """Codec of the modality `name` by a model's folder `vae/`. Raises UserError."""
  return DACCodec(name, read_dac(folder), folder)


def read_dac(folder):
  """DAC of config.json or, without it, of what the weights' file says of itself.

  Raises UserError: neither is there, or it describes another codec.
  """
  path = folder / 'config.json'
  if path.is_file():
    config = published.read_config(folder)
  else:
    path = published_vae.weights_file(folder, 'dac')
    config = (foreign.metadata(path) or {}).get('kwargs')
    if not isinstance(config, dict):
      raise UserError(f'{path}: does not say its sizes: put a config.json with '
                      f'{", ".join(SIZES)} beside it')
  if not config.get('continuous'):
    raise UserError(f'{path}: a DAC with codebooks (continuous={config.get("continuous")!r}): give '
                    'a continuous one')
  try:
    dac = DAC(*(tuple(map(int, config[name])) if name.endswith('rates') else int(config[name])
                for name in SIZES))
  except KeyError as error:
    raise UserError(f'{path}: lacks {error}') from None
  except (TypeError, ValueError) as error:
    raise UserError(f'{path}: {error}') from None
  sizes = dac.encoder_rates + dac.decoder_rates + (dac.sample_rate, dac.encoder_width,
                                                   dac.latent_channels)
  if min(sizes, default=0) < 1 or math.prod(dac.decoder_rates) != dac.hop or (
      dac.decoder_width % 2 ** len(dac.decoder_rates)):
    raise UserError(f'{path}: sizes that do not fit together: encoder_rates '
                    f'{list(dac.encoder_rates)}, decoder_rates {list(dac.decoder_rates)}, '
                    f'decoder_dim {dac.decoder_width}')
  return dac


@functools.partial(jax.jit, static_argnums=0)
def _decode(dac, params, latents):
  return dac.decode(params, latents)


@dataclasses.dataclass(frozen=True)
class DACCodec(published_vae.PublishedCodec):
  """Codec whose data are latents (T, C) of a wave; a batch has the wave (B, T·hop) or, from
  prepared records, its latents, and the mask of latents in either case."""
  name: str
  dac: DAC
  folder: pathlib.Path
  medium = 'audio'
  kind = 'dac'
  prefix = 'state_dict.'

  @property
  def channels(self):
    return self.dac.latent_channels

  @property
  def sample_rate(self):
    return self.dac.sample_rate

  @property
  def rate(self):
    return self.dac.rate

  @property
  def wave_name(self):
    """Name of the wave in a batch."""
    return f'{self.name}_wave'

  def shape(self, layout):
    return -(-layout.samples // self.dac.hop), self.channels

  def covered(self, layout):
    return self.shape(layout)[0] / self.rate

  def arrays(self, layout):
    count = self.shape(layout)[0]
    return {self.wave_name: (np.float32, (count * self.dac.hop,)),
            self.mask_name: (np.bool_, (count,))}

  def read(self, media, mask, layout):
    count, hop = self.shape(layout)[0], self.dac.hop
    fill = (0, count * hop - len(media))
    return {self.wave_name: np.pad(media, fill),
            self.mask_name: np.pad(mask, fill).reshape(count, hop).any(-1)}

  def blank(self, seconds, layout):
    count = math.ceil(round(seconds * self.rate, 6))
    return {self.mask_name: np.arange(self.shape(layout)[0]) < count}

  def encode(self, weights, batch):
    if self.latents_name in batch:
      return batch[self.latents_name]
    return self.dac.encode(weights['params'], batch[self.wave_name])

  def finish(self, weights, decoded, seconds, layout):
    """Decodes a clip's latents (T, C) to its wave, float32 (S,)."""
    del layout
    samples = round(seconds * self.sample_rate)
    latents = decoded[None, :math.ceil(samples / self.dac.hop)]
    wave = np.asarray(_decode(self.dac, weights['params'], latents))[0]
    return np.pad(wave, (0, max(0, samples - len(wave))))[:samples]

  @property
  def sizes(self):
    return self.dac

  def is_transposed(self, name):
    return re.fullmatch(r'decoder\.model\.\d+\.block\.1\.weight', name) is not None
