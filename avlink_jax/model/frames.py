"""Arrays (B, T, …) with time on axis 1: means over real frames, and a random stretch of time."""

import jax
import jax.numpy as jnp


def masked_mean(x, mask, of=None):
  """Mean of x (B, T, …) over the frames where mask (B, T) is True; 0 where none is.

  Where x is a part of a batch, `of` is the mask of all of it: the result is the part's summand of
  the batch's mean.
  """
  weight = mask.reshape(mask.shape + (1,) * (x.ndim - 2)).astype(x.dtype)
  real = jnp.sum(mask if of is None else of, dtype=x.dtype)
  return jnp.sum(x * weight) / (jnp.maximum(real, 1) * x[0, 0].size)


def masked_mse(x, y, mask, of=None):
  """`masked_mean` of (x − y)²."""
  return masked_mean((x - y) ** 2, mask, of)


def random_stretch(key, x, frames):
  """`frames` neighbouring frames of x (B, T, …), the same ones in the whole batch: (B, frames, …).

  With `frames` 0, or T and more, x itself. One key draws the same frames of every array with T.
  """
  if not 0 < frames < x.shape[1]:
    return x
  start = jax.random.randint(key, (), 0, x.shape[1] - frames + 1)
  return jax.lax.dynamic_slice_in_dim(x, start, frames, axis=1)
