"""A network that predicts the data, and the way past a tower narrower than its patches."""

import dataclasses

import numpy as np
import pytest
from micro import plain_jit
from test_dit import AUDIO, SHAPES, VIDEO, both, fresh, input_of, params_of, velocity

from avlink_jax.model.estimate import data_from_velocity, velocity_from_data
from avlink_jax.model.patches import patchify, unpatchify
from avlink_jax.model.prediction import DataPrediction
from avlink_jax.model.wide import Wide

WIDE = Wide(VIDEO, hidden=20)


@both
def test_a_network_that_predicts_the_data_gives_the_velocity_that_leads_there(tower):
  params, inputs = params_of(tower), input_of(tower)
  predicted = velocity(tower)(params, inputs)  # the same network, its output taken as it is
  v = velocity(DataPrediction(tower))(params, inputs)
  np.testing.assert_allclose(data_from_velocity(inputs.x, v, inputs.t), predicted, atol=1e-5)


@both
def test_at_initialisation_it_predicts_zero(tower):
  inputs = input_of(tower)
  zero = velocity_from_data(inputs.x, np.zeros_like(inputs.x), inputs.t)
  np.testing.assert_array_equal(velocity(DataPrediction(tower))(fresh(tower), inputs), zero)


def test_the_way_past_the_tower_is_shut_at_the_start():
  params, inputs = fresh(WIDE), input_of(VIDEO)
  plain = {**params, 'embed': {k: v for k, v in params['embed'].items() if k != 'wide'}}
  np.testing.assert_array_equal(plain_jit(WIDE.embed)(params, inputs).tokens,
                                plain_jit(VIDEO.embed)(plain, inputs).tokens)
  assert not np.asarray(velocity(WIDE)(params, inputs)).any()


def test_what_one_linear_map_cannot_see_goes_past_the_tower():
  """Two patches of 18 numbers whose difference the map to 16 numbers loses are one to a tower
  without the way past it, and two to one that has it."""
  change = np.linalg.svd(np.asarray(params_of(WIDE)['embed']['patch']['kernel']).T)[2][-1]
  inputs = input_of(VIDEO)
  x = np.array(patchify(inputs.x, VIDEO.patch))
  x[:, 5] += 3 * change
  other = inputs.replace(x=unpatchify(x, VIDEO.patch, SHAPES[VIDEO]))
  differ = lambda tower, params: np.abs(  # noqa: E731
      velocity(tower)(params, other) - velocity(tower)(params, inputs)).max()
  assert differ(VIDEO, params_of(VIDEO) | {'embed': {
      **params_of(VIDEO)['embed'], 'patch': params_of(WIDE)['embed']['patch']}}) < 1e-4
  assert differ(WIDE, params_of(WIDE)) > 1e-2


@pytest.mark.parametrize('tower', [WIDE, DataPrediction(VIDEO, detail=0.1)])
def test_what_is_wrapped_keeps_the_towers_sizes_and_seconds(tower):
  assert (tower.width, tower.depth, tower.channels, tower.axis) == (
      VIDEO.width, VIDEO.depth, VIDEO.channels, VIDEO.axis)
  np.testing.assert_array_equal(
      tower.token_seconds(SHAPES[VIDEO]), VIDEO.token_seconds(SHAPES[VIDEO]))
  longer = dataclasses.replace(AUDIO, depth=5)
  assert DataPrediction(longer).depth == 5
