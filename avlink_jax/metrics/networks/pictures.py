"""Frames as the networks that look at them take them: squeezed to a square, in [-1, 1].

Bilinear without smoothing, edges half a pixel out, the whole picture and not its middle: as the
public codes of FID (`pytorch-fid`) and FVD (StyleGAN-V's) do it.
"""

import cv2
import numpy as np


def squeezed(frames, size):
  """uint8 (N, H, W, 3) -> float32 (N, size, size, 3) in [-1, 1]."""
  return np.stack([
      cv2.resize(frame.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
      for frame in frames]) / np.float32(127.5) - 1
