"""Means over real frames, of a batch or its parts, and a stretch of time drawn at random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avlink_jax.model.frames import masked_mean, masked_mse, random_stretch


@pytest.mark.parametrize('shape', [(), (3,), (2, 3, 4)])
def test_the_mean_is_over_what_is_real(shape):
  rng = np.random.default_rng(0)
  x, y = rng.standard_normal((2, 4, 5, *shape, 3))
  mask = rng.random((4, 5)) < 0.5
  assert masked_mean(jnp.asarray(x), mask) == pytest.approx(x[mask].mean(), rel=1e-4)
  assert masked_mse(jnp.asarray(x), y, mask) == pytest.approx(
      ((x - y)[mask] ** 2).mean(), rel=1e-5)


def test_one_number_a_frame_has_a_mean_too():
  assert masked_mean(jnp.asarray([[1.0, 3.0], [5.0, 100.0]]), jnp.asarray(
      [[True, True], [True, False]])) == 3


def test_where_nothing_is_real_the_mean_is_0():
  assert masked_mean(jnp.full((2, 3, 4), 7.0), jnp.zeros((2, 3), bool)) == 0


def test_means_of_parts_add_up_to_that_of_the_batch():
  rng = np.random.default_rng(1)
  x, mask = jnp.asarray(rng.random((4, 5, 3))), rng.random((4, 5)) < 0.5
  parts = [masked_mean(x[rows], mask[rows], mask) for rows in (slice(0, 1), slice(1, 4))]
  assert sum(parts) == pytest.approx(float(masked_mean(x, mask)), rel=1e-6)


def test_a_stretch_is_neighbouring_frames_the_same_in_all_arrays():
  x = jnp.broadcast_to(jnp.arange(9)[:, None], (2, 9, 3))
  starts = set()
  for seed in range(40):
    stretch, mask = (random_stretch(jax.random.key(seed), array, 4) for array in (x, x[..., 0]))
    np.testing.assert_array_equal(stretch[..., 0], mask)
    np.testing.assert_array_equal(jnp.diff(mask, axis=1), 1)
    starts.add(int(mask[0, 0]))
  assert starts == set(range(6))  # each, the first and the last included


@pytest.mark.parametrize('frames', [0, 9, 12])
def test_no_frames_or_all_of_them_are_the_array_itself(frames):
  x = jnp.ones((2, 9))
  assert random_stretch(jax.random.key(0), x, frames) is x
