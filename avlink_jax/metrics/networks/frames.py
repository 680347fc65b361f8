"""Frames as input of the networks: resized to a square, in [-1, 1].

Bilinear without smoothing, edges half a pixel out, without cropping: as in the public code of FID
(`pytorch-fid`) and FVD (StyleGAN-V's).
"""

import cv2
import numpy as np


def resize(frames, size):
  """Resizes uint8 (N, H, W, 3) to float32 (N, size, size, 3) in [-1, 1]."""
  return np.stack([
      cv2.resize(frame.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
      for frame in frames]) / np.float32(127.5) - 1
