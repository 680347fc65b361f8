"""Whether frames of `impacts` show a body that could make the sounds, by a small detector.

The detector looks at three neighbouring frames and says for each cell of 4×4 pixels whether the
middle of a moving body lies in it. It has learned that a body that is a blot, has its parts mixed
up, or lies under tiles, is none (body_training.py, which made the bundled file). So a generated
clip is judged by how often something has a body's shape, and how surely.

Convolutions here are NumPy's, as evaluation needs no JAX.
"""

import functools
import pathlib

import numpy as np

HEIGHT, WIDTH, FPS, CELL = 36, 64, 6.0, 4  # pixels, frames a second, pixels
AHEAD, BEHIND = 1, 1  # neighbouring frames that it sees
LAYERS = ((24, 1), (32, 2), (48, 2), (48, 1), (48, 1))  # channels and stride of 3×3 convolutions
GROUPS, EPSILON = 8, 1e-6  # of the normalisation after each
FOUND = 0.5  # probability from which on a body counts as found
FILE = pathlib.Path(__file__).parents[1] / 'assets' / 'body_detector.npz'


@functools.cache
def detector() -> dict:
  """The bundled detector's arrays, {'Conv_0/kernel': …}, float32."""
  with np.load(FILE, allow_pickle=False) as saved:
    return {name: saved[name].astype(np.float32) for name in saved.files}


def scores(frames, of: dict | None = None) -> tuple[float, float]:
  """Share of a clip's frames in which a body is found, and the mean of the highest probabilities.

  frames: uint8 (N, 36, 64, 3), 6 a second; of: arrays of another detector.
  """
  surest = probabilities(frames, of).max((1, 2))
  return float(np.mean(surest >= FOUND)), float(np.mean(surest))


def probabilities(frames, of: dict | None = None) -> np.ndarray:
  """Probability float32 (N, 9, 16) that a body's middle lies in a cell, for each frame of a clip
  uint8 (N, 36, 64, 3)."""
  of = of or detector()
  x = seen(frames)
  for k, (_, stride) in enumerate(LAYERS):
    x = np.maximum(_normalised(_convolved(x, of[f'Conv_{k}/kernel'], stride) + of[f'Conv_{k}/bias'],
                               of[f'GroupNorm_{k}/scale'], of[f'GroupNorm_{k}/bias']), 0)
  last = f'Conv_{len(LAYERS)}'
  logits = (x @ of[f'{last}/kernel'][0, 0] + of[f'{last}/bias'])[..., 0]
  return 0.5 * (1 + np.tanh(logits / 2))  # the sigmoid, without overflow


def seen(frames) -> np.ndarray:
  """What the detector sees (N, 36, 64, 9) of each frame of a clip, uint8 (N, 36, 64, 3)."""
  padded = np.concatenate([frames[:1]] * BEHIND + [frames] + [frames[-1:]] * AHEAD)
  return side_by_side(np.stack([padded[k:k + len(frames)] for k in range(AHEAD + BEHIND + 1)], 1))


def side_by_side(moments) -> np.ndarray:
  """Frames (N, T, H, W, 3) in 0..255 of T moments each -> (N, H, W, 3T) in [−1, 1]."""
  count, _, height, width, _ = moments.shape
  return np.moveaxis(np.float32(moments), 1, 3).reshape(count, height, width, -1) / 127.5 - 1


def _convolved(x, kernel, stride):
  """Convolution 3×3 of x (N, H, W, C) with a kernel (3, 3, C, D): (N, H / stride, W / stride, D).
  As in Flax, an even side is padded at its end alone where the stride is 2."""
  before = 1 if stride == 1 else 0
  x = np.pad(x, ((0, 0), (before, 1), (before, 1), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
  return np.tensordot(windows[:, ::stride, ::stride], kernel.transpose(2, 0, 1, 3), 3)


def _normalised(x, scale, bias):
  """Group normalisation of x (N, H, W, C) over places and neighbouring channels."""
  y = x.reshape(*x.shape[:3], GROUPS, -1)
  mean, variance = (f(y, axis=(1, 2, 4), keepdims=True) for f in (np.mean, np.var))
  return ((y - mean) / np.sqrt(variance + EPSILON)).reshape(x.shape) * scale + bias
