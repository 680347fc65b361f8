"""Encoding and decoding of videos in parts: exact results in bounded memory.

In time the causal convolutions keep their last inputs (codecs/causal.py). In space a tile is
processed with the surroundings that its output depends on (`VideoVAE.halo`), which are cropped off.
"""

import functools
import math
import sys

import jax
import numpy as np

from avlink_jax.errors import out_of_memory


@functools.partial(jax.jit, static_argnums=0)
def _encode_part(vae, params, std, past, video):
  mean, _, past = vae.moments_of_part(params, past, video)
  return vae.code(mean) / std, past


@functools.partial(jax.jit, static_argnums=0)
def _decode_part(vae, params, std, past, latents):
  return vae.decode_part(params, std, past, latents)


def encode(vae, params, std, video, latents_at_once, tile):
  """Encodes video (B, T, H, W, 3), host or device, to scaled latents, float32 on the host."""
  video = vae.padded(np.asarray(video), np.pad)
  t, s = vae.time_stride, vae.space_stride
  grid = (video.shape[1] // t, video.shape[2] // s, video.shape[3] // s)
  latents = np.empty((len(video), *grid, vae.latent_channels), np.float32)
  part = functools.partial(_encode_part, vae, params, std)

  def fill(latents_at_once, tile):
    for rows, columns in tiles(grid[1:], tile, vae.halo[0]):
      inputs = video[:, :, scaled(rows.context, s), scaled(columns.context, s)]
      for at, piece in over_time(part, inputs, t, grid[0], latents_at_once):
        latents[:, at, rows.tile, columns.tile] = piece[:, :, rows.inner, columns.inner]

  within_memory(fill, grid, latents_at_once, tile, vae.halo[0])
  return latents


def decode(vae, params, std, latents, latents_at_once, tile):
  """Decodes scaled latents (B, T, H, W, C) to video (B, 4·T, 8·H, 8·W, 3), float32 on the host."""
  latents = np.asarray(latents, np.float32)
  t, s = vae.time_stride, vae.space_stride
  size, *grid = latents.shape[:4]
  video = np.empty((size, grid[0] * t, grid[1] * s, grid[2] * s, 3), np.float32)
  part = functools.partial(_decode_part, vae, params, std)

  def fill(latents_at_once, tile):
    for rows, columns in tiles(grid[1:], tile, vae.halo[1]):
      inputs = latents[:, :, rows.context, columns.context]
      for at, piece in over_time(part, inputs, 1, grid[0], latents_at_once):
        video[:, scaled(at, t), scaled(rows.tile, s), scaled(columns.tile, s)] = piece[
            :, :, scaled(rows.inner, s), scaled(columns.inner, s)]

  within_memory(fill, grid, latents_at_once, tile, vae.halo[1])
  return video


def within_memory(fill, grid, latents_at_once, tile, halo):
  """Calls `fill(latents_at_once, tile)`, and again with smaller parts, with a message, while a
  device runs out of memory and smaller ones exist."""
  latents_at_once = min(latents_at_once, grid[0])
  while True:
    try:
      return fill(latents_at_once, tile)
    except jax.errors.JaxRuntimeError as error:
      smaller = halved(grid[1:], latents_at_once, tile, halo)
      if not out_of_memory(error) or smaller is None:
        raise
    latents_at_once, tile = smaller
    print(f'too little memory: the video goes through its codec {latents_at_once} latents at a time'
          + (f', in tiles of {tile[0]} × {tile[1]}' if tile else ''), file=sys.stderr, flush=True)


def halved(grid, latents_at_once, tile, halo):
  """Sizes (latents_at_once, tile) of parts that need less memory, None if there are none.

  First fewer latents, which costs nothing, then smaller tiles, as long as their context shrinks."""
  if latents_at_once > 1:
    return latents_at_once // 2, tile
  context = lambda tile: math.prod(  # noqa: E731
      min(side + 2 * halo, size) for side, size in zip(tile, grid, strict=True))
  tile = current = tuple(min(side, size) for side, size in zip(tile or grid, grid, strict=True))
  while max(tile) > 1:
    tile = ((-(-tile[0] // 2), tile[1]) if tile[0] >= tile[1] else (tile[0], -(-tile[1] // 2)))
    if context(tile) < context(current):
      return 1, tile
  return None


def over_time(part, inputs, stride, length, at_once):
  """Runs `part(past, piece)` -> (output, past) over `inputs`, which have `stride` frames for each
  of `length` latents; yields (slice of latents, output)."""
  past = None
  for first in range(0, length, at_once):
    at = slice(first, min(first + at_once, length))
    output, past = part(past, inputs[:, scaled(at, stride)])
    yield at, np.asarray(output)


class Span:
  """Side of a tile, in latents: slices `tile` and `context` (with the halo) of the grid, and
  `inner`, the tile within its context."""

  def __init__(self, first, last, length, size, halo):
    start = min(max(first - halo, 0), size - length)
    self.tile, self.context = slice(first, last), slice(start, start + length)
    self.inner = slice(first - start, last - start)


def tiles(grid, tile, halo):
  """List of (rows, columns), a Span each, whose tiles partition a grid (height, width) of latents.

  All contexts have the same size, so that one compiled program serves them."""
  sides = []
  for size, side in zip(grid, tile or grid, strict=True):
    side = min(side, size)
    length = min(side + 2 * halo, size)
    sides.append([Span(first, min(first + side, size), length, size, halo)
                  for first in range(0, size, side)])
  return [(rows, columns) for rows in sides[0] for columns in sides[1]]


def scaled(at, stride):
  """Slice of pixels or frames that a slice of latents covers."""
  return slice(at.start * stride, at.stop * stride)
