"""Convolutions behind a tower's head: what they see, and that they keep the tower's promises."""

import jax
import numpy as np
import pytest
from micro import build, micro_config, plain_jit, random_params

from avlink_jax.errors import UserError
from avlink_jax.model import refine
from avlink_jax.model.attention import Kernel
from avlink_jax.model.dit import DiT
from avlink_jax.model.tower import EvenSeconds, Input

DIT = DiT(channels=4, patch=(1, 2, 3), seconds=EvenSeconds(6.0), width=16, depth=2, heads=2, mlp=24,
          text_width=12, attention=Kernel('reference'))
TOWER = refine.Refined(DIT, hidden=20)
SHAPE = (6, 8, 9)


def input_of(seed=0):
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
  return Input(normal(2, *SHAPE, 4), np.float32([0.2, 0.8]), normal(2, 5, 12),
               np.ones((2, 5), bool), np.ones((2, SHAPE[0]), bool))


def test_a_neighbourhood_is_the_places_around_and_0_beyond_the_edges():
  x = np.random.default_rng(0).standard_normal((1, 3, 4, 5, 2)).astype(np.float32)
  seen = np.asarray(refine.around(x, (1, 0, 2))).reshape(3, 4, 5, 3, 1, 5, 2)
  for t, h, w, i, j in np.ndindex(3, 4, 5, 3, 5):
    at = (t + i - 1, h, w + j - 2)
    inside = 0 <= at[0] < 3 and 0 <= at[2] < 5
    np.testing.assert_array_equal(seen[t, h, w, i, 0, j], x[(0, *at)] if inside else 0)


def test_at_initialisation_the_tower_is_as_it_was():
  params, inputs = random_params(TOWER), input_of()
  fresh = plain_jit(TOWER.init)(jax.random.key(0, impl='unsafe_rbg'))['head']['refine']
  assert not np.any(fresh['out']['kernel'])
  assert not np.any(fresh['gate']['kernel'])
  begun = params | {'head': params['head'] | {'refine': fresh}}
  alone = params | {'head': {k: v for k, v in params['head'].items() if k != 'refine'}}
  np.testing.assert_allclose(plain_jit(TOWER.velocity)(begun, inputs),
                             plain_jit(DIT.velocity)(alone, inputs), atol=1e-5)


def test_a_place_hears_of_those_a_moment_and_two_places_away():
  """What a changed number of the noisy data changes of the convolutions, the tower left out."""
  params = random_params(TOWER)['head']['refine']
  inputs, at = input_of(), (0, 3, 4, 4)
  module = refine.Refine(20)
  run = plain_jit(lambda x: module.apply({'params': params}, x, x, np.ones((2, 16), np.float32)))
  other = inputs.x.copy()
  other[at] += 1.0
  changed = np.abs(np.asarray(run(other)) - np.asarray(run(inputs.x))).max(-1)
  there = np.zeros(changed.shape, bool)
  there[0, 2:5, 2:7, 2:7] = True
  np.testing.assert_array_equal(changed > 1e-6, there)


def test_a_tower_of_the_config_is_wrapped():
  latents = {'towers.video.hidden': 0, 'towers.video.detail': 0.0,
             'towers.video.prediction': 'preconditioned', 'towers.video.refine': 8}
  tower = build(micro_config('t2v', **latents))[0].towers['video']
  assert isinstance(tower.tower, refine.Refined)
  assert tower.tower.hidden == 8


@pytest.mark.parametrize(('task', 'changes'), [
    ('t2a', {'towers.audio.refine': 8}),
    ('t2v', {'towers.video.refine': 8, 'towers.video.hidden': 8})])
def test_towers_that_have_no_use_for_it_are_refused(task, changes):
  with pytest.raises(UserError, match='refine is for towers of video without a guide'):
    build(micro_config(task, **changes))
