"""Shot detection, and the windows of a clip that lie within one shot.

A cut is where the colour histograms of two neighbouring frames differ from those of the two before
by more than a threshold, each from each (after a flash, the old colours return). Movement changes
where colours are more than how many there are. Slow fades are not detected.
"""

import math

import numpy as np

# Share of pixels that change their colour. In 23 real clips neighbouring frames of a shot differ
# by less than 0.2, but for one clip's; those of two different clips by more than 0.25 in 94 % of
# pairs.
THRESHOLD = 0.25
PIXELS = 576  # sampled from each frame, about
LEVELS = 4  # boxes along each of red, green, blue


def histograms(frames):
  """Colour histograms: uint8 (N, H, W, 3) -> float32 (N, LEVELS³), shares of pixels.

  A pixel between two boxes counts for both, so that a little noise changes little. Large frames
  are subsampled.
  """
  count, boxes = len(frames), LEVELS ** 3
  every = max(1, round(math.sqrt(frames[0, ..., 0].size / PIXELS)))
  frames = frames[:, ::every, ::every]
  pixels = frames.reshape(count, -1, 3).astype(np.float32) * ((LEVELS - 1) / 255)
  low = np.minimum(pixels.astype(np.int32), LEVELS - 2)
  part = pixels - low
  total = np.zeros(count * boxes, np.float32)
  first = np.arange(count)[:, None] * boxes
  for corner in np.ndindex(2, 2, 2):
    box = ((low + corner) * (LEVELS ** 2, LEVELS, 1)).sum(-1) + first
    weight = np.where(corner, part, 1 - part).prod(-1)
    total += np.bincount(box.ravel(), weight.ravel(), len(total)).astype(np.float32)
  return total.reshape(count, boxes) / pixels.shape[1]


def distance(a, b):
  """Total variation between histograms (..., boxes): 0 equal, 1 no colour in common."""
  return 0.5 * np.abs(a - b).sum(-1)


def cuts(frames, threshold=THRESHOLD):
  """Indices n of `frames`, uint8 (N, H, W, 3) at an even rate, at which a new shot begins."""
  if len(frames) < 2 or not threshold:
    return []
  histogram = histograms(frames)
  last = len(frames) - 1
  change = lambda a, b: distance(histogram[max(0, a)], histogram[min(last, b)])  # noqa: E731
  return [n for n in range(1, len(frames))
          if min(change(a, b) for a in (n - 2, n - 1) for b in (n, n + 1)) > threshold]


def windows(duration, cuts, fps, seconds, shortest):
  """Windows of a clip, none across a cut: [(start, length)], and seconds that are in none.

  Args:
    duration: seconds of the clip.
    cuts: seconds at which shots begin, in order.
    fps: windows begin on this grid.
    seconds: length of a window; the last one of a shot may be shorter,
    shortest: but not shorter than this (seconds).
  """
  inside, left = [], 0.0
  step = math.ceil(round(seconds * fps, 6)) / fps  # to the first frame after a window
  for begin, end in zip([0.0, *cuts], [*cuts, duration], strict=True):
    start = begin
    while end - start >= seconds:
      inside.append((start, seconds))
      start += step
    rest = end - start
    if rest >= shortest:
      inside.append((start, rest))
    elif rest > 1 / fps:
      left += rest
  return inside, left
