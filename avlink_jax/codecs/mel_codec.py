"""Audio as the paper has it (Sec. 3.2): wave → log-mel → 1D-VAE latents → log-mel → vocoder → wave.

The log-mel is made on the host, where data are read; the 1D-VAE runs on the device; the vocoder
turns a whole clip's mel into its wave.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from avlink_jax.codecs import vocoder
from avlink_jax.codecs.codec import Codec
from avlink_jax.codecs.mel import MelSpec, log_mel, normalise
from avlink_jax.codecs.mel_vae import MelVAE


def build(name, config, context):
  """The codec that `config.codec` and `config.sample.vocoder` describe."""
  del context  # the 1D-VAE is small, and computes in float32 everywhere
  spec = MelSpec()
  return MelCodec(name, MelVAE.of(config.codec, spec), spec,
                  functools.partial(vocoder.load, config, spec))


@dataclasses.dataclass(frozen=True)
class MelCodec(Codec):
  """The mel, the 1D-VAE and a vocoder as one codec.

  In a batch: 'mel' float32 (B, T, n_mels), or in its place the latents that were prepared of it,
  `NAME_latents` (B, ⌈T/stride⌉, C); the mask counts mel frames in either case.

  Attributes:
    load_vocoder: () -> log-mel (T, n_mels) -> wave (T·hop,); called when the first wave is made.
  """
  name: str
  vae: MelVAE
  spec: MelSpec
  load_vocoder: Callable
  medium = 'audio'
  part = 'codec'

  @property
  def channels(self):
    return self.vae.latent_channels

  @property
  def sample_rate(self):
    return self.spec.sample_rate

  @property
  def rate(self):
    return self.spec.rate / self.vae.stride

  @property
  def decoded_rate(self):
    return self.spec.rate

  @functools.cached_property
  def vocoder(self):
    return self.load_vocoder()

  @property
  def decoder_weights(self):
    return getattr(self.vocoder, 'params', [])  # Griffin-Lim has none

  def frames(self, layout):
    """Mel frames of an example."""
    return layout.samples // self.spec.hop

  def shape(self, layout):
    return -(-self.frames(layout) // self.vae.stride), self.channels

  def arrays(self, layout):
    frames = self.frames(layout)
    return {'mel': (np.float32, (frames, self.spec.n_mels)), self.mask_name: (np.bool_, (frames,))}

  def read(self, media, mask, layout):
    """Normalised log-mel of a wave (S,), and which of its frames exist."""
    frames, hop = self.frames(layout), self.spec.hop
    return {'mel': log_mel(normalise(media), self.spec),
            self.mask_name: mask[:frames * hop].reshape(-1, hop).any(-1)}

  def read_latents(self, latents, rate, seconds, layout):
    """Prepared latents (T, C), `rate` a second, of a window with `seconds` of audio, as `read`.

    Raises ValueError where they are of another length.
    """
    frames = self.frames(layout)
    wanted = math.ceil(frames * rate / self.spec.rate)
    if len(latents) != wanted:
      raise ValueError(f'{len(latents)} latents, not {wanted}')
    real = math.ceil(round(seconds * self.spec.rate, 6))
    return {f'{self.name}_latents': latents, self.mask_name: np.arange(frames) < real}

  def blank(self, seconds, layout):
    wanted = math.ceil(seconds * self.spec.rate)
    return {self.mask_name: np.arange(self.frames(layout)) < wanted}

  def mask(self, batch):
    """A latent is real where any of its mel frames is."""
    mask, stride = batch[self.mask_name], self.vae.stride
    mask = jnp.pad(mask, ((0, 0), (0, -mask.shape[1] % stride)))
    return mask.reshape(mask.shape[0], -1, stride).any(-1)

  def encode(self, weights, batch):
    if f'{self.name}_latents' in batch:  # prepared by that very codec (pipeline.check_codec)
      return batch[f'{self.name}_latents']
    return self.vae.encode_padded(weights['params'], weights['std'], batch['mel'])

  def decode(self, weights, data):
    """Latents (B, T, C) -> log-mel (B, T·stride, n_mels)."""
    return self.vae.decode(weights['params'], weights['std'], data)

  def finish(self, weights, decoded, seconds, layout):
    """A clip's log-mel (T, n_mels) -> its wave float32 (S,)."""
    del weights, layout
    samples = round(seconds * self.sample_rate)
    wave = self.vocoder(decoded[:math.ceil(samples / self.spec.hop)])
    return np.pad(wave, (0, max(0, samples - len(wave))))[:samples]

  def init(self, key):
    return {'params': self.vae.init(key), 'std': jnp.ones(())}

  def fingerprint(self, weights):
    """A hash of all that latents depend on but the audio."""
    return self.vae.fingerprint(weights['params'], weights['std'])

  def check(self):
    """Loads the vocoder: UserError where it is not there, or is of other mels."""
    self.vocoder  # noqa: B018
