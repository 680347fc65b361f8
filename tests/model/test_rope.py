"""Rotary embedding: one clock for both modalities, and the distance alone decides."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avlink_jax.model import rope
from avlink_jax.model.dit import DiT
from avlink_jax.model.fusion import Fusion
from avlink_jax.model.tower import EvenSeconds

HEAD = 16


def turned(x, angle):
  """x (N, D) turned by angle (N, D/2)."""
  return np.asarray(rope.rotate(jnp.asarray(x, jnp.float32)[None, None], jnp.asarray(angle)))[0, 0]


@given(a=st.integers(1, 120), v=st.integers(1, 60), denominator=st.integers(1, 7),
       k=st.integers(0, 8), patch=st.sampled_from([1, 2, 3]))
@settings(max_examples=60)
def test_an_audio_and_a_video_token_at_the_same_second_turn_alike(a, v, denominator, k, patch):
  """η_a = a/q and η_v = v/q meet every q seconds: at audio token k·a and video token k·v."""
  audio = DiT(channels=1, patch=(patch,), seconds=EvenSeconds(patch * a / denominator))
  video = DiT(channels=1, patch=(1, 1, 1), seconds=EvenSeconds(v / denominator))
  fusion = Fusion(width=HEAD, heads=1, clock_rate=v / denominator)
  angles = [fusion.angles(tower.token_seconds(shape)[index:index + 1]) for tower, shape, index in (
      (audio, (patch * (k * a + 1),), k * a),
      (video, (k * v + 1, 1, 1), k * v))]
  np.testing.assert_allclose(*angles, rtol=1e-6)
  x = np.random.default_rng(0).standard_normal((1, HEAD))
  np.testing.assert_allclose(turned(x, angles[0]), turned(x, angles[1]), atol=1e-3)


@given(rate=st.floats(1, 200), clock=st.floats(1, 60), n=st.integers(0, 2000))
@settings(max_examples=30)
def test_the_clock_is_the_papers_tau(rate, clock, n):
  """τ = n·η_v/η_a for audio token n; the first pair turns by τ itself (θ_0 = 1)."""
  tower = DiT(channels=1, patch=(1,), seconds=EvenSeconds(rate))
  angle = Fusion(width=HEAD, heads=1, clock_rate=clock).angles(tower.token_seconds((n + 1,)))[n]
  theta = 10_000.0 ** (-np.arange(HEAD // 2) / (HEAD // 2))
  np.testing.assert_allclose(angle, n * clock / rate * theta, rtol=1e-5)


def test_all_tokens_of_a_video_frame_share_its_second():
  video = DiT(channels=3, patch=(1, 2, 4), seconds=EvenSeconds(6.0))
  seconds = video.token_seconds((5, 8, 8)).reshape(5, 4 * 2)
  np.testing.assert_allclose(seconds, np.repeat(np.arange(5)[:, None] / 6, 8, axis=1))


@given(st.integers(0, 2**32 - 1), st.lists(st.floats(0, 60), min_size=3, max_size=3),
       st.lists(st.floats(-30, 30), min_size=3, max_size=3), st.sampled_from([1, 3]))
@settings(max_examples=40)
def test_a_product_of_query_and_key_depends_on_their_distance_alone(seed, place, shift, axes):
  q, k = np.random.default_rng(seed).standard_normal((2, 1, HEAD))
  place, shift = np.array([place[:axes]]), np.array([shift[:axes]])
  other = place[:, ::-1] / 2

  def product(moved):
    return np.vdot(turned(q, rope.angles(place + moved, HEAD)),
                   turned(k, rope.angles(other + moved, HEAD)))

  assert product(shift) == pytest.approx(product(0 * shift), abs=1e-3)


def test_another_distance_gives_another_product():
  q = np.random.default_rng(0).standard_normal((1, HEAD))
  at = lambda n: turned(q, rope.angles(np.array([[float(n)]]), HEAD))  # noqa: E731
  products = [np.vdot(at(0), at(n)) for n in range(12)]
  assert np.argmax(products) == 0
  assert np.abs(np.subtract.outer(products, products) + np.eye(12)).min() > 1e-3


@given(st.integers(0, 2**32 - 1), st.floats(-1e3, 1e3))
@settings(max_examples=20)
def test_turning_keeps_the_norm_of_every_pair(seed, position):
  x = np.random.default_rng(seed).standard_normal((1, HEAD)).astype(np.float32)
  y = turned(x, rope.angles(np.array([[position]]), HEAD))
  np.testing.assert_allclose(*(np.hypot(*np.split(z, 2, axis=-1)) for z in (x, y)), rtol=1e-4)


@given(st.integers(1, 64).map(lambda n: 2 * n), st.integers(1, 3))
def test_the_axes_share_all_pairs_and_time_gets_most(head_dim, axes):
  pairs = rope.split_pairs(head_dim, axes)
  assert len(pairs) == axes and sum(pairs) == head_dim // 2
  assert all(pairs[0] >= p >= 0 for p in pairs)


def test_each_axis_turns_its_own_pairs_and_no_others():
  pairs = rope.split_pairs(64, 3)
  assert pairs == [16, 8, 8]
  ends = np.cumsum([0, *pairs])
  still = rope.angles(np.zeros((1, 3)), 64)
  assert not still.any()
  for axis in range(3):
    angle = rope.angles(np.eye(3)[axis:axis + 1], 64)[0]
    own = np.zeros(32, bool)
    own[ends[axis]:ends[axis + 1]] = True
    np.testing.assert_array_equal(angle != 0, own)
    theta = 10_000.0 ** (-np.arange(pairs[axis]) / pairs[axis])
    np.testing.assert_allclose(angle[own], theta, rtol=1e-6)


def test_angles_of_long_clips_are_exact_to_float32():
  """Positions stay float64 until the angle is whole: ten minutes at 25 a second."""
  position = 15_000 * (6 / 25)
  assert rope.angles(np.array([[position]]), 2)[0, 0] == np.float32(position)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_turning_keeps_the_dtype(dtype):
  x = jnp.ones((1, 2, 3, HEAD), dtype)
  assert rope.rotate(x, jnp.ones((3, HEAD // 2))).dtype == dtype
