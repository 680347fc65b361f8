"""A tower that predicts the data, with detail past it whose deviation is learned."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from micro import build, micro_config, plain_jit, random_like

from avlink_jax.errors import UserError
from avlink_jax.model.estimate import velocity_from_data
from avlink_jax.model.prediction import DataPrediction, LearnedDetail
from avlink_jax.model.tower import Input

CHANGES = {'towers.video.hidden': 0, 'towers.video.detail': 0.25,
           'towers.video.detail_by_time': True}


@pytest.fixture(scope='module')
def learned():
  """(tower, its first parameters, an input)."""
  tower = build(micro_config('t2v', **CHANGES))[0].towers['video']
  params = random_like(jax.eval_shape(tower.init, jax.random.key(0)), 0)
  params['detail'] = jax.tree.map(np.zeros_like, params['detail'])
  rng = np.random.default_rng(0)
  given = Input(x=rng.standard_normal((3, 6, 8, 16, 3), np.float32),
                t=np.array([0.1, 0.5, 0.9], np.float32),
                text=rng.standard_normal((3, 4, 16), np.float32), text_mask=np.ones((3, 4), bool),
                mask=np.ones((3, 6), bool))
  return tower, params, given


def test_it_begins_with_the_same_deviation_everywhere(learned):
  tower, params, given = learned
  assert isinstance(tower, LearnedDetail) and tower.detail == 0.25
  plain = DataPrediction(tower.tower, tower.detail)
  np.testing.assert_allclose(plain_jit(tower.velocity)(params, given),
                             plain_jit(plain.velocity)(params, given), atol=1e-4)


def test_a_channel_without_deviation_takes_nothing_of_its_input(learned):
  """Then its velocity is that of the network's data alone; and one with much takes X_t as it is."""
  tower, params, given = learned
  bias = np.array([-20.0, 0.0, 20.0], np.float32)
  params = params | {'detail': params['detail'] | {'bias': bias}}
  v = plain_jit(tower.velocity)(params, given)
  alone = plain_jit(dataclasses.replace(tower, detail=1e-9).velocity)(params, given)
  np.testing.assert_allclose(v[..., 0], alone[..., 0], atol=1e-4)
  as_it_is = velocity_from_data(given.x, given.x / given.t[:, None, None, None, None], given.t)
  np.testing.assert_allclose(v[..., 2], as_it_is[..., 2], rtol=1e-3, atol=1e-3)


def test_deviations_are_learned(learned):
  tower, params, given = learned
  slopes = plain_jit(jax.grad(lambda p: jnp.mean(tower.velocity(p, given)**2)))(params)
  assert all(np.abs(slope).max() > 0 for slope in jax.tree.leaves(slopes['detail']))


@pytest.mark.parametrize('changes', [
    {'towers.video.detail': 0.0}, {'towers.video.hidden': 8},
    {'towers.video.prediction': 'velocity', 'towers.video.detail': 0.0}])
def test_what_has_no_such_detail_is_told(changes):
  with pytest.raises(UserError, match='video.detail_by_time is for towers that predict data'):
    build(micro_config('t2v', **(CHANGES | changes)))
