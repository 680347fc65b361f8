"""A video through the autoencoder in parts: exactly what the whole would give, in bounded memory.

In time the causal convolutions hand on what they saw (codecs/causal.py). In space a tile is cut out
with as much around it as the network sees (`VideoVAE.halo`), and only the tile itself is kept.
"""

import functools

import jax
import numpy as np


@functools.partial(jax.jit, static_argnums=0)
def _encode_part(vae, params, std, past, video):
  mean, _, past = vae.moments_of_part(params, past, video)
  return mean / std, past


@functools.partial(jax.jit, static_argnums=0)
def _decode_part(vae, params, std, past, latents):
  return vae.decode_part(params, std, past, latents)


def encode(vae, params, std, video, latents_at_once, tile):
  """Video (B, T, H, W, 3), host or device -> scaled latents, float32 on the host."""
  video = vae.padded(np.asarray(video), np.pad)
  t, s = vae.time_stride, vae.space_stride
  grid = (video.shape[1] // t, video.shape[2] // s, video.shape[3] // s)
  made = np.empty((len(video), *grid, vae.latent_channels), np.float32)
  for rows, columns in tiles(grid[1:], tile, vae.halo[0]):
    seen = video[:, :, scaled(rows.seen, s), scaled(columns.seen, s)]
    part = functools.partial(_encode_part, vae, params, std)
    for at, piece in in_time(part, seen, t, grid[0], latents_at_once):
      made[:, at, rows.own, columns.own] = piece[:, :, rows.kept, columns.kept]
  return made


def decode(vae, params, std, latents, latents_at_once, tile):
  """Scaled latents (B, T, H, W, C) -> video (B, 4·T, 8·H, 8·W, 3), float32 on the host."""
  latents = np.asarray(latents, np.float32)
  t, s = vae.time_stride, vae.space_stride
  size, *grid = latents.shape[:4]
  made = np.empty((size, grid[0] * t, grid[1] * s, grid[2] * s, 3), np.float32)
  for rows, columns in tiles(grid[1:], tile, vae.halo[1]):
    seen = latents[:, :, rows.seen, columns.seen]
    part = functools.partial(_decode_part, vae, params, std)
    for at, piece in in_time(part, seen, 1, grid[0], latents_at_once):
      made[:, scaled(at, t), scaled(rows.own, s), scaled(columns.own, s)] = piece[
          :, :, scaled(rows.kept, s), scaled(columns.kept, s)]
  return made


def in_time(part, given, stride, length, at_once):
  """Runs `part(past, piece)` -> (made, past) over all of `given`, `stride` of its instants to each
  of `length` latents; yields (which latents, what was made of them)."""
  past = None
  for first in range(0, length, at_once):
    at = slice(first, min(first + at_once, length))
    made, past = part(past, given[:, scaled(at, stride)])
    yield at, np.asarray(made)


class Span:
  """Of one side of a tile, in latents: `own` of the whole, `seen` of the whole, and where in what
  is seen its own are, `kept`."""

  def __init__(self, first, last, length, size, halo):
    start = min(max(first - halo, 0), size - length)
    self.own, self.seen = slice(first, last), slice(start, start + length)
    self.kept = slice(first - start, last - start)


def tiles(grid, tile, halo):
  """Yields (rows, columns), a Span each, that together own a grid (height, width) of latents once.
  All see as much, so that one program serves them."""
  sides = []
  for size, own in zip(grid, tile or grid, strict=True):
    own = min(own, size)
    length = min(own + 2 * halo, size)
    sides.append([Span(first, min(first + own, size), length, size, halo)
                  for first in range(0, size, own)])
  return [(rows, columns) for rows in sides[0] for columns in sides[1]]


def scaled(at, stride):
  """A slice of latents as one of pixels."""
  return slice(at.start * stride, at.stop * stride)
