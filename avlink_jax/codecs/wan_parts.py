"""Encoding and decoding of a video by Wan's autoencoder on the host, in bounded memory.

In time the parts are a latent each, with exact results (wan_vae.py). In space there are no parts as
long as the device has memory enough. Then there are tiles that overlap, and where they do, linear
ramps blend them: attention looks at a whole frame, so no surroundings make a tile exact.
"""

import functools

import jax
import numpy as np

from avlink_jax.codecs.video_parts import scaled, tiles, within_memory

OVERLAP = 4  # latents that a tile has on each side in common with its neighbours, at most


@functools.partial(jax.jit, static_argnums=(0, 1))
def _part(vae, method, params, past, x):
  return getattr(vae, method)(params, past, x)


def encode(vae, params, video, tile=None):
  """Latents (B, T, H, W, C), float32 on the host, of video (B, F, H', W', 3); `tile` (rows,
  columns) of latents, None: none."""
  video = vae.padded(np.asarray(video), np.pad)
  strides = (vae.time_stride, vae.space_stride)
  shape = (len(video), vae.latent_count(video.shape[1]),
           *(n // vae.space_stride for n in video.shape[2:4]), vae.latent_channels)
  return _in_parts(functools.partial(_part, vae, 'encode_part', params), video, shape, tile,
                   strides, (1, 1))


def decode(vae, params, latents, tile=None):
  """Video (B, 1 + 4·(T − 1), 8·H, 8·W, 3), float32 on the host, not clipped; as `encode`."""
  latents = np.asarray(latents, np.float32)
  t, s = strides = (vae.time_stride, vae.space_stride)
  size, length, height, width, _ = latents.shape
  shape = (size, 1 + t * (length - 1), s * height, s * width, 3)
  return _in_parts(functools.partial(_part, vae, 'decode_part', params), latents, shape, tile,
                   (1, 1), strides)


def _in_parts(part, x, shape, tile, inner, outer):
  """Output of `shape` (B, T, H, W, C) of `part(past, piece)`; `inner` and `outer` are the strides
  (time, space) of x and of the output."""
  grid = tuple(n // stride for n, stride in zip(
      (shape[1] - 1, *shape[2:4]), (outer[0], outer[1], outer[1]), strict=True))
  out = np.empty(shape, np.float32)

  def fill(_, tile):
    out[:], total = 0, np.zeros((*shape[2:4], 1), np.float32)
    for rows, columns in tiles(grid[1:], tile, OVERLAP):
      piece = x[:, :, scaled(rows.context, inner[1]), scaled(columns.context, inner[1])]
      at = scaled(rows.context, outer[1]), scaled(columns.context, outer[1])
      weight = _ramp(at[0], outer[1])[:, None, None] * _ramp(at[1], outer[1])[:, None]
      total[at] += weight
      for frames, values in _over_time(part, piece, 1 + grid[0], inner[0], outer[0]):
        out[:, frames, *at] += weight * values
    out[:] /= total

  within_memory(fill, (1, *grid[1:]), 1, tile, OVERLAP)
  return out


def _over_time(part, x, count, inner, outer):
  """Yields (slice of the output's frames, output) of `count` latents; frames of x and of the output
  are one for the first latent, `inner` and `outer` for the others."""
  past = None
  for k in range(count):
    at, frames = (slice(max(0, 1 + stride * (k - 1)), 1 + stride * k) for stride in (inner, outer))
    values, past = part(past, x[:, at])
    yield frames, np.asarray(values)


def _ramp(at, stride):
  """Weights (n,) of a tile's rows or columns in the output's slice `at`: rising from both ends over
  what tiles have in common."""
  n = np.arange(at.stop - at.start)
  return np.minimum(np.minimum(n, n[::-1]) + 1, 2 * OVERLAP * stride).astype(np.float32)
