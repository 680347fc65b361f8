"""The tower seam: a kind that is made here, unlike ours in everything, links with ours."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from micro import (
  batch_of,
  build,
  frozen_of,
  micro_config,
  plain_jit,
  quick_jit,
  random_params,
  sampling,
  state_of,
)
from ml_collections import ConfigDict
from toy_tower import Toy, build_toy

from avlink_jax.errors import UserError
from avlink_jax.model import tower
from avlink_jax.model.attention import Kernel
from avlink_jax.model.avlink import AVLink
from avlink_jax.model.dit import DiT
from avlink_jax.model.fusion import Fusion
from avlink_jax.training import step as training

OUTPUTS = ('audio', 'video')


@pytest.fixture(autouse=True)
def registered(monkeypatch):
  monkeypatch.setitem(tower.KINDS, 'toy', build_toy)


def uneven(count):
  """Seconds of frames of which the first stands for less than the others."""
  return np.concatenate([[0.0], 0.05 + 0.2 * np.arange(count - 1)])


def toy():
  context = tower.Context(channels=3, rate=5.0, seconds=uneven, text_width=12, axis='toy_tokens',
                          attention=Kernel('reference'))
  return tower.make(ConfigDict({'kind': 'toy', 'features': 0, 'width': 20, 'depth': 6}), context)


VIDEO = DiT(channels=3, patch=(1, 2, 2), seconds=tower.EvenSeconds(6.0), width=24, depth=6, heads=2,
            mlp=24, text_width=12, axis='video_tokens', attention=Kernel('reference'))


@dataclasses.dataclass(frozen=True)
class Watched(Fusion):
  """Notes the shapes of the tokens and masks that it is given."""
  seen: list = dataclasses.field(default_factory=list)

  def apply(self, params, streams, angles, views=None, wanted=None):
    self.seen.append([(s.tokens.shape, s.mask.shape, a.shape[0])
                      for s, a in zip(streams, angles, strict=True)])
    return super().apply(params, streams, angles, views, wanted)


def link(audio):
  """Three Fusion Blocks, the first two of which one loop runs over."""
  axes = ('toy_tokens', 'video_tokens')
  fusion = Watched(blocks=3, width=16, heads=2, mlp=20, rank=4,
                   attention=Kernel('reference').between(axes, axes))
  return AVLink({'audio': audio, 'video': VIDEO}, fusion)


@functools.cache
def parameters():
  return (random_params(link(toy()), 5),
          {name: random_params(t, i) for i, (name, t) in enumerate(link(toy()).towers.items())})


def inputs():
  rng = np.random.default_rng(0)
  return {name: tower.Input(
      rng.standard_normal((2, *shape, 3)).astype(np.float32), rng.random(2, np.float32),
      rng.standard_normal((2, 5, 12)).astype(np.float32), np.ones((2, 5), bool),
      np.ones((2, shape[0]), bool)) for name, shape in (('audio', (7,)), ('video', (4, 4, 4)))}


def velocity(linked, fusion, trees):
  run = plain_jit(lambda fusion, trees, inputs: linked.velocity(fusion, trees, inputs, OUTPUTS))
  return run(fusion, trees, inputs())


def test_a_kind_that_is_made_here_is_linked_with_ours_and_learns():
  linked, (fusion, trees) = link(toy()), parameters()

  def loss(fusion):
    made = linked.velocity(fusion, trees, inputs(), OUTPUTS)
    return sum(jnp.sum(v**2) for v in made.values()), made

  gradients, made = plain_jit(jax.grad(loss, has_aux=True))(fusion)
  for name, v in made.items():
    assert v.shape == inputs()[name].x.shape and v.dtype == np.float32
    assert not np.allclose(v, alone(name), atol=1e-2)
  for path, g in jax.tree_util.tree_leaves_with_path(gradients):
    assert all(np.any(block) for block in g), jax.tree_util.keystr(path)


def alone(name):
  return plain_jit(link(toy()).towers[name].velocity)(parameters()[1][name], inputs()[name])


def test_at_initialisation_both_velocities_are_those_of_the_towers_alone():
  linked, trees = link(toy()), parameters()[1]
  fresh = plain_jit(linked.init)(jax.random.key(0, impl='unsafe_rbg'))
  for name, v in velocity(linked, fresh, trees).items():
    np.testing.assert_allclose(v, alone(name), atol=2e-5)


def test_fusion_sees_tokens_and_their_seconds_and_never_what_a_tower_keeps_to_itself():
  linked, (fusion, trees) = link(toy()), parameters()
  made = velocity(linked, fusion, trees)['audio']
  assert len(linked.fusion.seen) > 0
  for audio, video in linked.fusion.seen:
    assert audio == ((2, 7, 20), (2, 7), 7)
    assert video == ((2, 16, 24), (2, 16), 16)
  other = trees | {'audio': trees['audio'] | {'first': jax.tree.map(
      np.negative, trees['audio']['first'])}}
  assert not np.allclose(velocity(linked, fusion, other)['audio'], made, atol=1e-2)  # yet it counts


def test_seconds_that_are_wrong_are_heard_through_fusion_alone():
  fusion, trees = parameters()
  wrong = link(dataclasses.replace(toy(), seconds=tower.EvenSeconds(5.0)))
  made, other = (velocity(linked, fusion, trees) for linked in (link(toy()), wrong))
  assert all(not np.allclose(made[name], other[name], atol=1e-3) for name in OUTPUTS)
  fresh = plain_jit(wrong.init)(jax.random.key(0, impl='unsafe_rbg'))
  for name, v in velocity(wrong, fresh, trees).items():
    np.testing.assert_allclose(v, alone(name), atol=2e-5)


@pytest.mark.slow
def test_a_config_that_names_the_kind_trains_and_samples():
  config = micro_config('v2a')
  with config.towers.audio.unlocked():
    config.towers.audio.update(kind='toy', width=20)
  models, task = build(config)
  assert isinstance(models.towers['audio'], Toy)
  frozen, batch = frozen_of(models), batch_of(models)
  state = state_of(task, config, frozen)
  step = quick_jit(functools.partial(
      training.train_step, task, training.make_optimizer(config), config))
  for _ in range(2):
    state, metrics = step(state, frozen, batch)
    assert np.isfinite(metrics['loss']) and metrics['grad_norm'] > 0
  made = sampling(task, 2)(state.ema, frozen, batch)['audio']
  assert made.std() > 0 and np.isfinite(made).all()


def test_an_unknown_kind_is_refused_with_the_known_ones():
  config = micro_config('v2a')
  with config.towers.audio.unlocked():
    config.towers.audio.kind = 'unet'
  with pytest.raises(UserError, match="kind='unet': use dit or features or toy or wan"):
    build(config)
