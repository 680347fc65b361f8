"""The Wan tower: its size, its sign and clock, its empty text, and that it trains and links."""

import dataclasses
import functools
import math

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

from avlink_jax.errors import UserError
from avlink_jax.model.attention import Kernel
from avlink_jax.model.tower import Input
from avlink_jax.model.wan import Wan
from avlink_jax.training import step as training


def uneven(count):
  """Seconds of Wan's latents at 16 pictures a second: one picture, then four each."""
  return np.maximum(4 * np.arange(count) - 1.5, 0) / 16


VIDEO = Wan(channels=3, patch=(1, 2, 2), seconds=uneven, width=24, depth=3, heads=2, mlp=32,
            text_width=10, attention=Kernel('reference'))
PAPER = dict(seconds=uneven, width=1536, depth=30, heads=12, mlp=8960)


@functools.cache
def params():
  return random_params(VIDEO)


def input_of(batch=2, words=2, places=5, seed=0, t=(0.2, 0.8)):
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
  return Input(normal(batch, 3, 4, 6, 3), np.array(t, np.float32), normal(batch, places, 10),
               np.arange(places) < np.full((batch, 1), words), np.ones((batch, 3), bool))


velocity = plain_jit(VIDEO.velocity)


@pytest.mark.parametrize('tower, millions', [
    (Wan(channels=16, patch=(1, 2, 2), text_width=4096, **PAPER), 1418.9),
    (Wan(channels=128, patch=(1,), text_width=2048, **PAPER), 1416.0)], ids=['wan', 'moss'])
def test_the_published_sizes_have_the_published_number_of_parameters(tower, millions):
  shapes = jax.eval_shape(tower.init, jax.random.key(0))
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
  assert count / 1e6 == pytest.approx(millions, abs=0.1)


def test_at_initialisation_blocks_are_the_identity_and_the_velocity_is_zero():
  fresh = plain_jit(VIDEO.init)(jax.random.key(0, impl='unsafe_rbg'))
  stream = VIDEO.embed(fresh, input_of())
  np.testing.assert_array_equal(VIDEO.segment(fresh, 0, 3, stream).tokens, stream.tokens)
  assert not np.asarray(VIDEO.head(fresh, stream)).any()
  assert np.abs(stream.tokens).max() > 0.1


def test_the_network_says_noise_minus_data_at_a_thousand_times_one_minus_t():
  """With tokens of 0 the head says its shift alone, an MLP of that time: -W(e + shift) - b."""
  p = jax.tree.map(np.zeros_like, params())
  p['embed'] |= {layer: params()['embed'][layer] for layer in ('time_in', 'time_out')}
  p['head'] = params()['head']
  t = np.array([0.3, 0.96], np.float32)
  angle = 1000 * (1 - t[:, None].astype(np.float64)) * 10_000 ** (-np.arange(128) / 128)
  dense = lambda layer, x: x @ layer['kernel'] + layer['bias']  # noqa: E731
  hidden = dense(p['embed']['time_in'], np.concatenate([np.cos(angle), np.sin(angle)], 1))
  e = dense(p['embed']['time_out'], hidden / (1 + np.exp(-hidden)))
  said = dense(p['head']['out'], e + p['head']['table'][0])  # patch first, channels last
  v = np.asarray(velocity(p, input_of(t=t)))
  np.testing.assert_allclose(v[:, :, :2, :2].reshape(2, 3, -1),
                             np.repeat(-said[:, None], 3, 1), atol=2e-4)
  np.testing.assert_allclose(v[:, :, 2:, 4:], v[:, :, :2, :2], atol=1e-6)


def test_tokens_are_when_the_codecs_frames_are():
  seconds = VIDEO.token_seconds((3, 4, 6))
  np.testing.assert_allclose(seconds.reshape(3, 6), np.repeat(
      [[0], [2.5 / 16], [6.5 / 16]], 6, axis=1))


def test_empty_places_of_the_text_are_zeros_that_are_attended_to():
  given = input_of()
  scribbled = given.replace(text=np.where(given.text_mask[..., None], given.text, 9.0))
  v = velocity(params(), given)
  np.testing.assert_array_equal(velocity(params(), scribbled), v)
  cut = given.replace(text=given.text[:, :2], text_mask=given.text_mask[:, :2])
  assert not np.allclose(velocity(params(), cut), v, atol=1e-2)


def test_padding_of_the_data_is_not_attended_to():
  given, mask = input_of(), np.ones((2, 3), bool)
  mask[:, 2] = False
  x = given.x.copy()
  x[:, 2] = 9.0
  one, other = (velocity(params(), given.replace(x=data, mask=mask)) for data in (given.x, x))
  np.testing.assert_allclose(one[:, :2], other[:, :2], atol=1e-5)


def test_blocks_run_in_any_stretches_from_a_traced_first_and_recomputed():
  deep = dataclasses.replace(VIDEO, depth=5, remat='block')  # more than is written out
  p = random_params(deep)

  def cut(p, given, first):
    stream = deep.segment(p, 0, 1, deep.embed(p, given))
    return deep.head(p, deep.segment(p, first, 4, stream))

  np.testing.assert_allclose(plain_jit(cut)(p, input_of(), 1),
                             plain_jit(deep.velocity)(p, input_of()), atol=1e-5)


def test_in_bfloat16_the_velocity_is_near_the_one_in_float32():
  half = dataclasses.replace(VIDEO, dtype=jnp.bfloat16)
  v = quick_jit(half.velocity)(jax.tree.map(lambda x: x.astype(jnp.bfloat16), params()), input_of())
  full = velocity(params(), input_of())
  assert v.dtype == np.float32 and np.linalg.norm(v - full) < 0.02 * np.linalg.norm(full)


# In a config

def wan_config(task, name):
  config = micro_config(task)
  config.towers[name].update(kind='wan', hidden=0)
  return config


@pytest.mark.slow
@pytest.mark.parametrize('task, name', [('t2a', 'audio'), ('t2v', 'video'), ('v2a', 'audio')])
def test_a_config_that_names_the_kind_trains_and_samples(task, name):
  """Alone, and linked with ours."""
  config = wan_config(task, name)
  models, task = build(config)
  frozen, batch = frozen_of(models), batch_of(models)
  state = state_of(task, config, frozen)
  before = jax.tree.map(np.array, frozen['towers'])
  step = quick_jit(functools.partial(
      training.train_step, task, training.make_optimizer(config), config))
  for _ in range(2):
    state, metrics = step(state, frozen, batch)
    assert np.isfinite(metrics['loss']) and metrics['grad_norm'] > 0
  jax.tree.map(np.testing.assert_array_equal, frozen['towers'], before)
  generated, = task.generate
  made = sampling(task, 2)(state.ema, frozen, batch)[generated]
  assert made.std() > 0 and np.isfinite(made).all()


@pytest.mark.parametrize('key, value, words', [
    ('hidden', 8, 'towers.video.hidden=8 is for towers.video.kind=dit: set it to 0'),
    ('prediction', 'residual', "prediction='residual': use velocity or data"),
    ('prediction', 'velocity', 'towers.video.detail is for towers that predict data')])
def test_what_only_our_dit_has_is_refused(key, value, words):
  config = wan_config('t2v', 'video')
  config.towers.video[key] = value
  with pytest.raises(UserError, match=words):
    build(config)
