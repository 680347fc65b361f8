"""The conditioning stream kept for several steps, guidance on an interval: what runs when."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from micro import batch_of, build, frozen_of, micro_config, noise_of, quick_jit, sampling, state_of

from avlink_jax import compile, flow
from avlink_jax.errors import UserError
from avlink_jax.hardware import flops
from avlink_jax.model.tower import Input
from avlink_jax.training import sharding
from configs import v2a

STEPS = 5


@functools.cache
def micro(task='v2a', **changes):
  """(task, frozen, batch of two clips, parameters)."""
  config = micro_config(task, **changes)
  models, task = build(config)
  frozen = frozen_of(models)
  return task, frozen, batch_of(models, 2), state_of(task, config, frozen).params


def sampled(task, frozen, batch, params, guidance=5.0, **schedule):
  """X_1 of the audio after STEPS steps."""
  config = task.config.copy_and_resolve_references()
  config.sample.update(schedule)
  task = dataclasses.replace(task, config=config)
  return np.asarray(sampling(task, STEPS)(params, frozen, batch, guidance)['audio'])


class Loop:
  """Sampling as one would write it first, on the host: V2A's evaluations one by one."""

  def __init__(self):
    self.task, self.frozen, self.batch, self.params = micro()
    task, towers = self.task, self.task.towers(self.params, self.frozen)
    noise = noise_of(task, 2)
    said = {name: task.encode(towers, name, self.batch[f'{name}_text'])
            for name in task.modalities}
    null = task.encode(towers, 'audio', jax.tree.map(
        lambda x: np.repeat(x, 2, 0), task.null('audio')))
    t = task.condition_time('video', 2)
    clean = task.clean(self.frozen, self.batch, 'video')
    video = Input(flow.interpolate(clean, noise['video'], t), t,
                  mask=task.mask(self.batch, 'video'), **said['video'])
    self.start = noise['audio']
    audio = lambda x, t, said: Input(  # noqa: E731
        x, jnp.full(2, t), mask=task.mask(self.batch, 'audio'), **said)
    self.both = lambda x, t: {'audio': audio(x, t, said['audio']), 'video': video}
    self.refresh = quick_jit(lambda x, t: task.refresh(
        self.params, self.frozen, self.both(x, t), None))
    self.velocity = quick_jit(lambda x, t, kept: task.velocity(
        self.params, self.frozen, self.both(x, t), kept))
    self.bare = quick_jit(lambda x, t: task.models.towers['audio'].velocity(
        towers['audio']['dit'], audio(x, t, null)))

  def __call__(self, refresh, guided=lambda t: True, guidance=5.0):
    x, kept, refreshed = self.start, None, 0
    times = flow.time_grid(STEPS, self.task.config.sample.shift.audio)
    for n, (t, t_next) in enumerate(zip(times[:-1], times[1:], strict=True)):
      if n % refresh == 0:
        v, kept = self.refresh(x, t)
        refreshed += 1
      else:
        v = self.velocity(x, t, kept)
      v = v['audio']
      if guided(t):
        v = flow.guide(v, self.bare(x, t), guidance)
      x = x + (t_next - t) * v
    return np.asarray(x), refreshed


loop = functools.cache(Loop)


@pytest.mark.slow
@pytest.mark.parametrize('refresh, times', [(1, 5), (2, 3), (5, 1), (9, 1)])
def test_the_conditioning_stream_stands_between_refreshes(refresh, times):
  """Whether they divide the steps or not; the unconditional pass needs nothing of it."""
  wanted, refreshed = loop()(refresh)
  assert refreshed == times
  np.testing.assert_allclose(sampled(*micro(), refresh=refresh), wanted, atol=2e-4)
  if refresh > 1:
    assert not np.allclose(wanted, loop()(1)[0], atol=1e-3)


@pytest.mark.slow
def test_guidance_is_where_the_interval_is():
  times = np.asarray(flow.time_grid(STEPS, micro()[0].config.sample.shift.audio))
  low, high = float(times[1]), float(times[3])  # the ends belong to it
  wanted, _ = loop()(2, lambda t: low <= t <= high)
  made = sampled(*micro(), refresh=2, guidance_from=low, guidance_to=high)
  np.testing.assert_allclose(made, wanted, atol=2e-4)
  for other in (lambda t: True, lambda t: False, lambda t: t <= high, lambda t: t >= low):
    assert not np.allclose(made, loop()(2, other)[0], atol=1e-3)


@pytest.mark.slow
def test_what_is_never_put_back_stands_anyway():
  """Without reinjection a refresh finds nothing new, so that however many there are is the same."""
  cached = micro(**{'fusion.reinject': False})
  np.testing.assert_allclose(
      sampled(*cached, refresh=3), sampled(*cached, refresh=1), atol=1e-5)


@pytest.mark.parametrize('direction', ['audio', 'video'])
def test_a_joint_model_keeps_whichever_side_conditions(direction):
  """Counted: the second of two steps has none of the other tower's blocks."""
  task, frozen, batch, params = micro('joint', **{'sample.refresh': 2})
  task = task.toward(direction)
  plain = lambda steps: sampling(task, steps, jit=lambda function: function)  # noqa: E731
  first, both = (flops.of(plain(steps), params, frozen, batch) for steps in (1, 2))
  name, = task.conditions
  tower, dit = task.models.towers[name], frozen['towers'][name]['dit']
  x = noise_of(task, 2)[name]
  given = Input(x, np.zeros(2, np.float32), np.zeros((2, 4, 16), np.float32), np.ones((2, 4), bool),
                np.ones(x.shape[:2], bool))
  assert both - first < first - flops.of(lambda stream: tower.segment(
      dit, 0, tower.depth, stream), jax.eval_shape(lambda: tower.embed(dit, given)))


# What it costs

@functools.cache
def paper_flops(steps, refresh=1, guidance=5.0):
  """FLOPs of a clip at the paper's size; nothing is computed."""
  config = v2a.get_config('paper')
  config.sample.update(steps=steps, refresh=refresh, guidance=guidance, batch_size=1)
  return compile.sampling(config, sharding.make_mesh()).model_flops


def test_a_step_beside_a_kept_video_costs_a_fortieth_at_the_papers_size():
  full = paper_flops(2) - paper_flops(1)
  kept = paper_flops(3, 3) - paper_flops(2, 2)
  assert 50e12 < full < 60e12
  assert 0.5e12 < kept < 1.5e12 and kept < full / 40
  # A step that refreshes has no queries of the video in the last Fusion Block.
  assert 0.97 * full < paper_flops(2, 2) - kept < full


# Mistakes

@pytest.mark.parametrize('task, changes, said', [
    ('v2a', {'refresh': 0}, r'sample.refresh=0: give at least 1'),
    ('v2a', {'steps': 0}, r'sample.steps=0: give at least 1'),
    ('v2a', {'solver': 'rk4'}, r"sample.solver='rk4': use euler, midpoint, heun"),
    ('v2a', {'guidance_from': 0.6, 'guidance_to': 0.3}, 'from=0.6 .*to=0.3.*from <= to'),
    ('v2a', {'guidance_from': -0.1}, 'from=-0.1'),
    ('v2a', {'guidance_to': 1.5}, 'to=1.5'),
    ('t2a', {'refresh': 4}, 'sample.refresh=4: t2a has no conditioning stream'),
    ('av', {'refresh': 4}, 'sample.refresh=4: av has no conditioning stream')])
def test_what_cannot_be_sampled_is_told_in_one_line(task, changes, said):
  with pytest.raises(UserError, match=said) as raised:
    build(micro_config(task, **{f'sample.{name}': value for name, value in changes.items()}))
  assert '\n' not in str(raised.value)
