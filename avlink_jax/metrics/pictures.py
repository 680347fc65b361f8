"""Whether frames look as if put together from tiles, grainy or blurred: gradients of pixels.

All take uint8 RGB (N, H, W, 3); a clip without two pixels beside each other has no gradients.
"""

import numpy as np


def gradients(frames) -> tuple[np.ndarray, np.ndarray]:
  """Mean |difference| over the colours of pixels one above the other (N, H − 1, W), and side by
  side (N, H, W − 1)."""
  x = np.asarray(frames, np.float32)
  return np.abs(np.diff(x, axis=1)).mean(-1), np.abs(np.diff(x, axis=2)).mean(-1)


def mean_gradient(frames) -> float:
  """Mean |difference| of neighbouring pixels, of 255: grain has more, blur has less."""
  return float(np.mean([part.mean() for part in gradients(frames)]))


def border_ratio(frames, patch) -> float | None:
  """Mean |difference| across the borders of patches (rows, columns) over the mean elsewhere.

  About 1 in a filmed clip, where nothing happens on that grid; more where each token of a tower
  draws a tile of its own. None: there are no borders, or nothing changes elsewhere.
  """
  at, elsewhere = [], []
  for axis, (gradient, side) in enumerate(zip(gradients(frames), patch, strict=True), 1):
    border = np.arange(gradient.shape[axis]) % side == side - 1
    at.append(np.compress(border, gradient, axis).ravel())
    elsewhere.append(np.compress(~border, gradient, axis).ravel())
  across, inside = map(np.concatenate, (at, elsewhere))
  return float(across.mean() / inside.mean()) if len(across) and inside.any() else None
