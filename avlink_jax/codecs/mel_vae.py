"""The 1D-VAE of the audio model (ref. 27): log-mel frames <-> latents at a quarter of the rate.

Mel bins are channels, and convolution runs along time only. Arrays are 'channels last':
(B, T, n_mels) <-> (B, T/4, latent_channels).
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from avlink_jax.model.attention import attend


class Norm(nn.Module):
  """GroupNorm as in ref. 27, with at most 32 groups of at least 16 channels.

  A group of one channel would remove its mean over time, and with it the level of a clip's
  background, which a narrow network could not recover.
  """

  @nn.compact
  def __call__(self, x):
    groups = min(32, max(1, x.shape[-1] // 16))
    return nn.GroupNorm(num_groups=groups, epsilon=1e-6, name='norm')(x)


class ResBlock(nn.Module):
  """GroupNorm → swish → conv, twice, around a skip."""
  channels: int

  @nn.compact
  def __call__(self, x):
    h = x
    for _ in range(2):
      h = nn.swish(Norm()(h))
      h = nn.Conv(self.channels, (3,))(h)
    return h + (x if x.shape[-1] == self.channels else nn.Conv(self.channels, (1,))(x))


class AttentionBlock(nn.Module):
  """Single-head self-attention along time, around a skip."""

  @nn.compact
  def __call__(self, x):
    h = Norm()(x)
    q, k, v = jnp.split(nn.Dense(3 * x.shape[-1])(h)[:, None], 3, axis=-1)
    return x + nn.Dense(x.shape[-1])(attend(q, k, v, implementation='tiled')[:, 0])


class Middle(nn.Module):
  """Residual block, attention, residual block, at the lowest rate: (B, T, C) -> (B, T, C)."""

  @nn.compact
  def __call__(self, x):
    x = ResBlock(x.shape[-1])(x)
    x = AttentionBlock()(x)
    return ResBlock(x.shape[-1])(x)


class Encoder(nn.Module):
  """Encoder: (B, T, n_mels) -> moments (B, T/2^(levels−1), 2·latent_channels)."""
  widths: tuple[int, ...]
  blocks: int
  latent_channels: int

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(self.widths[0], (3,))(x)
    for level, width in enumerate(self.widths):
      for _ in range(self.blocks):
        x = ResBlock(width)(x)
      if level < len(self.widths) - 1:
        x = nn.Conv(width, (3,), strides=2, padding=((0, 1),))(x)
    x = Middle()(x)
    x = nn.swish(Norm()(x))
    return nn.Conv(2 * self.latent_channels, (3,))(x)


class Decoder(nn.Module):
  """Decoder: (B, T/2^(levels−1), latent_channels) -> (B, T, n_mels)."""
  widths: tuple[int, ...]
  blocks: int
  n_mels: int

  @nn.compact
  def __call__(self, z):
    x = nn.Conv(self.widths[-1], (3,))(z)
    x = Middle()(x)
    for level, width in reversed(list(enumerate(self.widths))):
      for _ in range(self.blocks + 1):
        x = ResBlock(width)(x)
      if level:
        x = nn.Conv(width, (3,))(jnp.repeat(x, 2, axis=1))
    x = nn.swish(Norm()(x))
    return nn.Conv(self.n_mels, (3,))(x)


@dataclasses.dataclass(frozen=True)
class MelVAE:
  """Sizes of the 1D-VAE and its pure functions.

  The networks get (mel − centre) / scale. At paper scale that is nats above silence, so that the
  convolutions' zero padding means silence; a small network learns faster from values around 0.

  `linear`: a matrix in parallel to the convolutions each way, from `stride` mel frames to a latent
  and back. It finds the principal components within a thousand steps, where a small deep network
  lacks the weaker ones for much longer; the convolutions add the nonlinear part.

  Parameters: {'encoder', 'decoder'[, 'linear']}; the latents' measured standard deviation `std` ()
  is stored with them, and flow models get the posterior's mean divided by it.
  """
  width: int = 512
  multipliers: tuple[int, ...] = (1, 2, 4)
  blocks: int = 3
  latent_channels: int = 64
  n_mels: int = 64
  silence: float = math.log(1e-5)
  centre: float = math.log(1e-5)
  scale: float = 1.0
  linear: bool = False

  @classmethod
  def of(cls, config, spec):
    """MelVAE described by `config.codec`, for mels of `spec` (a MelSpec)."""
    return cls(config.width, tuple(config.multipliers), config.blocks, config.latent_channels,
               spec.n_mels, spec.silence, config.centre, config.scale, config.linear)

  @property
  def stride(self):
    """Mel frames per latent."""
    return 2 ** (len(self.multipliers) - 1)

  @property
  def _widths(self):
    return tuple(self.width * m for m in self.multipliers)

  @property
  def encoder(self):
    return Encoder(self._widths, self.blocks, self.latent_channels)

  @property
  def decoder(self):
    return Decoder(self._widths, self.blocks, self.n_mels)

  def init(self, key):
    keys = jax.random.split(key)
    mel = jnp.zeros((1, self.stride * 4, self.n_mels))
    z = jnp.zeros((1, 4, self.latent_channels))
    params = {'encoder': self.encoder.init(keys[0], mel)['params'],
              'decoder': self.decoder.init(keys[1], z)['params']}
    if self.linear:
      matrix = nn.initializers.orthogonal()(
          jax.random.fold_in(key, 2), (self.stride * self.n_mels, self.latent_channels))
      params['linear'] = {'encode': matrix, 'decode': matrix.T}
    return params

  def moments(self, params, mel):
    """Posterior mean and log-variance, (B, T/stride, C) each, of mel (B, T, n_mels)."""
    x = (mel - self.centre) / self.scale
    moments = self.encoder.apply({'params': params['encoder']}, x)
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    if self.linear:
      mean += x.reshape(*mean.shape[:2], -1) @ params['linear']['encode']
    return mean, jnp.clip(log_variance, -30.0, 20.0)

  def encode(self, params, std, mel):
    """Scaled latents (B, T/stride, C) for the flow models."""
    return self.moments(params, mel)[0] / std

  def encode_padded(self, params, std, mel):
    """Encodes mel (B, T, n_mels) of any length, padded with silence to a full latent."""
    fill = -mel.shape[1] % self.stride
    mel = jnp.pad(mel, ((0, 0), (0, fill), (0, 0)), constant_values=self.silence)
    return self.encode(params, std, mel)

  def decode(self, params, std, latents):
    """Scaled latents (B, T, C) -> log-mel (B, T·stride, n_mels)."""
    z = latents * std
    x = self.decoder.apply({'params': params['decoder']}, z)
    if self.linear:
      x += (z @ params['linear']['decode']).reshape(x.shape)
    return x * self.scale + self.centre


def kl_divergence(mean, log_variance):
  """KL divergence of N(mean, variance) from N(0, 1), averaged over elements: scalar."""
  return 0.5 * jnp.mean(mean**2 + jnp.exp(log_variance) - 1 - log_variance)


@functools.partial(jax.jit, static_argnums=0)
def decode_mel(vae, params, std, latents):
  """Jitted `MelVAE.decode`."""
  return vae.decode(params, std, latents)
