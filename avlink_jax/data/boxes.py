"""Frames at a smaller size: each pixel is the mean of a whole box of the larger frame's."""

import numpy as np
from einops import reduce


def box_mean(frames, height: int, width: int):
  """Mean over boxes of pixels, (…, H, W, C) -> float32 (…, height, width, C), NumPy or JAX.

  Raises einops.EinopsError where the boxes are not whole: height must divide H, and width W.
  """
  mean = lambda x, axes: x.mean(axes, dtype=np.float32)  # noqa: E731
  return reduce(frames, '... (h p) (w q) c -> ... h w c', mean, h=height, w=width)


def shrink(frames, height: int, width: int):
  """Shrinks uint8 (…, H, W, C) to uint8 (…, height, width, C): `box_mean`, rounded. Frames of that
  size are returned as they are."""
  if frames.shape[-3:-1] == (height, width):
    return frames
  return (box_mean(frames, height, width) + 0.5).astype(np.uint8)
