"""The way past the tower, place by place: what it sees, and that it keeps the tower's promises."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from micro import micro_config, plain_jit, random_params

from avlink_jax import flow
from avlink_jax import models as model_builder
from avlink_jax.errors import UserError
from avlink_jax.model import local
from avlink_jax.model.dit import DiT, Input

PLAIN = DiT(channels=4, patch=(1, 2, 3), rate=6.0, width=16, depth=2, heads=2, mlp=24,
            text_width=12, guide=3, attention='reference')
TOWER = dataclasses.replace(PLAIN, local=20)
SHAPE = (5, 4, 6)


@functools.cache
def params_of(tower):
  return random_params(tower)


@functools.cache
def velocity(tower):
  return plain_jit(tower.velocity)


def input_of(shape=SHAPE, seed=0):
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
  return Input(normal(2, *shape, 4), np.float32([0.2, 0.8]), normal(2, 5, 12),
               np.ones((2, 5), bool), np.ones((2, shape[0]), bool),
               guide=normal(2, *shape, 3), guide_t=np.float32([0.9, 1.0]))


def test_every_place_sees_the_pixels_around_it_at_four_instants():
  guide = np.random.default_rng(0).standard_normal((1, *SHAPE, 3)).astype(np.float32)
  seen = np.asarray(local.around(guide, np.ones((1, SHAPE[0]), bool)))
  assert seen.shape[-1] == local.neighbours(3) == 4 * 5 * 5 * 3
  seen = seen.reshape(*SHAPE, 4, 5, 5, 3)
  nearest = lambda at: guide[(0, *(min(max(i, 0), n - 1)  # noqa: E731
                                   for i, n in zip(at, SHAPE, strict=True)))]
  for t, h, w in np.ndindex(*SHAPE):
    for n, i, j in np.ndindex(4, 5, 5):
      np.testing.assert_array_equal(
          seen[t, h, w, n, i, j], nearest((t + local.INSTANTS[n], h + i - 2, w + j - 2)))


def test_at_initialisation_it_says_nothing():
  fresh = plain_jit(TOWER.init)(jax.random.key(0, impl='unsafe_rbg'))['head']['local']
  assert not np.any(fresh['out']['kernel']) and not np.any(fresh['out']['bias'])
  assert not np.any(fresh['gate']['kernel']) and not np.any(fresh['token']['kernel'])
  trained = params_of(TOWER)
  without = jax.tree.map(lambda x: x, trained)
  without['head'] = {k: v for k, v in trained['head'].items() if k != 'local'}
  silent = {**trained, 'head': {**trained['head'], 'local': {
      **trained['head']['local'], 'out': fresh['out']}}}
  np.testing.assert_array_equal(velocity(TOWER)(silent, input_of()),
                                velocity(PLAIN)(without, input_of()))


@pytest.mark.parametrize('what', ['guide', 'x'])
def test_what_it_says_of_a_place_stands_at_that_place(what):
  """The tower silenced, a pixel of the guide changes the places within its reach, and a latent
  its own; every one of them, and nothing else."""
  params = jax.tree.map(jnp.asarray, params_of(TOWER))
  head = params['head']
  params = {**params, 'head': {
      **head, 'out': jax.tree.map(jnp.zeros_like, head['out']),
      'local': {**head['local'], 'token': jax.tree.map(jnp.zeros_like, head['local']['token'])}}}
  shape, at = (7, 8, 9), (3, 4, 2)
  inputs = input_of(shape)
  changed = np.array(getattr(inputs, what))
  changed[(0, *at)] += 3
  difference = np.abs(velocity(TOWER)(params, inputs.replace(**{what: changed}))
                      - velocity(TOWER)(params, inputs)).max(-1)
  wanted = np.zeros((2, *shape), bool)
  if what == 'x':
    wanted[(0, *at)] = True
  else:
    wanted[0, 1:5, 2:7, 0:5] = True  # instants −1 … 2 look at picture 3 from 4, 3, 2 and 1
  np.testing.assert_array_equal(difference > 1e-6, wanted)


RESIDUAL = dataclasses.replace(TOWER, guide=3 + 4, prediction='residual', detail=0.3)


def residual_inputs(t, seed=0):
  rng = np.random.default_rng(seed)
  return input_of().replace(t=np.full(2, t, np.float32),
                            guide=rng.standard_normal((2, *SHAPE, 7)).astype(np.float32))


def test_a_tower_that_names_the_residual_begins_with_the_guides_last_channels():
  params = params_of(RESIDUAL)
  silent = {name: jax.tree.map(np.zeros_like, params['head'][name]) for name in ('out',)}
  silent['local'] = {**params['head']['local'], 'out': jax.tree.map(
      np.zeros_like, params['head']['local']['out'])}
  fresh = {**params, 'head': {**params['head'], **silent}}
  inputs = residual_inputs(0.6)
  named = flow.data_from_velocity(inputs.x, velocity(RESIDUAL)(fresh, inputs), inputs.t)
  guess = inputs.guide[..., 3:]
  np.testing.assert_allclose(named, flow.add_detail(inputs.x, guess, 0.6, 0.3), atol=1e-5)


def test_where_there_is_only_noise_it_sees_none_of_it():
  params, inputs = params_of(RESIDUAL), residual_inputs(0.0)
  other = inputs.replace(x=5 * inputs.x[::-1])
  named = lambda i: flow.data_from_velocity(i.x, velocity(RESIDUAL)(params, i), i.t)  # noqa: E731
  np.testing.assert_allclose(named(other), named(inputs), atol=1e-5)
  early = np.float32([0.3, 0.3])
  assert np.abs(named(other.replace(t=early)) - named(inputs.replace(t=early))).max() > 1e-2


def test_flow_time_counts_for_its_own_example_only():
  params, inputs = params_of(TOWER), input_of()
  head = params['head']
  only = {**params, 'head': {**head, 'out': jax.tree.map(np.zeros_like, head['out'])}}
  before = np.asarray(velocity(TOWER)(only, inputs))
  after = np.asarray(velocity(TOWER)(only, inputs.replace(t=inputs.t + np.float32([0, 0.1]))))
  np.testing.assert_array_equal(after[0], before[0])
  assert not np.allclose(after[1], before[1], atol=1e-3)


def test_padding_does_not_change_the_real_part():
  params, inputs = params_of(TOWER), input_of()
  alone = velocity(TOWER)(params, inputs)
  rubbish = lambda x: np.concatenate(  # noqa: E731
      [x, np.full((2, 3, *x.shape[2:]), 5, np.float32)], axis=1)
  longer = inputs.replace(x=rubbish(inputs.x), guide=rubbish(inputs.guide),
                          mask=np.pad(inputs.mask, [(0, 0), (0, 3)]))
  np.testing.assert_allclose(velocity(TOWER)(params, longer)[:, :SHAPE[0]], alone, atol=2e-5)


def test_data_that_does_not_divide_has_its_shape():
  inputs = input_of((5, 5, 7))
  made = velocity(TOWER)(params_of(TOWER), inputs)
  assert made.shape == inputs.x.shape and np.isfinite(made).all()


@pytest.mark.parametrize('changes, said', [
    ({'towers.video.prediction': 'residual'}, 'with a guide'),
    ({'towers.video.prediction': 'noise'}, 'velocity or data'),
    ({'towers.video.local': 8}, 'local looks at a guide')])
def test_what_needs_a_guide_is_refused_where_there_is_none(changes, said):
  config = micro_config('t2v')
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  with pytest.raises(UserError, match=said):
    model_builder.build(config)
