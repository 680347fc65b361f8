"""What the perceptual distance is made of, with random weights."""

import functools

import numpy as np

from avlink_jax.codecs.perceptual import TAPS, VGG


@functools.cache
def tensors():
  """Weights of VGG16 and of LPIPS's heads under their torch names, random."""
  rng, found, before = np.random.default_rng(0), {}, 3
  for index, channels in VGG:
    scale = (2 / (9 * before)) ** 0.5
    found[f'features.{index}.weight'] = scale * rng.standard_normal(
        (channels, before, 3, 3), np.float32)
    found[f'features.{index}.bias'] = 0.1 * rng.standard_normal(channels, np.float32)
    before = channels
  for k, tap in enumerate(TAPS):
    found[f'lin{k}.model.1.weight'] = rng.random((1, dict(VGG)[tap], 1, 1), np.float32)
  return found
