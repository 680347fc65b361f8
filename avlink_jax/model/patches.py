"""Patches: data cut into tokens, time first, and put together again."""

import math

import jax.numpy as jnp
import numpy as np
from einops import rearrange


def grid(shape, patch):
  """Tokens along each axis for data of `shape` (T, [H, W]); a patch that is cut off counts."""
  return tuple(-(-n // p) for n, p in zip(shape, patch, strict=True))


def positions(shape, patch):
  """Place of each token on the grid: float64 (N, axes)."""
  axes = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in grid(shape, patch)), indexing='ij')
  return np.stack([a.ravel() for a in axes], axis=-1)


def patchify(x, patch):
  """(B, T, [H, W,] C) -> (B, N, numbers of a patch), zeros where a patch is cut off."""
  shape = x.shape[1:-1]
  pad = [(0, g * p - n) for g, p, n in zip(grid(shape, patch), patch, shape, strict=True)]
  x = jnp.pad(x, [(0, 0), *pad, (0, 0)])
  if len(patch) == 1:
    return rearrange(x, 'b (t p) c -> b t (p c)', p=patch[0])
  return rearrange(x, 'b (t pt) (h ph) (w pw) c -> b (t h w) (pt ph pw c)',
                   **dict(zip(('pt', 'ph', 'pw'), patch, strict=True)))


def unpatchify(tokens, patch, shape):
  """(B, N, numbers of a patch) -> (B, *shape, C) for data of `shape` (T, [H, W])."""
  if len(patch) == 1:
    return rearrange(tokens, 'b t (p c) -> b (t p) c', p=patch[0])[:, :shape[0]]
  (t, h, w), (pt, ph, pw) = grid(shape, patch), patch
  x = rearrange(tokens, 'b (t h w) (pt ph pw c) -> b (t pt) (h ph) (w pw) c',
                t=t, h=h, w=w, pt=pt, ph=ph, pw=pw)
  return x[:, :shape[0], :shape[1], :shape[2]]


def token_mask(mask, patch, shape):
  """Mask (B, T) of frames -> (B, N) of tokens: real where one of its frames is."""
  moments, *places = grid(shape, patch)
  mask = jnp.pad(mask, [(0, 0), (0, moments * patch[0] - mask.shape[1])])
  mask = rearrange(mask, 'b (n p) -> b n p', p=patch[0]).any(-1)
  return jnp.repeat(mask, math.prod(places), axis=1)


def token_seconds(seconds, shape, patch):
  """The second of each token's first data frame: float64 (N,), for data of `shape` (T, [H, W]);
  `seconds`: count -> float64 (count,), when each data frame is."""
  return np.repeat(seconds(shape[0])[::patch[0]], math.prod(grid(shape, patch)[1:]))
