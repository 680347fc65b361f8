"""HiFi-GAN (Kong et al. 2020, arXiv:2010.05646): log-mel frames in, a wave out.

This is the generator; its losses are in `hifigan_losses.py`, the reader of published weights in
`hifigan_import.py`. Arrays are 'channels last', (B, T, C). Kernels have no weight normalisation:
it only changes the direction of training steps, Adam's steps are already independent of a kernel's
scale, and it would double the stored values. Imported weights have theirs folded in.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp


def conv(x, kernel, bias, dilation=1):
  """Same-length convolution along time: (B, T, C), (k, C, D), (D,) -> (B, T, D), k odd."""
  reach = (kernel.shape[0] - 1) * dilation // 2
  return bias + jax.lax.conv_general_dilated(
      x, kernel, (1,), [(reach, reach)], rhs_dilation=(dilation,),
      dimension_numbers=('NWC', 'WIO', 'NWC'))


def transposed_conv(x, kernel, bias, rate):
  """torch's ConvTranspose1d with stride `rate` and padding (k − rate)//2.

  (B, T, C), (k, C, D), (D,) -> (B, T·rate + (k − rate) % 2, D): one sample more than T·rate where
  k − rate is odd, as in public code. One matrix product computes each input sample's contribution
  to the k output samples around it, in blocks of `rate`; overlapping blocks are added. (A
  convolution over an input with inserted zeros would mostly multiply by zeros.)
  """
  (batch, length, _), (k, c, d) = x.shape, kernel.shape
  blocks = -(-k // rate)
  kernel = jnp.pad(kernel, ((0, blocks * rate - k), (0, 0), (0, 0)))
  terms = x @ kernel.transpose(1, 0, 2).reshape(c, -1)
  terms = terms.reshape(batch, length, blocks, rate * d)
  y = sum(jnp.pad(terms[:, :, i], ((0, 0), (i, blocks - 1 - i), (0, 0))) for i in range(blocks))
  start = (k - rate) // 2
  return bias + y.reshape(batch, -1, d)[:, start:start + (length - 1) * rate + k - 2 * start]


class Conv(nn.Module):
  """Module around `conv` or, with a rate, `transposed_conv`."""
  channels: int
  width: int
  dilation: int = 1
  rate: int | None = None

  @nn.compact
  def __call__(self, x):
    shape = (self.width, x.shape[-1], self.channels)
    # A transposed kernel contributes width/rate taps to an output sample.
    kernel_init = nn.initializers.variance_scaling(self.rate or 1, 'fan_in', 'normal')
    kernel = self.param('kernel', kernel_init, shape)
    bias = self.param('bias', nn.initializers.zeros, (self.channels,))
    if self.rate is not None:
      return transposed_conv(x, kernel, bias, self.rate)
    return conv(x, kernel, bias, self.dilation)


class ResBlock(nn.Module):
  """Residual block of the paper's Fig. 1: `kind` 1 has an undilated convolution after each dilated
  one, `kind` 2 does not. (B, T, C) -> (B, T, C)."""
  kind: int
  width: int
  dilations: tuple[int, ...]
  slope: float

  @nn.compact
  def __call__(self, x):
    for i, dilation in enumerate(self.dilations):
      h = nn.leaky_relu(x, self.slope)
      if self.kind == 1:
        h = Conv(x.shape[-1], self.width, dilation, name=f'convs1_{i}')(h)
        h = Conv(x.shape[-1], self.width, name=f'convs2_{i}')(nn.leaky_relu(h, self.slope))
      else:
        h = Conv(x.shape[-1], self.width, dilation, name=f'convs_{i}')(h)
      x = x + h
    return x


class Generator(nn.Module):
  """Log-mel (B, T, n_mels) -> wave (B, S) in (−1, 1); S is T·hop plus what odd k − u add."""
  config: 'HiFiGAN'

  @nn.compact
  def __call__(self, log_mel):
    c = self.config
    x = (log_mel - c.centre) / c.scale
    if c.standardise:
      mean = self.param('mean', nn.initializers.zeros, (c.n_mels,))
      scale = self.param('scale', nn.initializers.ones, (c.n_mels,))
      x = (x - jax.lax.stop_gradient(mean)) / jax.lax.stop_gradient(scale)  # data statistics
    x = Conv(c.channels, 7, name='conv_pre')(x)
    for i, (rate, width) in enumerate(zip(c.rates, c.kernels, strict=True)):
      x = nn.leaky_relu(x, c.slope)
      x = Conv(c.channels >> (i + 1), width, rate=rate, name=f'ups_{i}')(x)
      blocks = [ResBlock(c.block, k, d, c.slope, name=f'resblocks_{i * len(c.dilations) + j}')
                for j, (k, d) in enumerate(zip(c.residual_kernels, c.dilations, strict=True))]
      x = sum(block(x) for block in blocks) / len(blocks)
    x = nn.leaky_relu(x, c.final_slope)
    return jnp.tanh(Conv(1, 7, name='conv_post')(x))[..., 0]


@dataclasses.dataclass(frozen=True)
class HiFiGAN:
  """Sizes of the vocoder and its pure functions; the defaults are AV-Link's (16 kHz, hop 160).

  rates, kernels: strides and kernels of the transposed convolutions; each halves the `channels`.
  residual_kernels, dilations: those of the residual blocks, whose mean follows each of them.
  block: 1 or 2, the kind of residual block.
  centre, scale: subtracted from mels, then their divisor: zero padding then means silence, and a
    fresh network stays quiet (tanh has no gradient at its ends); 0 and 1 in public weights.
  standardise: first standardise mels by the parameters 'mean' and 'scale', which get no gradient
    (`normalize_before` of Hugging Face's SpeechT5HifiGan).
  slope, final_slope: slopes of the leaky ReLUs; the last is torch's default in the original.

  Raises ValueError if the sizes do not fit together.
  """
  rates: tuple[int, ...] = (5, 4, 2, 2, 2)
  kernels: tuple[int, ...] = (16, 16, 8, 4, 4)
  channels: int = 1024
  residual_kernels: tuple[int, ...] = (3, 7, 11)
  dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3
  block: int = 1
  n_mels: int = 64
  centre: float = 0.0
  scale: float = 1.0
  standardise: bool = False
  slope: float = 0.1
  final_slope: float = 0.01

  def __post_init__(self):
    for requirement, violated in (
        ('as many kernels as rates', len(self.rates) != len(self.kernels)),
        ('kernels at least as wide as their rates',
         any(k < u for u, k in zip(self.rates, self.kernels, strict=False))),
        ('as many lists of dilations as residual kernels',
         len(self.residual_kernels) != len(self.dilations)),
        ('odd residual kernels', any(k % 2 == 0 for k in self.residual_kernels)),
        ('residual blocks of kind 1 or 2', self.block not in (1, 2)),
        ('channels that can be halved at each rate', self.channels >> len(self.rates) == 0)):
      if violated:
        raise ValueError(f'a HiFi-GAN has {requirement}: {self}')

  @property
  def hop(self):
    """Samples per mel frame."""
    return math.prod(self.rates)

  @property
  def reach(self):
    """Mel frames to either side that a sample of the wave depends on."""
    frames, rate = 3.0, 1  # of the first convolution, 7 wide
    twice = self.block == 1
    for stride, kernel in zip(self.rates, self.kernels, strict=True):
      frames += -(-kernel // stride) / rate
      rate *= stride
      frames += max((width - 1) / 2 * (sum(dilations) + twice * len(dilations)) for width, dilations
                    in zip(self.residual_kernels, self.dilations, strict=True)) / rate
    return math.ceil(frames + 3 / rate)

  def init(self, key):
    """Parameters {'conv_pre', 'ups_i', 'resblocks_j', 'conv_post'}, kernels (k, in, out)."""
    return Generator(self).init(key, jnp.zeros((1, 8, self.n_mels)))['params']

  def apply(self, params, log_mel):
    """Log-mel (B, T, n_mels) -> wave (B, T·hop) in (−1, 1)."""
    wave = Generator(self).apply({'params': params}, log_mel)
    return wave[:, :log_mel.shape[1] * self.hop]


def build(config, spec):
  """HiFiGAN of `config.vocoder` for mels of a `MelSpec`. Raises ValueError: their hops differ."""
  vocoder = HiFiGAN(
      rates=tuple(config.rates), kernels=tuple(config.kernels), channels=config.channels,
      residual_kernels=tuple(config.residual_kernels),
      dilations=tuple(tuple(d) for d in config.dilations), block=config.block,
      n_mels=spec.n_mels, centre=spec.silence, scale=-spec.silence / 2)
  if vocoder.hop != spec.hop:
    raise ValueError(f'rates {vocoder.rates} make {vocoder.hop} samples a frame, not {spec.hop}')
  return vocoder


@functools.partial(jax.jit, static_argnums=0)
def synthesise(vocoder, params, log_mel):
  """Jitted `HiFiGAN.apply`."""
  return vocoder.apply(params, log_mel)
