"""The network behind a tower's head: what it sees, and that it keeps the tower's promises."""

import jax
import numpy as np
import pytest
from micro import build, micro_config, plain_jit, random_like, random_params

from avlink_jax.errors import UserError
from avlink_jax.model.attention import Kernel
from avlink_jax.model.dit import DiT
from avlink_jax.model.refine import Refine, Refined, merge, split
from avlink_jax.model.tower import EvenSeconds, Input

DIT = DiT(channels=4, patch=(1, 2, 3), seconds=EvenSeconds(6.0), width=16, depth=2, heads=2, mlp=24,
          text_width=12, attention=Kernel('reference'))
TOWER = Refined(DIT, Refine(width=6, cell=1, levels=1))
SHAPE = (6, 8, 9)


def input_of(seed=0):
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
  return Input(normal(2, *SHAPE, 4), np.float32([0.2, 0.8]), normal(2, 5, 12),
               np.ones((2, 5), bool), np.ones((2, SHAPE[0]), bool))


def refined(network, x, time=None):
  """Function x -> what the network adds, with random parameters; `x` gives the shape."""
  time = np.ones((len(x), 16), np.float32) if time is None else time
  shapes = jax.eval_shape(network.init, jax.random.key(0), x, x, time)['params']
  params = random_like(shapes, 1)
  return plain_jit(lambda x: network.apply({'params': params}, x, x, time))


def test_cells_are_split_into_what_was_merged():
  x = np.random.default_rng(0).standard_normal((2, 3, 4, 6, 5))
  assert merge(x, 2).shape == (2, 3, 2, 3, 20)
  np.testing.assert_array_equal(merge(x, 2)[1, 2, 1, 1], x[1, 2, 2:4, 2:4].reshape(-1))
  np.testing.assert_array_equal(split(merge(x, 2), 2), x)


@pytest.mark.parametrize('network', [Refine(6, 1, 1), Refine(4, 2, 1), Refine(4, 2, 2)],
                         ids=['places', 'cells', 'levels'])
def test_at_initialisation_the_tower_is_as_it_was(network):
  tower, inputs = Refined(DIT, network), input_of()
  params = random_params(tower)
  fresh = plain_jit(tower.init)(jax.random.key(0, impl='unsafe_rbg'))['head']['refine']
  assert not np.any(fresh['last']['kernel'])
  begun = params | {'head': params['head'] | {'refine': fresh}}
  alone = params | {'head': {k: v for k, v in params['head'].items() if k != 'refine'}}
  np.testing.assert_allclose(plain_jit(tower.velocity)(begun, inputs),
                             plain_jit(DIT.velocity)(alone, inputs), atol=1e-5)


def test_a_place_hears_of_those_three_places_and_two_moments_away():
  """By three convolutions of a frame and two of moments; and of nothing else."""
  x = input_of().x[:1].repeat(2, axis=0)
  run, other = refined(Refine(width=6, cell=1, levels=1), x), x.copy()
  other[0, 0, 0, 0] += 1.0
  changed = np.abs(np.asarray(run(other)) - np.asarray(run(x))).max(-1)
  there = np.zeros(changed.shape, bool)
  there[0, :3, :4, :4] = True
  np.testing.assert_array_equal(changed > 1e-6, there)


def test_coarser_levels_see_farther():
  x = np.random.default_rng(0).standard_normal((1, 1, 32, 32, 2)).astype(np.float32)
  other = x.copy()
  other[0, 0, 0, 0] += 1.0
  reach = []
  for levels in (1, 2):
    run = refined(Refine(width=6, cell=2, levels=levels), x)
    changed = np.abs(np.asarray(run(other)) - np.asarray(run(x))).max((0, 1, 3, 4)) > 1e-6
    reach.append(int(changed.sum()))
  assert reach[0] == 2 * 4  # three cells beyond its own
  assert reach[1] > 1.5 * reach[0]


def test_sizes_that_are_no_whole_number_of_cells_are_completed_with_nothing():
  x = np.random.default_rng(0).standard_normal((1, 3, 9, 13, 2)).astype(np.float32)
  run = refined(Refine(width=4, cell=2, levels=2), x)
  filled = np.pad(x, ((0, 0), (0, 0), (0, 3), (0, 3), (0, 0)))
  assert run(x).shape == x.shape
  np.testing.assert_allclose(run(x), run(filled)[:, :, :9, :13], atol=1e-5)


def test_flow_time_is_heard():
  x = input_of().x
  runs = [refined(TOWER.network, x, np.full((2, 16), time, np.float32))(x) for time in (0.5, 2.0)]
  assert np.abs(np.asarray(runs[0]) - np.asarray(runs[1])).max() > 1e-3


@pytest.mark.parametrize('changes', [
    {'towers.video.hidden': 0, 'towers.video.detail': 0.0,
     'towers.video.prediction': 'preconditioned'}, {}], ids=['velocity', 'as nano'])
def test_a_tower_of_the_config_is_wrapped_inside_what_it_predicts(changes):
  tower = build(micro_config('t2v', **changes, **{
      'towers.video.refine': 8, 'towers.video.refine_levels': 3}))[0].towers['video']
  assert isinstance(tower.tower, Refined)
  assert (tower.tower.network.width, tower.tower.network.levels) == (8, 3)


@pytest.mark.parametrize('task, tower', [('t2a', 'audio'), ('upsampler', 'video')])
def test_towers_that_have_no_use_for_it_are_refused(task, tower):
  with pytest.raises(UserError, match='refine is for towers of video without a guide'):
    build(micro_config(task, **{f'towers.{tower}.refine': 8}))
