"""The continuous DAC (Kumar et al. 2023, arXiv:2306.06546, with a Gaussian posterior in place of
its codebooks): wave (B, S, 1) <-> latents (B, S/hop, C). Its networks.

Parameters have the names of the published weights, with kernels (k, in, out). Weight normalisation
is folded into them (codecs/published.py).
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from avlink_jax.codecs import hifigan

DILATIONS = (1, 3, 9)  # of the three residual units beside each stride
PART = 256  # latents of a wave that are computed at a time


class Snake(nn.Module):
  """x + sin²(αx)/(α + 1e-9), α a parameter of each channel."""

  @nn.compact
  def __call__(self, x):
    alpha = self.param('alpha', nn.initializers.ones, (x.shape[-1],))
    return x + jnp.sin(alpha * x) ** 2 / (alpha + 1e-9)


class Conv(nn.Module):
  """Convolution along time: (B, T, C) -> (B, T, channels); with a stride (B, T/stride, channels)
  or, `transposed`, (B, T·stride, channels). A kernel that strides is 2·stride wide."""
  channels: int
  width: int = 1
  dilation: int = 1
  stride: int = 1
  transposed: bool = False

  @nn.compact
  def __call__(self, x):
    kernel = self.param('kernel', nn.initializers.lecun_normal(),
                        (self.width, x.shape[-1], self.channels))
    bias = self.param('bias', nn.initializers.zeros, (self.channels,))
    if self.transposed:
      return transposed_conv(x, kernel, bias, self.stride)
    if self.stride == 1:
      return hifigan.conv(x, kernel, bias, self.dilation)
    before = math.ceil(self.stride / 2)
    return bias + jax.lax.conv_general_dilated(
        x, kernel, (self.stride,), [(before, before)], dimension_numbers=('NWC', 'WIO', 'NWC'))


def transposed_conv(x, kernel, bias, stride):
  """torch's ConvTranspose1d of a kernel 2·stride wide, padding ⌈stride/2⌉ and output padding
  stride mod 2: (B, T, C), (2·stride, C, D), (D,) -> (B, T·stride, D).

  One matrix product computes each input's contribution to the two blocks of `stride` outputs around
  it; overlapping blocks are added.
  """
  batch, length, channels = x.shape
  terms = (x @ kernel.transpose(1, 0, 2).reshape(channels, -1)).reshape(batch, length, 2, -1)
  y = sum(jnp.pad(terms[:, :, i], ((0, 0), (i, 1 - i), (0, 0))) for i in range(2))
  first = math.ceil(stride / 2)
  return bias + y.reshape(batch, (length + 1) * stride, -1)[:, first:first + length * stride]


class ResUnit(nn.Module):
  """Snake → dilated convolution → Snake → matrix, around a skip."""
  dilation: int

  @nn.compact
  def __call__(self, x):
    h = Conv(x.shape[-1], 7, self.dilation, name='block_1')(Snake(name='block_0')(x))
    return x + Conv(x.shape[-1], name='block_3')(Snake(name='block_2')(h))


class Down(nn.Module):
  """Residual units, then a strided convolution that doubles the channels."""
  stride: int

  @nn.compact
  def __call__(self, x):
    for i, dilation in enumerate(DILATIONS):
      x = ResUnit(dilation, name=f'block_{i}')(x)
    x = Snake(name='block_3')(x)
    return Conv(2 * x.shape[-1], 2 * self.stride, stride=self.stride, name='block_4')(x)


class Up(nn.Module):
  """Transposed convolution to `channels`, then residual units."""
  channels: int
  stride: int

  @nn.compact
  def __call__(self, x):
    x = Conv(self.channels, 2 * self.stride, stride=self.stride, transposed=True,
             name='block_1')(Snake(name='block_0')(x))
    for i, dilation in enumerate(DILATIONS, 2):
      x = ResUnit(dilation, name=f'block_{i}')(x)
    return x


class Encoder(nn.Module):
  """Wave (B, T·hop, 1) -> (B, T, C) before the moments."""
  dac: 'DAC'

  @nn.compact
  def __call__(self, x):
    dac = self.dac
    x = Conv(dac.encoder_width, 7, name='block_0')(x)
    for i, rate in enumerate(dac.encoder_rates, 1):
      x = Down(rate, name=f'block_{i}')(x)
    last = len(dac.encoder_rates) + 1
    return Conv(dac.latent_channels, 3, name=f'block_{last + 1}')(Snake(name=f'block_{last}')(x))


class Decoder(nn.Module):
  """Latents (B, T, C) after their matrix -> wave (B, T·hop, 1) in (−1, 1)."""
  dac: 'DAC'

  @nn.compact
  def __call__(self, x):
    dac = self.dac
    x = Conv(dac.decoder_width, 7, name='model_0')(x)
    for i, rate in enumerate(dac.decoder_rates, 1):
      x = Up(dac.decoder_width >> i, rate, name=f'model_{i}')(x)
    last = len(dac.decoder_rates) + 1
    return jnp.tanh(Conv(1, 7, name=f'model_{last + 1}')(Snake(name=f'model_{last}')(x)))


class ToMoments(nn.Module):
  """Encoder and the moments' matrix."""
  dac: 'DAC'

  @nn.compact
  def __call__(self, wave):
    x = Encoder(self.dac, name='encoder')(wave)
    return Conv(2 * self.dac.latent_channels, name='quant_conv')(x)


class ToWave(nn.Module):
  """Decoder after its first matrix."""
  dac: 'DAC'

  @nn.compact
  def __call__(self, z):
    x = Conv(self.dac.latent_channels, name='post_quant_conv')(z)
    return Decoder(self.dac, name='decoder')(x)


@dataclasses.dataclass(frozen=True)
class DAC:
  """Sizes of the codec and its pure functions.

  Attributes:
    sample_rate: Hz of waves.
    encoder_width, decoder_width: channels of the wave's end of the encoder, doubled with each rate,
      and of the latents' end of the decoder, halved with each.
    encoder_rates, decoder_rates: strides; their products are the same, the hop.
    latent_channels: numbers of a latent.
  """
  sample_rate: int
  encoder_width: int
  encoder_rates: tuple[int, ...]
  latent_channels: int
  decoder_width: int
  decoder_rates: tuple[int, ...]

  @property
  def hop(self):
    """Samples per latent."""
    return math.prod(self.encoder_rates)

  @property
  def rate(self):
    """Latents a second."""
    return self.sample_rate / self.hop

  @property
  def halo(self):
    """Latents on each side of a part that it depends on, at least: (encoder, decoder).

    A chain of residual units reaches 3·(1 + 3 + 9) frames to each side, a strided convolution and a
    transposed one two of their coarser frames."""
    units = 3 * sum(DILATIONS)
    samples = 1
    for rate in reversed(self.encoder_rates):
      samples = (samples + 2) * rate + units
    latents = 3
    for rate in reversed(self.decoder_rates):
      latents = math.ceil((latents + units) / rate) + 2
    return math.ceil((samples + 3) / self.hop), latents + 3

  def init(self, key):
    keys = jax.random.split(key)
    wave, z = jnp.zeros((1, self.hop, 1)), jnp.zeros((1, 1, self.latent_channels))
    return {**ToMoments(self).init(keys[0], wave)['params'],
            **ToWave(self).init(keys[1], z)['params']}

  def encode(self, params, wave):
    """Latents (B, ⌈S/hop⌉, C), the posterior's mean, of wave (B, S), with zeros behind its end;
    PART at a time, so that memory does not grow with S."""
    wave = jnp.pad(wave, ((0, 0), (0, -wave.shape[1] % self.hop)))[..., None]

    def part(wave):
      moments = ToMoments(self).apply({'params': params}, wave)
      return moments[..., :self.latent_channels]

    return in_parts(part, wave, PART, self.halo[0], self.hop, 1)

  def decode(self, params, latents):
    """Wave (B, T·hop) in (−1, 1) of latents (B, T, C), PART at a time."""
    part = lambda z: ToWave(self).apply({'params': params}, z)  # noqa: E731
    return in_parts(part, latents, PART, self.halo[1], 1, self.hop)[..., 0]


def in_parts(function, x, length, halo, inner, outer):
  """`function(x)` in parts of `length` latents that are computed one after another, each with
  `halo` latents on either side, which are cropped off.

  x has `inner` frames a latent and the output `outer`, on axis 1. All parts have the same size, so
  the last may have frames in common with the one before.
  """
  count = x.shape[1] // inner
  if count <= length + 2 * halo:
    return function(x)
  starts = [min(first, count - length) for first in range(0, count, length)]
  contexts = [min(max(start - halo, 0), count - length - 2 * halo) for start in starts]

  def part(at):
    context, offset = at
    piece = jax.lax.dynamic_slice_in_dim(x, context * inner, (length + 2 * halo) * inner, axis=1)
    return jax.lax.dynamic_slice_in_dim(function(piece), offset * outer, length * outer, axis=1)

  offsets = [start - context for start, context in zip(starts, contexts, strict=True)]
  parts = jax.lax.map(part, (jnp.array(contexts), jnp.array(offsets)))
  ends = [*starts[1:], count]
  return jnp.concatenate([parts[i, :, :(end - start) * outer] for i, (start, end) in enumerate(
      zip(starts, ends, strict=True))], axis=1)
