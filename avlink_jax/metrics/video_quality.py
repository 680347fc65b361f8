"""Video quality against a reference, pixel by pixel: PSNR, SSIM, flicker.

All take uint8 RGB, the same frames of both, of one clip; means over clips are the caller's.
"""

import cv2
import numpy as np

SIGMA, REACH = 1.5, 5  # pixels: the Gaussian window of Wang et al. 2004, 11 × 11
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
LUMA = np.array((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601


def psnr(reference, generated) -> float:
  """Peak signal-to-noise ratio, dB, of the mean squared error over all pixels, colours and frames.

      10 log10(255² / mean (a - b)²)

  Args:
    reference, generated: uint8 (N, H, W, 3).

  Returns:
    infinity where they are equal.
  """
  _check(reference, generated)
  # A frame at a time: 5 s of 512×288 are 55 MB as uint8, and four times that as float32.
  error = np.mean([np.mean((a.astype(np.float32) - b) ** 2, dtype=np.float64)
                   for a, b in zip(reference, generated, strict=True)])
  return float(10 * np.log10(255 ** 2 / error)) if error else float('inf')


def ssim(reference, generated) -> float:
  """Structural similarity of the luma (Wang et al. 2004, eq. 13), the mean over pixels and frames.

  Means, variances and covariance are of Gaussian windows of 11 × 11 pixels that lie within the
  frame.

  Args:
    reference, generated: uint8 (N, H, W, 3), at least 11 pixels high and wide.

  Returns:
    at most 1, where they are equal.
  """
  _check(reference, generated)
  if min(reference.shape[1:3]) < 2 * REACH + 1:
    raise ValueError(f'pictures of {reference.shape[1:3]} are smaller than the window of SSIM')
  return float(np.mean([_ssim(a, b) for a, b in zip(reference, generated, strict=True)]))


def flicker(reference, generated) -> float:
  """Mean absolute difference of the temporal gradients, of 255: changes from frame to frame in one
  video and not in the other.

      mean |(a[n + 1] - a[n]) - (b[n + 1] - b[n])|

  Args:
    reference, generated: uint8 (N, H, W, 3), N at least 2.
  """
  _check(reference, generated)
  if len(reference) < 2:
    raise ValueError('a single frame has no temporal gradient')
  gradients = zip(reference, reference[1:], generated, generated[1:], strict=False)
  return float(np.mean([np.mean(np.abs((a1.astype(np.int16) - a0) - (b1.astype(np.int16) - b0)))
                        for a0, a1, b0, b1 in gradients]))


def _ssim(reference, generated):
  """SSIM of one frame (H, W, 3)."""
  a, b = (cv2.transform(frame.astype(np.float32), LUMA[None]).astype(np.float64)
          for frame in (reference, generated))
  mean_a, mean_b, square_a, square_b, product = map(_mean, (a, b, a * a, b * b, a * b))
  variances = square_a - mean_a ** 2 + square_b - mean_b ** 2
  covariance = product - mean_a * mean_b
  return np.mean((2 * mean_a * mean_b + C1) * (2 * covariance + C2)
                 / ((mean_a ** 2 + mean_b ** 2 + C1) * (variances + C2)))


def _mean(plane):
  """Weighted mean in each window that lies within the frame."""
  inner = slice(REACH, -REACH)
  return cv2.GaussianBlur(plane, (2 * REACH + 1,) * 2, SIGMA)[inner, inner]


def _check(reference, generated):
  if reference.shape != generated.shape or {reference.dtype, generated.dtype} != {
      np.dtype(np.uint8)}:
    raise ValueError(f'{reference.dtype} {reference.shape} and {generated.dtype} '
                     f'{generated.shape}: the same frames are compared, as uint8')
