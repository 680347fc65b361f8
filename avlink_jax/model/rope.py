"""Rotary position embedding: 1-D in the audio tower, 3-D in the video tower, and on one clock
for both in the Fusion Block (AV-Link Sec. 3.3, Eq. 4).

Positions are plain numbers (float64, on the host): a token's angle depends on nothing but its
position. In the Fusion Block that is its second times η_v (fusion.Fusion.angles): n for video
frame n, n·η_v/η_a for audio token n, so that both turn by the same angle at the same second.
"""

import jax.numpy as jnp
import numpy as np


def split_pairs(head_dim, axes, share=4):
  """How many of a head's head_dim/2 rotating pairs each axis gets: time first, with what is
  left over (timing is what these models are for); the others one `share`th of the pairs each."""
  pairs = head_dim // 2
  others = [pairs // share] * (axes - 1)
  return [pairs - sum(others), *others]


def angles(positions, head_dim, base=10_000.0, share=4):
  """Angles τ·θ_i, θ_i = base^(−i/pairs) (Eq. 4), the pairs split among the axes of `positions`.

  Args:
    positions: (T, axes), in whatever unit the clock has.
    head_dim: even number of channels of a head.
    share: how the pairs are split, see `split_pairs`.
  Returns:
    float32 (T, head_dim/2).
  """
  positions = np.asarray(positions, np.float64)
  parts = []
  for axis, pairs in enumerate(split_pairs(head_dim, positions.shape[1], share)):
    theta = base ** (-np.arange(pairs) / pairs)
    parts.append(positions[:, axis, None] * theta)
  return np.concatenate(parts, axis=1).astype(np.float32)


def rotate(x, angle):
  """Turns channel pairs (i, i + D/2) of x (B, H, T, D) by angle (T, D/2). Same shape and dtype."""
  cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
  x1, x2 = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)
