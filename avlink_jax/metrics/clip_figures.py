"""Figures of single clips: of its own pair of items, and as control of exchanged pairs."""

import numpy as np


def paired(between, clips: int, shifts) -> tuple:
  """Figures (own, control): lists of a float a clip, None where it has none.

  Args:
    between: (k, j) -> figure of clip k's first item and clip j's second, None where one is missing.
    clips: their number.
    shifts: rotations of the second items for the control, which is the mean over them.
  """
  own, control = [], []
  for k in range(clips):
    own.append(between(k, k))
    others = [between(k, (k + shift) % clips) for shift in shifts]
    others = [value for value in others if value is not None]
    control.append(float(np.mean(others)) if others else None)
  return own, control


def cosine(one, other):
  """Cosine of the angle between two (D,); None where one of them is None."""
  if one is None or other is None:
    return None
  one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
  length = np.linalg.norm(one) * np.linalg.norm(other)
  return float(one @ other / length) if length else 0.0
