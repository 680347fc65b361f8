"""Which way each example goes, what that means for the flow times, and both ways in one model."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from micro import batch_of, build, frozen_of, micro_config, noise_of, quick_jit, sampling, state_of

from avlink_jax import flow, tasks
from avlink_jax.build import example_shapes
from avlink_jax.sampling import sampler, windows

SIZE = 4000
LAW = {'flow.location.audio': -2.5, 'flow.location.video': -1.5, 'flow.scale': 1.0}


# What is drawn

class Drawing(tasks.FlowTask):
  """A task that tells what it would give the towers, instead of running them."""

  def clean(self, frozen, batch, name):
    return jnp.zeros((SIZE, 1, 1))

  def mask(self, batch, name):
    return jnp.ones((SIZE, 1), bool)

  def encode(self, towers, name, prepared):
    return dict(text=prepared, text_mask=None)

  def velocity(self, params, frozen, inputs, conditions=None):
    self.models.seen.append({name: (i.t, i.text) for name, i in inputs.items()})
    return {name: jnp.zeros((SIZE, 1, 1)) for name in self.generate}


class Words:
  """A text encoder's place: one number a prompt, 0 where nothing is said."""

  def prepare(self, prompts):
    return np.array([[float(p != '')] for p in prompts])


@functools.cache
def drawn(task, *changes):
  """{name: (t (SIZE,), whether its prompt was kept (SIZE,))} of one training step."""
  config = micro_config(task, **(LAW | dict(changes)))
  stage = types.SimpleNamespace(  # what of models.Models drawing needs
      modalities={name: dataclasses.replace(modality, text=Words())
                  for name, modality in build(config)[0].modalities.items()},
      link='a link', seen=[])
  drawing = Drawing(stage, config)
  said = Words().prepare(['words'] * SIZE)
  batch = {'audio_mask': np.ones((SIZE, 1)), 'audio_text': said, 'video_text': said}

  @quick_jit
  def run(key):
    drawing.loss({}, {}, {'towers': {}}, batch, key)
    return stage.seen.pop()

  return jax.tree.map(np.asarray, run(jax.random.key(3)))


def follows(t, law):
  return scipy.stats.kstest(t, law.cdf).pvalue > 1e-3


def logit_law(location, scale=1.0):
  """Of logit(t)."""
  return scipy.stats.norm(location, scale)


def test_joint_goes_each_way_about_half_of_the_time():
  """An example goes one way: the condition stands at its time and the other one runs."""
  t = {name: drawn('joint')[name][0] for name in ('audio', 'video')}
  stands = {'audio': t['audio'] == np.float32(0.8), 'video': t['video'] == np.float32(0.96)}
  assert (stands['audio'] ^ stands['video']).all()
  assert scipy.stats.binomtest(int(stands['video'].sum()), SIZE).pvalue > 1e-3
  for name, location in (('audio', -2.5), ('video', -1.5)):
    assert follows(scipy.special.logit(t[name][~stands[name]]), logit_law(location))


@pytest.mark.parametrize('task, made, given, standing', [
    ('v2a', 'audio', 'video', 0.96), ('a2v', 'video', 'audio', 0.8)])
def test_one_way_the_condition_stands_and_the_other_follows_the_law(task, made, given, standing):
  seen = drawn(task)
  assert (seen[given][0] == np.float32(standing)).all()
  assert follows(scipy.special.logit(seen[made][0]), logit_law(LAW[f'flow.location.{made}']))


@pytest.mark.parametrize('location, scale', [(0.0, 1.0), (1.0, 0.3)])
def test_location_and_scale_of_the_law_are_the_configs(location, scale):
  seen = drawn('v2a', ('flow.location.audio', location), ('flow.scale', scale))
  assert follows(scipy.special.logit(seen['audio'][0]), logit_law(location, scale))


def test_the_conditions_time_is_the_configs():
  assert (drawn('v2a', ('flow.condition_time.video', 0.5))['video'][0] == 0.5).all()


def test_a_uniform_law_is_the_conditions_alone():
  uniform = ('flow.condition_law', 'uniform')
  seen = drawn('v2a', uniform)
  assert follows(seen['video'][0], scipy.stats.uniform())
  assert follows(scipy.special.logit(seen['audio'][0]), logit_law(-2.5))
  assert abs(np.corrcoef(seen['video'][0], seen['audio'][0])[0, 1]) < 0.06
  np.testing.assert_array_equal(seen['audio'][0], drawn('v2a')['audio'][0])


@pytest.mark.parametrize('law', ['fixed', 'uniform'])
def test_features_from_outside_have_no_noise_whatever_the_law(law):
  seen = drawn('v2a', ('flow.condition_law', law), ('towers.video.features', 5))
  assert (seen['video'][0] == 1).all() and seen['video'][1] is None


def test_generated_at_once_both_times_are_one_draw_moved_by_their_locations():
  seen = {name: scipy.special.logit(t.astype(np.float64)) for name, (t, _) in drawn('av').items()}
  np.testing.assert_allclose(seen['audio'] + 2.5, seen['video'] + 1.5, atol=1e-4)
  assert follows(seen['audio'], logit_law(-2.5))


def test_prompts_are_dropped_by_what_they_are_for():
  """Of what is generated half, of what conditions a fifth (App. C), in joint by the way taken."""
  seen = drawn('joint')
  for name in ('audio', 'video'):
    t, said = seen[name]
    conditions = t == np.float32({'audio': 0.8, 'video': 0.96}[name])
    for of, rate in ((conditions, 0.2), (~conditions, 0.5)):
      dropped = int((said[of] == 0).sum())
      assert scipy.stats.binomtest(dropped, int(of.sum()), rate).pvalue > 1e-3


# The loss

@functools.cache
def joint():
  models, task = build(micro_config('joint'))
  frozen = frozen_of(models)
  return task, frozen, batch_of(models, 2), state_of(task, task.config, frozen).params


def key_that_draws(ways):
  """A key with which `joint` draws these directions."""
  for seed in range(100):
    key = jax.random.key(seed)
    if jax.random.randint(jax.random.split(key, 3)[0], (2,), 0, 2).tolist() == ways:
      return key
  raise AssertionError(ways)


@pytest.mark.slow
def test_where_all_examples_go_one_way_joint_is_that_task():
  task, frozen, batch, params = joint()
  loss = quick_jit(lambda key: task.loss(params, {}, frozen, batch, key))
  one_way = task.toward('video')
  key = key_that_draws([1, 1])
  wanted, (metrics, _) = quick_jit(
      lambda key: one_way.loss(params, {}, frozen, batch, key))(key)
  assert set(metrics) == {'mse_video'}
  made, (metrics, _) = loss(key)
  assert made == pytest.approx(float(wanted), rel=1e-4) and made > 0.1
  weight = task.config.flow.loss_weight.video
  assert weight > 1 and weight * metrics['mse_video'] == made and metrics['mse_audio'] == 0
  # One each way: each metric is of the one example that went that way.
  _, (metrics, _) = loss(key_that_draws([0, 1]))
  assert all(value > 0.1 for value in metrics.values())


# Sampling

def test_euler_with_a_clock_each_is_the_plain_loop():
  times = {'a': flow.time_grid(8, -2.5), 'b': flow.time_grid(8, -1.0)}
  start = {'a': jnp.ones((2, 3)), 'b': {'x': jnp.zeros(4), 'y': jnp.full(2, 0.5)}}

  def velocity(x, t):
    return {'a': t['b'] * x['a'] + x['b']['x'].sum(),
            'b': jax.tree.map(lambda x: x - t['a'] + t['b'] ** 2, x['b'])}

  made = flow.solve(lambda x, t, kept: (velocity(x, t), kept), start, times)
  x = jax.tree.map(np.asarray, start)
  for n in range(8):
    t, after = ({name: float(grid[k]) for name, grid in times.items()} for k in (n, n + 1))
    v = velocity(x, t)
    x = {name: jax.tree.map(lambda x, v, step=after[name] - t[name]: x + step * v, x[name], v[name])
         for name in x}
  for a, b in zip(*map(jax.tree.leaves, (made, x)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('direction, alone', [('audio', 'v2a'), ('video', 'a2v')])
def test_one_way_joint_samples_by_the_very_program_of_that_task(direction, alone):
  """So with the same weights its samples are the same to the last bit."""
  task, frozen, batch, params = joint()

  def program(task):
    shapes = example_shapes(task.models)
    track = windows.track([np.zeros(1)] * 2, shapes[direction][0],
                          task.codec(direction).rate)
    schedule = dataclasses.replace(task.schedule, steps=2)
    lowered = jax.jit(functools.partial(sampler.generate, task, schedule)).lower(
        params, frozen, batch, noise_of(task, 2), {direction: (track.index, track.weight)}, 5.0,
        {direction: 0.0})
    return lowered.as_text()

  own = micro_config(alone, **{'sample.guidance_to': 1.0})  # as of joint
  assert program(task.toward(direction)) == program(build(own)[1])


class Clocks(tasks.FlowTask):
  """Its velocity is the flow time."""

  def velocity(self, params, frozen, inputs, conditions=None):
    return {name: jnp.broadcast_to(flow.broadcast(i.t, i.x), i.x.shape)
            for name, i in inputs.items()}


@pytest.mark.slow
def test_at_once_each_modality_runs_on_its_own_clock():
  config = micro_config('av', **{'sample.shift.audio': -2.5, 'sample.shift.video': 1.0})
  task = Clocks(build(config)[0], config)
  made = sampling(task, 4)({}, frozen_of(task.models), batch_of(task.models, 2), guidance=1.0)
  for name, x0 in noise_of(task, 2).items():
    times = np.asarray(flow.time_grid(4, config.sample.shift[name]))
    np.testing.assert_allclose(made[name] - x0, (np.diff(times) * times[:-1]).sum(), atol=1e-5)
