"""The video autoencoder: frames <-> latents at a quarter of the rate and an eighth of the size.

It follows MAGVIT-v2 (Yu et al. 2023, App. A): causal 3-D convolutions, strided down-sampling,
depth-to-space up-sampling, and normalisation in the decoder modulated by the latents.
(B, T, H, W, 3) in [−1, 1] <-> (B, T/4, H/8, W/8, latent_channels).

A length that is not a multiple of 4 is padded in front with repeats of the first frame, so that of
1 + 4k frames the first alone becomes the first latent; a size that is not a multiple of 8 is padded
at the right and bottom with edge pixels. Decoding crops both.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat

from avlink_jax.codecs import lfq, video_parts
from avlink_jax.codecs.causal import CausalConv, LocalNorm
from avlink_jax.codecs.pixels import as_float
from avlink_jax.errors import UserError


class AdaptiveNorm(nn.Module):
  """LocalNorm with scale and shift from the latents, those of the nearest one at each position."""
  dtype: Any

  @nn.compact
  def __call__(self, x, z):
    modulation = nn.Dense(2 * x.shape[-1], kernel_init=nn.initializers.zeros, dtype=self.dtype)(z)
    t, h, w = (a // b for a, b in zip(x.shape[1:4], z.shape[1:4], strict=True))
    modulation = repeat(modulation, 'b t h w c -> b (t p) (h q) (w r) c', p=t, q=h, r=w)
    scale, shift = jnp.split(modulation, 2, axis=-1)
    return LocalNorm(affine=False)(x) * (1 + scale) + shift


class ResBlock(nn.Module):
  """Norm → swish → causal convolution, twice, around a skip."""
  channels: int
  conv: Any

  @nn.compact
  def __call__(self, x):
    h = x
    for _ in range(2):
      h = self.conv(self.channels)(nn.swish(LocalNorm()(h)))
    return h + (x if x.shape[-1] == self.channels else self.conv(self.channels, (1, 1, 1))(x))


class Encoder(nn.Module):
  """Encoder of pixel cells (B, T, H, W, C) -> moments (…, 2·latent_channels) or, with quantisation,
  latents (…, latent_channels) before rounding."""
  vae: Any

  @nn.compact
  def __call__(self, x):
    vae, last = self.vae, len(self.vae.widths) - 1
    conv, block = vae.layers()
    x = conv(vae.widths[0], vae.ends, name='first')(x)
    for level, width in enumerate(vae.widths):
      for i in range(vae.blocks):
        x = block(width, name=f'block_{level}_{i}')(x)
      if level < last:
        x = conv(width, strides=vae.stride_of(level), name=f'down_{level}')(x)
    for i in range(vae.middle):
      x = block(vae.widths[-1], name=f'middle_{i}')(x)
    x = nn.swish(LocalNorm(name='norm')(x))
    outputs = vae.latent_channels * (2 if vae.quantise == 'none' else 1)
    return conv(outputs, (1, 1, 1), name='last')(x)


class Decoder(nn.Module):
  """Decoder of latents (B, T, H, W, C) to pixel cells (…, channels)."""
  vae: Any
  channels: int

  @nn.compact
  def __call__(self, z):
    vae = self.vae
    conv, block = vae.layers()
    x = conv(vae.widths[-1], name='first')(z)
    for i in range(vae.middle):
      x = block(vae.widths[-1], name=f'middle_{i}')(x)
    for level, width in reversed(list(enumerate(vae.widths))):
      x = AdaptiveNorm(vae.dtype, name=f'norm_{level}')(x, z)
      for i in range(vae.decoder_blocks):
        x = block(width, name=f'block_{level}_{i}')(x)
      if level:
        t, h, w = vae.stride_of(level - 1)
        x = conv(t * h * w * width, vae.up_kernel, name=f'up_{level}')(x)
        x = rearrange(x, 'b t h w (p q r c) -> b (t p) (h q) (w r) c', p=t, q=h, r=w)
    x = nn.swish(LocalNorm(name='norm')(x))
    return conv(self.channels, vae.ends, name='last')(x)


@dataclasses.dataclass(frozen=True)
class VideoVAE:
  """Sizes of the autoencoder and its pure functions.

  Attributes:
    width, multipliers: channels of the levels, from the finest; each but the last halves height
      and width, and the last `time_halvings` of those also halve time.
    blocks, decoder_blocks, middle: residual blocks at each level of the encoder, at each level of
      the decoder, and additional ones at the coarsest level of both.
    patch: frames, rows and columns of pixels that form a cell before the first convolution, so
      that on a CPU no convolution runs over single pixels; (1, 1, 1) in MAGVIT-v2.
    kernel: kernel of residual blocks and of down-sampling convolutions; (1, 3, 3) codes each frame
      by itself if the other kernels do as well.
    ends: kernel of the first and last convolution. up_kernel: kernel of up-sampling convolutions.
    quantise: 'none', or 'lfq': latents are codes of −1 and 1, tokens (codecs/lfq.py).
    linear: a matrix in parallel to the convolutions each way, as in the 1D-VAE
      (codecs/mel_vae.py); it finds the principal components within a few hundred steps.
    planes: faster on a CPU (codecs/causal.py). dtype: activations' type. remat: recompute blocks
      for the gradient.

  Parameters: {'encoder', 'decoder'[, 'linear']}; the latents' measured standard deviation `std` ()
  is stored with them, and the upsampler gets the posterior's mean (or its code) divided by it.
  """
  width: int = 128
  multipliers: tuple[int, ...] = (1, 2, 2, 4)
  time_halvings: int = 2
  blocks: int = 4
  decoder_blocks: int = 4
  middle: int = 4
  latent_channels: int = 16
  patch: tuple[int, int, int] = (1, 1, 1)
  kernel: tuple[int, int, int] = (3, 3, 3)
  ends: tuple[int, int, int] = (3, 3, 3)
  up_kernel: tuple[int, int, int] = (3, 3, 3)
  quantise: str = 'none'
  linear: bool = False
  planes: bool = False
  dtype: Any = jnp.float32
  remat: bool = False

  @classmethod
  def of(cls, config, dtype=jnp.float32, platform=None, remat=False):
    """VideoVAE described by `config.video_codec`, on `platform` (default: this process's).

    Raises UserError: unknown quantisation, or too many channels for it.
    """
    if config.quantise not in ('none', 'lfq'):
      raise UserError(f'video_codec.quantise={config.quantise!r}: use none or lfq')
    if config.quantise == 'lfq' and config.latent_channels > lfq.MOST_BITS:
      raise UserError(f'video_codec.latent_channels={config.latent_channels}: with lfq these are '
                      f'the bits of a token: use at most {lfq.MOST_BITS}')
    return cls(config.width, tuple(config.multipliers), config.time_halvings, config.blocks,
               config.decoder_blocks, config.middle, config.latent_channels, tuple(config.patch),
               tuple(config.kernel), tuple(config.ends), tuple(config.up_kernel),
               config.quantise, config.linear,
               (platform or jax.default_backend()) == 'cpu', dtype, remat)

  @property
  def time_stride(self):
    """Frames per latent."""
    return self.patch[0] * 2**self.time_halvings

  @property
  def space_stride(self):
    """Pixels per latent in height and width."""
    return self.patch[1] * 2 ** (len(self.multipliers) - 1)

  @property
  def widths(self):
    return tuple(self.width * m for m in self.multipliers)

  def stride_of(self, level):
    """Stride (time, height, width) from a level to the next coarser one."""
    halved = level >= len(self.multipliers) - 1 - self.time_halvings
    return (2 if halved else 1, 2, 2)

  def layers(self):
    """Constructors of the networks' layers: (convolution, residual block)."""
    def conv(features, kernel=None, strides=(1, 1, 1), name=None):
      kernel = kernel or self.kernel
      return CausalConv(features, kernel, strides, self.planes, self.dtype, name=name)

    block = nn.remat(ResBlock) if self.remat else ResBlock
    return conv, lambda channels, name: block(channels, conv, name=name)

  @property
  def encoder(self):
    return Encoder(self)

  @property
  def decoder(self):
    return Decoder(self, 3 * math.prod(self.patch))

  @property
  def halo(self):
    """Number of latents around a tile that its content depends on: (encoder, decoder)."""
    last = len(self.multipliers) - 1
    ends, up = self.ends[1] // 2, self.up_kernel[1] // 2
    encoder = ends + sum(2**level * (2 * self.blocks + (level < last)) for level in range(last + 1))
    decoder = ends + 2**last + sum(2**level * (2 * self.decoder_blocks + (up if level else 0))
                                   for level in range(last + 1))
    middle = 2 * self.middle
    return tuple(middle + math.ceil(cells / 2**last) for cells in (encoder, decoder))

  def init(self, key):
    keys = jax.random.split(key)
    t, s = self.time_stride, self.space_stride
    video = jnp.zeros((1, t, s, s, 3))
    z = jnp.zeros((1, 1, 1, 1, self.latent_channels))
    params = {'encoder': self.encoder.init(keys[0], self._cells(video, self.patch))['params'],
              'decoder': self.decoder.init(keys[1], z)['params']}
    if self.linear:
      matrix = nn.initializers.orthogonal()(
          jax.random.fold_in(key, 2), (3 * t * s * s, self.latent_channels))
      params['linear'] = {'encode': matrix, 'decode': matrix.T}
    return params

  def moments(self, params, video):
    """Posterior mean and log-variance, (B, ⌈T/4⌉, ⌈H/8⌉, ⌈W/8⌉, C) each, of video (B, T, H, W, 3)
    in [−1, 1], or uint8."""
    mean, log_variance, _ = self.moments_of_part(params, None, self.padded(video))
    return mean, log_variance

  def moments_of_part(self, params, past, video):
    """Moments of a part of a video, whose sides are multiples of the strides, and the state for the
    next part; `past` is the previous part's state, None for the first."""
    video = as_float(video)
    moments, past = self._apply(self.encoder, params['encoder'], past,
                                self._cells(video, self.patch))
    if self.quantise == 'lfq':
      mean, log_variance = moments, jnp.full(moments.shape, -30.0)
    else:
      mean, log_variance = jnp.split(moments, 2, axis=-1)
    if self.linear:
      cells = self._cells(video, (self.time_stride, self.space_stride, self.space_stride))
      mean += cells @ params['linear']['encode']
    return mean, jnp.clip(log_variance, -30.0, 20.0), past

  def encode(self, params, std, video):
    """Scaled latents (B, ⌈T/4⌉, ⌈H/8⌉, ⌈W/8⌉, C) of video (B, T, H, W, 3)."""
    return self.code(self.moments(params, video)[0]) / std

  def code(self, mean):
    """Latents from the posterior's mean: itself or, with quantisation, the nearest code."""
    return lfq.quantise(mean) if self.quantise == 'lfq' else mean

  def tokens(self, params, video):
    """Tokens of video (B, T, H, W, 3), below 2^latent_channels: int32 (B, ⌈T/4⌉, ⌈H/8⌉, ⌈W/8⌉)."""
    return lfq.tokens(self.encode(params, 1.0, video))

  def decode_tokens(self, params, tokens, frames=None, height=None, width=None):
    """Decodes tokens (B, T, H, W)."""
    return self.decode(params, 1.0, lfq.codes(tokens, self.latent_channels), frames, height, width)

  def decode(self, params, std, latents, frames=None, height=None, width=None):
    """Video (B, 4·T, 8·H, 8·W, 3), not clipped, of scaled latents (B, T, H, W, C), cropped to the
    last `frames`, the first `height` rows and `width` columns where these are set."""
    video, _ = self.decode_part(params, std, None, latents)
    return self.cut(video, frames, height, width)

  def decode_part(self, params, std, past, latents):
    """Uncropped video of a part of the latents, and the state for the next part; `past` as in
    `moments_of_part`."""
    z = self.code(latents * std)
    cells, past = self._apply(self.decoder, params['decoder'], past, z)
    video = self._pixels(cells, self.patch)
    if self.linear:
      video += self._pixels(z @ params['linear']['decode'],
                            (self.time_stride, self.space_stride, self.space_stride))
    return video, past

  def encode_in_parts(self, params, std, video, latents_at_once=4, tile=None):
    """Encodes in bounded memory, on the host: `latents_at_once` in time and, if `tile` (rows,
    columns) of latents is set, in overlapping tiles (codecs/video_parts.py)."""
    return video_parts.encode(self, params, std, video, latents_at_once, tile)

  def decode_in_parts(self, params, std, latents, frames=None, height=None, width=None,
                      latents_at_once=4, tile=None):
    """Decodes in bounded memory, with `encode_in_parts`' arguments."""
    video = video_parts.decode(self, params, std, latents, latents_at_once, tile)
    return self.cut(video, frames, height, width)

  def padded(self, video, pad=jnp.pad):
    """Pads a video (B, T, H, W, 3) to multiples of the strides."""
    t, s = self.time_stride, self.space_stride
    fill = ((0, 0), (-video.shape[1] % t, 0), (0, -video.shape[2] % s), (0, -video.shape[3] % s),
            (0, 0))
    return pad(video, fill, mode='edge') if any(map(any, fill)) else video

  @staticmethod
  def cut(video, frames=None, height=None, width=None):
    """Crops what `padded` added."""
    first = 0 if frames is None else video.shape[1] - frames
    return video[:, first:, :height, :width]

  @staticmethod
  def _apply(module, params, past, x):
    """Applies a module: (float32 output, new 'past')."""
    variables = {'params': params} if past is None else {'params': params, 'past': past}
    out, state = module.apply(variables, x, mutable=['past'])
    return out.astype(jnp.float32), dict(state).get('past', {})

  @staticmethod
  def _cells(video, patch):
    p, q, r = patch
    return rearrange(video, 'b (t p) (h q) (w r) c -> b t h w (p q r c)', p=p, q=q, r=r)

  @staticmethod
  def _pixels(cells, patch):
    p, q, r = patch
    return rearrange(cells, 'b t h w (p q r c) -> b (t p) (h q) (w r) c', p=p, q=q, r=r)
