"""The paper's audio codec (Sec. 3.2): wave → log-mel → 1D-VAE latents → log-mel → vocoder → wave.

The log-mel is computed on the host, where data are read; the 1D-VAE runs on the device; the vocoder
turns a complete clip's mel into its wave.
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
  """Codec described by `config.codec` and `config.sample.vocoder`."""
  del context  # the 1D-VAE is small and uses float32 everywhere
  spec = MelSpec()
  return MelCodec(name, MelVAE.of(config.codec, spec), spec,
                  functools.partial(vocoder.load, config, spec), config.sample.vocoder)


@dataclasses.dataclass(frozen=True)
class MelCodec(Codec):
  """Mel, 1D-VAE and vocoder as one codec.

  A batch has 'mel' float32 (B, T, n_mels) or, from prepared records, its latents
  `NAME_latents` (B, ⌈T/stride⌉, C); the mask is over mel frames in either case.

  Attributes:
    load_vocoder: () -> vocoder, which maps log-mel (T, n_mels) -> wave (T·hop,); called once, when
      the first wave is decoded.
    vocoder_source: what `config.sample.vocoder` names; '': nothing.
    levels: whether `read` brings what it reads to the codec's level.
  """
  name: str
  vae: MelVAE
  spec: MelSpec
  load_vocoder: Callable = dataclasses.field(compare=False)
  vocoder_source: str = vocoder.GRIFFIN_LIM
  levels: bool = True
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
    """Number of mel frames in an example."""
    return layout.samples // self.spec.hop

  def covered(self, layout):
    """Seconds of audio that a window covers: one mel frame more than it has, since the last one is
    repeated. A clip of 31 frames at 6 a second is 7 ms longer than the paper's 5.16 s."""
    return (self.frames(layout) + 1) / self.spec.rate

  def shape(self, layout):
    return -(-self.frames(layout) // self.vae.stride), self.channels

  def arrays(self, layout):
    frames = self.frames(layout)
    return {'mel': (np.float32, (frames, self.spec.n_mels)), self.mask_name: (np.bool_, (frames,))}

  @property
  def sizes(self):
    return self.vae

  def normalise(self, wave):
    return normalise(wave)

  @property
  def keeping_level(self):
    return dataclasses.replace(self, levels=False)

  def read(self, media, mask, layout):
    """Log-mel of a wave (S,), normalised if it `levels`, and the mask of its frames."""
    frames, hop = self.frames(layout), self.spec.hop
    return {'mel': log_mel(normalise(media) if self.levels else media, self.spec),
            self.mask_name: mask[:frames * hop].reshape(-1, hop).any(-1)}

  def blank(self, seconds, layout):
    count = math.ceil(round(seconds * self.spec.rate, 6))
    return {self.mask_name: np.arange(self.frames(layout)) < count}

  def mask(self, batch):
    """Mask of latents: True where any of its mel frames is real."""
    mask, stride = batch[self.mask_name], self.vae.stride
    mask = jnp.pad(mask, ((0, 0), (0, -mask.shape[1] % stride)))
    return mask.reshape(mask.shape[0], -1, stride).any(-1)

  def encode(self, weights, batch):
    if self.latents_name in batch:  # prepared by this codec (pipeline.check_codec)
      return batch[self.latents_name]
    return self.vae.encode_padded(weights['params'], weights['std'], batch['mel'])

  def padded(self, weights, data, mask):
    """Latents (B, T, C) with those of silence past a clip's end: the decoder normalises and attends
    over time, so that what lies there is heard before it."""
    silence = jnp.full((1, data.shape[1] * self.vae.stride, self.spec.n_mels), self.spec.silence)
    silent = self.vae.encode(weights['params'], weights['std'], silence)
    return jnp.where(mask[..., None], data, silent.astype(data.dtype))

  def decode(self, weights, data):
    """Latents (B, T, C) -> log-mel (B, T·stride, n_mels)."""
    return self.vae.decode(weights['params'], weights['std'], data)

  def finish(self, weights, decoded, seconds, layout):
    """Converts a clip's log-mel (T, n_mels) to its wave, float32 (S,)."""
    del weights, layout
    samples = round(seconds * self.sample_rate)
    frames = math.ceil(samples / self.spec.hop)
    mel = np.pad(decoded[:frames], ((0, int(frames == len(decoded) + 1)), (0, 0)), mode='edge')
    wave = self.vocoder(mel)
    return np.pad(wave, (0, max(0, samples - len(wave))))[:samples]

  def init(self, key):
    return {'params': self.vae.init(key), 'std': jnp.ones(())}

  def check(self):
    """Loads the vocoder. Raises UserError: missing, or trained on other mels."""
    self.vocoder  # noqa: B018

  def check_samples(self):
    """Raises UserError: no vocoder is named."""
    vocoder.require(self.vocoder_source)
