"""The head that looks place by place: what it sees, and that it keeps the tower's promises."""

import functools

import jax
import numpy as np
import pytest
from micro import micro_config, plain_jit, random_params

from avlink_jax import build as model_builder
from avlink_jax.errors import UserError
from avlink_jax.model import estimate, local
from avlink_jax.model.attention import Kernel
from avlink_jax.model.dit import DiT
from avlink_jax.model.guided import Guided, GuidedInput
from avlink_jax.model.prediction import ResidualPrediction
from avlink_jax.model.tower import EvenSeconds

DIT = DiT(channels=4, patch=(1, 2, 3), seconds=EvenSeconds(6.0), width=16, depth=2, heads=2, mlp=24,
          text_width=12, input_channels=3 + 4 + 4, attention=Kernel('reference'))
TOWER = ResidualPrediction(local.LocalHead(Guided(DIT), DIT, hidden=20, pictured=3), detail=0.3)
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
  return GuidedInput(normal(2, *shape, 4), np.float32([0.2, 0.8]), normal(2, 5, 12),
                     np.ones((2, 5), bool), np.ones((2, shape[0]), bool),
                     guide=normal(2, *shape, 7), guide_t=np.float32([0.9, 1.0]))


def named(params, inputs, tower=TOWER):
  """X̂_1 less what the guide guesses of it."""
  x1 = estimate.data_from_velocity(inputs.x, velocity(tower)(params, inputs), inputs.t)
  return np.asarray(x1) - inputs.guide[..., 3:]


def test_every_place_sees_how_the_pixels_around_it_differ_at_four_instants():
  guide = np.random.default_rng(0).standard_normal((1, *SHAPE, 3)).astype(np.float32)
  seen = np.asarray(local.around(guide, np.ones((1, SHAPE[0]), bool)))
  side = 2 * local.REACH + 1
  assert seen.shape[-1] == local.neighbours(3) == 4 * side * side * 3
  seen = seen.reshape(*SHAPE, 4, side, side, 3)
  nearest = lambda at: guide[(0, *(min(max(i, 0), n - 1)  # noqa: E731
                                   for i, n in zip(at, SHAPE, strict=True)))]
  for t, h, w in np.ndindex(*SHAPE):
    for n, i, j in np.ndindex(4, side, side):
      there = (t + local.INSTANTS[n], h + i - local.REACH, w + j - local.REACH)
      np.testing.assert_array_equal(
          seen[t, h, w, n, i, j], nearest(there) - guide[0, t, h, w])


def test_at_initialisation_it_says_nothing():
  fresh = plain_jit(TOWER.init)(jax.random.key(0, impl='unsafe_rbg'))['head']
  assert set(fresh) == {'local', 'modulation'}
  assert not np.any(fresh['local']['out']['kernel'])
  for gate in ('gate', 'token'):
    assert not np.any(fresh['local'][gate]['kernel'])
  trained, inputs = params_of(TOWER), input_of()
  begun = {**trained, 'head': {**trained['head'], 'local': {
      **trained['head']['local'], 'out': fresh['local']['out']}}}
  shown = estimate.add_detail(
      inputs.x, inputs.guide[..., 3:], inputs.t[:, None, None, None, None], 0.3)
  np.testing.assert_allclose(named(begun, inputs), shown - inputs.guide[..., 3:], atol=2e-5)


@pytest.mark.parametrize('what', ['guide', 'x'])
def test_what_it_says_of_a_place_stands_at_that_place(what):
  """Its gates open, a pixel of the guide changes the places within its reach, and a latent its
  own; every one of them, and nothing else."""
  params = params_of(TOWER)
  params = {**params, 'head': {**params['head'], 'local': {
      **params['head']['local'],
      'token': jax.tree.map(np.zeros_like, params['head']['local']['token'])}}}
  shape, at = (7, 11, 12), (3, 5, 2)
  inputs = input_of(shape)
  changed = np.array(getattr(inputs, what))
  changed[(0, *at)][:3] += 3
  difference = np.abs(named(params, inputs.replace(**{what: changed}))
                      - named(params, inputs)).max(-1)
  wanted = np.zeros((2, *shape), bool)
  if what == 'x':
    wanted[(0, *at)] = True
  else:
    wanted[0, 1:5, 1:10, 0:7] = True  # instants −1 … 2 look at picture 3 from 4, 3, 2 and 1
  np.testing.assert_array_equal(difference > 1e-5, wanted)


def test_of_what_is_smooth_it_says_nothing_and_of_half_the_contrast_half():
  params, inputs = params_of(TOWER), input_of()
  inputs = inputs.replace(t=np.zeros(2, np.float32))  # nothing of the data is seen
  pictured = np.array(inputs.guide[..., :3])
  of = lambda pictured: inputs.replace(guide=np.concatenate(  # noqa: E731
      [pictured, inputs.guide[..., 3:]], -1))
  flat = np.broadcast_to(np.float32([0.3, -0.8, 0.1]), pictured.shape)
  np.testing.assert_allclose(named(params, of(flat)), 0, atol=1e-5)

  head = params['head']['local']
  silent = {**params, 'head': {**params['head'], 'local': {
      **head, 'token': jax.tree.map(np.zeros_like, head['token'])}}}
  whole = named(silent, of(pictured))
  assert np.abs(whole).max() > 0.1
  np.testing.assert_allclose(named(silent, of(flat + pictured / 2)), whole / 2, atol=1e-5)


def test_where_there_is_only_noise_it_sees_none_of_it():
  params, inputs = params_of(TOWER), input_of()
  other = inputs.replace(x=5 * inputs.x[::-1])
  at = lambda inputs, t: named(  # noqa: E731
      params, inputs.replace(t=np.full(2, t, np.float32)))
  np.testing.assert_allclose(at(other, 0.0), at(inputs, 0.0), atol=1e-5)
  assert np.abs(at(other, 0.3) - at(inputs, 0.3)).max() > 1e-2


def test_flow_time_counts_for_its_own_example_only():
  params, inputs = params_of(TOWER), input_of()
  before = named(params, inputs)
  after = named(params, inputs.replace(t=inputs.t + np.float32([0, 0.1])))
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
    ({'towers.video.prediction': 'noise'}, 'velocity, data or preconditioned'),
    ({'towers.video.local': 8}, 'local makes a residual')])
def test_what_needs_a_guide_is_refused_where_there_is_none(changes, said):
  config = micro_config('t2v')
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  with pytest.raises(UserError, match=said):
    model_builder.build(config)
