"""Sampling of a batch of windows step by step, so that whoever waits can watch and stop it.

The same as sampler.generate, which is one program for all steps and cannot be interrupted: here a
program of one step is run again and again, and the caller is asked in between.
"""

import functools

import jax

from avlink_jax import flow
from avlink_jax.sampling.velocity import evaluate, fix
from avlink_jax.sampling.windows import blend
from avlink_jax.training import sharding


def velocity(task, schedule, params, frozen, fixed, tracks, guidance):
  """Velocity (flow.Velocity) of a batch's generated data, the mean where windows overlap.

  Args:
    task, schedule, params, frozen, tracks, guidance: as in sampler.generate.
    fixed: velocity.Fixed of the windows.
  """
  def of(x, t, kept):
    velocities, kept = evaluate(task, schedule, params, frozen, fixed, guidance, x, t, kept)
    return {name: blend(v, tracks[name][0], tracks[name][1], tracks[name][0].size)[tracks[name][0]]
            for name, v in velocities.items()}, kept

  return of


def step(task, schedule, params, frozen, fixed, tracks, guidance, x, t, t_next, kept):
  """One step of the solver from t to t_next, {name: () array}: (x, kept) as flow.SOLVERS give."""
  of = velocity(task, schedule, params, frozen, fixed, tracks, guidance)
  return flow.SOLVERS[schedule.solver](of, x, t, t_next, kept)


class Stepwise:
  """The function that sampler.jitted gives, but for `stepped`; compiled once for each batch shape.
  """

  def __init__(self, task, mesh):
    self._task, schedule = task, task.schedule
    on_mesh, replicated = functools.partial(sharding.on_mesh, mesh), sharding.replicated(mesh)
    self._fix = jax.jit(on_mesh(functools.partial(fix, task)))
    self._step = jax.jit(on_mesh(functools.partial(step, task, schedule)),
                         out_shardings=(replicated, None))

  def __call__(self, params, frozen, batch, noise, tracks, guidance, shift, stepped):
    """Integrates from noise to data; `stepped` is called after each step, with the device at rest,
    and what it raises ends the work. Other arguments and result as sampler.generate's."""
    task, schedule, kept = self._task, self._task.schedule, None
    fixed = self._fix(params, frozen, batch, noise)
    times = {name: flow.time_grid(schedule.steps, shift[name]) for name in task.generate}
    x = {name: noise[name] for name in task.generate}
    for n in range(schedule.steps):
      t, t_next = ({name: grid[k] for name, grid in times.items()} for k in (n, n + 1))
      x, kept = self._step(params, frozen, fixed, tracks, guidance, x, t, t_next,
                           kept if n % schedule.refresh else None)
      jax.block_until_ready(x)
      stepped()
    return x
