"""Wan's causal video autoencoder (Wan 2.1; `AutoencoderKLWan` in diffusers): its networks.

(B, 1 + 4k, H, W, 3) in [−1, 1] <-> (B, 1 + k, H/8, W/8, 16). The first latent is the first frame
alone, and latent k ≥ 1 covers frames 4k − 3 … 4k, so the convolutions that halve and double time
leave the first frame out. Zeros stand in front of the first frame. A video is processed in parts,
the first frame and then four frames (a latent) at a time; each convolution keeps its last inputs
in the variables 'past', and the parts together give the same output as the video in one piece.

Parameters have the names of the published weights, with kernels (t, h, w, in, out).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from avlink_jax.codecs.causal import CausalConv
from avlink_jax.codecs.pixels import as_float
from avlink_jax.model.attention import attend


class RMSNorm(nn.Module):
  """x / ‖x‖ · √C · scale over the channels, in float32."""

  @nn.compact
  def __call__(self, x):
    h = x.astype(jnp.float32)
    norm = jnp.maximum(jnp.linalg.norm(h, axis=-1, keepdims=True), 1e-12)
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
    return (h / norm * (x.shape[-1] ** 0.5 * scale)).astype(x.dtype)


class ResBlock(nn.Module):
  """Norm → SiLU → causal convolution, twice, around a skip."""
  channels: int
  conv: Any

  @nn.compact
  def __call__(self, x):
    h = x
    for i in (1, 2):
      h = nn.silu(RMSNorm(name=f'norm{i}')(h))
      h = self.conv(self.channels, name=f'conv{i}')(h)
    if x.shape[-1] != self.channels:
      x = self.conv(self.channels, (1, 1, 1), name='conv_shortcut')(x)
    return x + h


class Attention(nn.Module):
  """Single-head self-attention within each frame, around a skip."""
  dtype: Any

  @nn.compact
  def __call__(self, x):
    channels = x.shape[-1]
    h = nn.Dense(3 * channels, dtype=self.dtype, name='to_qkv')(RMSNorm(name='norm')(x))
    q, k, v = jnp.split(rearrange(h, 'b t h w c -> (b t) 1 (h w) c'), 3, axis=-1)
    h = attend(q, k, v, implementation='tiled').reshape(x.shape)
    return x + nn.Dense(channels, dtype=self.dtype, name='proj')(h)


class MidBlock(nn.Module):
  """Residual block, attention, residual block, at the coarsest level."""
  vae: Any

  @nn.compact
  def __call__(self, x):
    for i in range(2):
      if i:
        x = Attention(self.vae.dtype, name='attentions_0')(x)
      x = ResBlock(x.shape[-1], self.vae.conv, name=f'resnets_{i}')(x)
    return x


class Down(nn.Module):
  """Halves height and width, and time unless it is the first frame, which is only remembered."""
  conv: Any
  time: bool

  @nn.compact
  def __call__(self, x, first):
    x = self.conv(x.shape[-1], (1, 3, 3), (1, 2, 2), name='resample_1')(x)
    if not self.time:
      return x
    halve = self.conv(x.shape[-1], (3, 1, 1), (2, 1, 1), name='time_conv')
    if first:
      halve(jnp.repeat(x, 2, axis=1))  # of which it keeps the last; the output is dropped
      return x
    return halve(x)


class Up(nn.Module):
  """Doubles height and width, and time unless it is the first frame; halves the channels.

  Of the first frame the convolution over time sees zeros."""
  conv: Any
  time: bool

  @nn.compact
  def __call__(self, x, first):
    channels = x.shape[-1]
    if self.time:
      double = self.conv(2 * channels, (3, 1, 1), name='time_conv')
      if first:
        double(jnp.zeros_like(x))  # which it keeps; the output is dropped
      else:
        x = rearrange(double(x), 'b t h w (p c) -> b (t p) h w c', p=2)
    x = jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3)
    return self.conv(channels // 2, (1, 3, 3), name='resample_1')(x)


class UpBlock(nn.Module):
  """Residual blocks of a level of the decoder, and the way up to the next finer one, if any."""
  vae: Any
  channels: int
  up: bool
  time: bool

  @nn.compact
  def __call__(self, x, first):
    for i in range(self.vae.blocks + 1):
      x = ResBlock(self.channels, self.vae.conv, name=f'resnets_{i}')(x)
    return Up(self.vae.conv, self.time, name='upsamplers_0')(x, first) if self.up else x


class Encoder(nn.Module):
  """Frames (B, T, H, W, 3) -> moments before the last matrix (B, T/4, H/8, W/8, 2·C)."""
  vae: Any

  @nn.compact
  def __call__(self, x, first):
    vae, layers = self.vae, 0
    x = vae.conv(vae.width, name='conv_in')(x)
    for level, width in enumerate(vae.widths):
      for _ in range(vae.blocks):
        x = ResBlock(width, vae.conv, name=f'down_blocks_{layers}')(x)
        layers += 1
      if level < len(vae.halves_time):
        x = Down(vae.conv, vae.halves_time[level], name=f'down_blocks_{layers}')(x, first)
        layers += 1
    x = MidBlock(vae, name='mid_block')(x)
    x = nn.silu(RMSNorm(name='norm_out')(x))
    return vae.conv(2 * vae.latent_channels, name='conv_out')(x)


class Decoder(nn.Module):
  """Latents after the first matrix (B, T, H, W, C) -> frames (B, 4·T, 8·H, 8·W, 3)."""
  vae: Any

  @nn.compact
  def __call__(self, z, first):
    vae = self.vae
    x = vae.conv(vae.widths[-1], name='conv_in')(z)
    x = MidBlock(vae, name='mid_block')(x)
    doubles = (*reversed(vae.halves_time), False)
    for i, (width, time) in enumerate(zip(reversed(vae.widths), doubles, strict=True)):
      up = i < len(vae.halves_time)
      x = UpBlock(vae, width, up, time, name=f'up_blocks_{i}')(x, first)
    x = nn.silu(RMSNorm(name='norm_out')(x))
    return vae.conv(3, name='conv_out')(x)


class ToMoments(nn.Module):
  """Encoder and its last matrix."""
  vae: Any

  @nn.compact
  def __call__(self, video, first=False):
    x = Encoder(self.vae, name='encoder')(video, first)
    return nn.Dense(2 * self.vae.latent_channels, dtype=self.vae.dtype, name='quant_conv')(x)


class ToVideo(nn.Module):
  """Decoder after its first matrix."""
  vae: Any

  @nn.compact
  def __call__(self, z, first=False):
    z = nn.Dense(self.vae.latent_channels, dtype=self.vae.dtype, name='post_quant_conv')(z)
    return Decoder(self.vae, name='decoder')(z, first)


@dataclasses.dataclass(frozen=True)
class WanVAE:
  """Sizes of the autoencoder and its pure functions.

  Attributes:
    width, multipliers: channels of the levels, from the finest; each but the last halves height
      and width.
    halves_time: for each of those halvings, whether it halves time as well.
    blocks: residual blocks a level; the decoder has one more.
    mean, std: of each channel of the posterior's mean; latents are what is left without them.
    planes: faster on a CPU (codecs/causal.py). dtype: activations' type.
  """
  width: int
  multipliers: tuple[int, ...]
  halves_time: tuple[bool, ...]
  blocks: int
  latent_channels: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  planes: bool = False
  dtype: Any = jnp.float32

  @property
  def time_stride(self):
    """Frames of each latent but the first."""
    return 2 ** sum(self.halves_time)

  @property
  def space_stride(self):
    """Pixels per latent in height and width."""
    return 2 ** len(self.halves_time)

  @property
  def widths(self):
    return tuple(self.width * m for m in self.multipliers)

  def conv(self, features, kernel=(3, 3, 3), strides=(1, 1, 1), name=None):
    """Constructor of the networks' convolutions."""
    return CausalConv(features, kernel, strides, self.planes, self.dtype, zeros=True, name=name)

  def init(self, key):
    keys = jax.random.split(key)
    t, s = self.time_stride, self.space_stride
    video, z = jnp.zeros((1, t, s, s, 3)), jnp.zeros((1, 1, 1, 1, self.latent_channels))
    return {**ToMoments(self).init(keys[0], video)['params'],
            **ToVideo(self).init(keys[1], z)['params']}

  def latent_count(self, frames):
    """Number of latents of a video with that many frames."""
    return 1 + -(-(frames - 1) // self.time_stride)

  def padded(self, video, pad=jnp.pad):
    """Pads a video (B, T, H, W, 3) with repeats of its last frame, and of its last row and column,
    to as much as whole latents cover."""
    t, s = self.time_stride, self.space_stride
    fill = ((0, 0), (0, -(video.shape[1] - 1) % t), (0, -video.shape[2] % s),
            (0, -video.shape[3] % s), (0, 0))
    return pad(video, fill, mode='edge') if any(map(any, fill)) else video

  def encode_part(self, params, past, video):
    """Latents of a part of a video, whose sides are multiples of the strides, and the state for the
    next part. `past` is the previous part's state; the first part, without one, is one frame."""
    video = as_float(video).astype(self.dtype)
    moments, past = self._apply(ToMoments(self), params, past, video)
    mean = moments[..., :self.latent_channels]
    return (mean - np.float32(self.mean)) / np.float32(self.std), past

  def decode_part(self, params, past, latents):
    """Video, not clipped, of a part of the latents, and the state for the next part; `past` as in
    `encode_part`, and the first part is one latent."""
    z = latents * np.float32(self.std) + np.float32(self.mean)
    return self._apply(ToVideo(self), params, past, z.astype(self.dtype))

  def encode(self, params, video):
    """Latents (B, 1 + ⌈(T − 1)/4⌉, ⌈H/8⌉, ⌈W/8⌉, C) of video (B, T, H, W, 3) in [−1, 1], or uint8;
    a latent at a time, so that memory does not grow with T."""
    return self._scanned(self.encode_part, params, self.padded(video), self.time_stride)

  def decode(self, params, latents):
    """Video (B, 1 + 4·(T − 1), 8·H, 8·W, 3), not clipped, of latents (B, T, H, W, C); a latent at a
    time."""
    return self._scanned(self.decode_part, params, latents, 1)

  @staticmethod
  def _scanned(function, params, x, step):
    """Outputs (B, T', …) of `function` for the first of x (B, T, …) and then `step` at a time."""
    first, past = function(params, None, x[:, :1])
    rest = rearrange(x[:, 1:], 'b (n t) ... -> n b t ...', t=step)
    if not len(rest):
      return first

    def one(past, part):
      out, past = function(params, past, part)
      return past, out

    _, out = jax.lax.scan(one, past, rest)
    return jnp.concatenate([first, rearrange(out, 'n b t ... -> b (n t) ...')], axis=1)

  @staticmethod
  def _apply(module, params, past, x):
    """Applies a module to a part: (float32 output, new 'past'). Raises ValueError: the first part
    has more than a frame."""
    if past is None and x.shape[1] != 1:
      raise ValueError(f'the first part is one frame, not {x.shape[1]}')
    variables = {'params': params} | ({} if past is None else {'past': past})
    out, state = module.apply(variables, x, past is None, mutable=['past'])
    return out.astype(jnp.float32), dict(state)['past']
