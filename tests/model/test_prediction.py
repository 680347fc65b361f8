"""A tower that predicts the data from noise, and the noise from data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from micro import build, micro_config, plain_jit, random_params

from avlink_jax.errors import UserError
from avlink_jax.model.estimate import precondition
from avlink_jax.model.prediction import Preconditioned
from avlink_jax.model.tower import Input

CHANGES = {'towers.video.hidden': 0, 'towers.video.detail': 0.0,
           'towers.video.prediction': 'preconditioned'}


@given(t=st.floats(0, 1), x0=st.floats(-3, 3), x1=st.floats(-3, 3))
def test_the_rotated_target_gives_the_velocity(t, x0, x1):
  s = t**2 + (1 - t) ** 2
  f = ((1 - t) * x1 - t * x0) / s**0.5
  v = precondition(jnp.full((1, 1), t * x1 + (1 - t) * x0), jnp.full((1, 1), f), jnp.full(1, t))
  np.testing.assert_allclose(v, x1 - x0, atol=1e-5)


@pytest.mark.parametrize('t', [0.0, 0.2, 0.5, 0.9, 1.0])
def test_a_network_that_says_nothing_gives_the_linear_estimate(t):
  """Of data and noise of variance 1: the residual of v given X_t has variance 1 / s."""
  x0, x1 = np.random.default_rng(0).standard_normal((2, 1, 100_000)).astype(np.float32)
  x = t * x1 + (1 - t) * x0
  v = precondition(x, np.zeros_like(x), np.full(1, t, np.float32))
  residual = np.asarray(x1 - x0 - v)
  assert abs(np.mean(residual * x)) < 0.02
  assert np.mean(residual**2) == pytest.approx(1 / (t**2 + (1 - t) ** 2), rel=0.02)


def test_a_tower_is_wrapped():
  tower = build(micro_config('t2v', **CHANGES))[0].towers['video']
  assert isinstance(tower, Preconditioned)
  params, rng = random_params(tower), np.random.default_rng(0)
  given = Input(x=rng.standard_normal((2, 6, 8, 16, 3), np.float32),
                t=np.array([0.1, 0.9], np.float32),
                text=rng.standard_normal((2, 4, 16), np.float32), text_mask=np.ones((2, 4), bool),
                mask=np.ones((2, 6), bool))
  f = plain_jit(tower.tower.velocity)(params, given)
  np.testing.assert_allclose(plain_jit(tower.velocity)(params, given),
                             precondition(given.x, f, given.t), atol=1e-5)
  assert jax.tree.structure(params) == jax.tree.structure(random_params(tower.tower))


def test_detail_is_told():
  with pytest.raises(UserError, match='towers.video.detail is for towers that predict data'):
    build(micro_config('t2v', **(CHANGES | {'towers.video.detail': 0.1})))
