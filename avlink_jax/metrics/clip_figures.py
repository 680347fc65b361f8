"""Figures that each clip has: of two things that belong to it, and of one of them and others'."""

import numpy as np


def paired(between, clips: int, shifts) -> tuple:
  """(own, control): lists of a float a clip, None where it has none.

  Args:
    between: (k, j) -> how the one thing of clip k goes with the other of clip j, None where one of
      them is missing.
    clips: how many there are.
    shifts: by how many places the others are turned for the control, which is a mean over them.
  """
  own, control = [], []
  for k in range(clips):
    own.append(between(k, k))
    others = [between(k, (k + shift) % clips) for shift in shifts]
    others = [value for value in others if value is not None]
    control.append(float(np.mean(others)) if others else None)
  return own, control


def cosine(one, other):
  """Of the angle between two (D,); None where one of them is None."""
  if one is None or other is None:
    return None
  one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
  length = np.linalg.norm(one) * np.linalg.norm(other)
  return float(one @ other / length) if length else 0.0
