"""Gradients of frames: closed forms, and what tiles and blur do to them."""

import cv2
import numpy as np
import pytest

from avlink_jax.data.impacts import Impacts
from avlink_jax.metrics import body_training, pictures


def test_a_ramp_has_its_slope_everywhere():
  ramp = np.broadcast_to((3 * np.arange(16))[:, None], (2, 12, 16, 3)).astype(np.uint8)
  down, across = pictures.gradients(ramp)
  assert not down.any() and (across == 3).all()
  # One border of 16 pixels without a slope, one of 12 with it; inside, 160 without and 168 with.
  assert pictures.border_ratio(ramp, (6, 8)) == pytest.approx((12 / 28) / (168 / 328))


def test_tiles_of_one_colour_have_all_their_changes_at_the_borders():
  tiles = np.kron(np.arange(6).reshape(2, 3) * 20, np.ones((6, 8))).astype(np.uint8)
  frames = np.repeat(tiles[None, ..., None], 3, axis=-1)
  assert pictures.border_ratio(frames, (6, 8)) is None  # nothing changes elsewhere
  noisy = frames + np.random.default_rng(0).integers(0, 3, frames.shape, np.uint8)
  assert pictures.border_ratio(noisy, (6, 8)) > 10
  assert pictures.border_ratio(noisy, (5, 7)) < 3  # another grid


def test_noise_has_no_grid():
  frames = np.random.default_rng(0).integers(0, 256, (4, 36, 64, 3), np.uint8)
  assert pictures.border_ratio(frames, (12, 16)) == pytest.approx(1, abs=0.02)


def test_a_frame_without_borders_has_no_ratio():
  assert pictures.border_ratio(np.zeros((1, 8, 8, 3), np.uint8), (8, 8)) is None


def test_blur_has_less_and_tiles_have_borders():
  frames, rng = Impacts('test', size=1).load(0).frames, np.random.default_rng(0)
  blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in frames])
  assert pictures.mean_gradient(blurred) < 0.7 * pictures.mean_gradient(frames)
  tiled = body_training.tiled(frames, (12, 16), 0.5, rng)
  assert pictures.border_ratio(tiled, (12, 16)) > 1.5 * pictures.border_ratio(frames, (12, 16))
