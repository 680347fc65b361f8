"""Frames at a smaller size: each pixel the mean of its box, the same of NumPy and of JAX."""

import einops
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avlink_jax.data.boxes import box_mean, shrink

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 24, 32, 3), np.uint8)


def test_a_pixel_is_the_mean_of_its_box():
  small = box_mean(FRAMES, 3, 8)
  assert small.dtype == np.float32 and small.shape == (5, 3, 8, 3)
  for row, column in ((0, 0), (1, 5), (2, 7)):
    box = FRAMES[:, 8 * row:8 * row + 8, 4 * column:4 * column + 4]
    np.testing.assert_array_equal(small[:, row, column], box.mean((1, 2), dtype=np.float64).astype(
        np.float32))  # sums of whole numbers this small are exact


def test_numpy_and_jax_agree_to_the_bit():
  made = jax.jit(box_mean, static_argnums=(1, 2))(jnp.asarray(FRAMES), 3, 4)
  np.testing.assert_array_equal(made, box_mean(FRAMES, 3, 4))
  np.testing.assert_array_equal(made[None], box_mean(FRAMES[None], 3, 4))


def test_shrunk_frames_are_rounded_to_the_nearest():
  np.testing.assert_array_equal(shrink(FRAMES, 3, 4), np.floor(box_mean(FRAMES, 3, 4) + 0.5))
  assert shrink(FRAMES, 24, 32) is FRAMES
  assert shrink(FRAMES[:0], 3, 4).shape == (0, 3, 4, 3)


def test_boxes_that_are_not_whole_are_refused():
  with pytest.raises(einops.EinopsError):
    box_mean(FRAMES, 7, 8)
