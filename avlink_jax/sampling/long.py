"""Clips with more windows than a batch: in passes of a batch, so that memory does not grow with it.

The state is one flat array a modality (windows.Track), on the host. Each evaluation goes through
the windows batch by batch and averages their velocities where they overlap, as sampler.generate
does for those of one batch: one trajectory for the complete clip.
"""

import functools

import jax
import numpy as np

from avlink_jax import flow
from avlink_jax.sampling.velocity import evaluate, fix
from avlink_jax.sampling.windows import Sum
from avlink_jax.training import sharding

EVALUATIONS = {  # of the velocity, in so many steps
    'euler': lambda steps: steps, 'midpoint': lambda steps: 2 * steps,
    'heun': lambda steps: 2 * steps - 1}


class Rows:
  """Rows of an endless array that is drawn in order, of which only what is asked for is kept.

  Args: draw: count -> the next rows (count, ...).
  """

  def __init__(self, draw):
    self._draw, self._first, self._rows = draw, 0, draw(0)

  def __call__(self, index):
    """Rows of windows, index (W, T) -> (W, T, ...); none before its first is asked for again."""
    missing = index.max() + 1 - self._first - len(self._rows)
    kept = self._rows[index.min() - self._first:]
    self._rows = np.concatenate([kept, self._draw(max(0, missing))])
    self._first = index.min()
    return self._rows[index - self._first]


class Passes:
  """Sampling and decoding of one clip's windows, `size` at a time; compiled once."""

  def __init__(self, task, mesh, size):
    self._task, self._mesh, self._size = task, mesh, size
    on_mesh, replicated = functools.partial(sharding.on_mesh, mesh), sharding.replicated(mesh)
    self._fix = jax.jit(on_mesh(functools.partial(fix, task)))
    self._evaluate = jax.jit(on_mesh(functools.partial(evaluate, task, task.schedule)),
                             out_shardings=(replicated, None))

  def generate(self, params, frozen, batches, start, tracks, guidance, report,
               stepped=lambda: None):
    """Integrates from noise to data.

    Args:
      params, frozen, guidance: as sampler.generate's.
      batches: iterable of (batch, noise) of `split`'s windows, as sampler.generate's.
      start: {name: X_0 (rows, ...)} of generated modalities.
      tracks: {name: Track} of them.
      report: called with the number of windows that are done since its last call.
      stepped: called after each pass of an evaluation; what it raises ends the work.
    Returns:
      {name: X_1 (rows, ...)}.
    """
    task, schedule = self._task, self._task.schedule
    fixed = (self._fix(params, frozen, *self._rows(part)) for part in batches)
    stand = schedule.refresh >= schedule.steps > 1  # the conditions, after the first evaluation
    indices = {name: self.split(track.index) for name, track in tracks.items()}
    evaluations, done = EVALUATIONS[schedule.solver](schedule.steps), 0

    def velocity(x, t, kept):
      nonlocal done, fixed
      sums, after, seen = {name: Sum(x[name].shape) for name in x}, [], []
      for i, part in enumerate(fixed):
        index = {name: indices[name][i] for name in x}
        velocities, now = self._evaluate(
            params, frozen, part, guidance, self._rows({name: x[name][index[name]] for name in x}),
            t, None if kept is None else kept[i])
        after.append(now)
        if stand and seen:  # of conditions only shapes count from now on: those of one pass do
          part = part.replace(conditions=seen[0].conditions, begun=seen[0].begun)
        seen.append(part)
        for name, v in velocities.items():
          sums[name].add(np.asarray(v)[:len(index[name])], index[name], tracks[name].weight)
        before, done = done, done + len(index[name])
        if windows := done // evaluations - before // evaluations:
          report(windows)
        stepped()
      fixed = seen
      return {name: total.mean() for name, total in sums.items()}, (
          None if after[0] is None else after)

    times = {name: np.asarray(flow.time_grid(schedule.steps, task.config.sample.shift[name]))
             for name in start}
    x, kept, step = start, None, flow.SOLVERS[schedule.solver]
    for n in range(schedule.steps):
      t, t_next = ({name: grid[k] for name, grid in times.items()} for k in (n, n + 1))
      x, kept = step(velocity, x, t, t_next, kept if n % schedule.refresh else None)
    return x

  def decode(self, decode, x, track, masks):
    """Yields the decoded windows (W, T', ...) of each pass, of a modality's X_1 x (rows, ...) with
    this Track and masks (W, T) of all windows; decode: ((W, T, ...), mask) -> (W, T', ...), jitted.
    """
    for index, mask in zip(self.split(track.index), self.split(masks), strict=True):
      yield np.asarray(decode(*self._rows((x[index], mask))))[:len(index)]

  def count(self, values):
    """Number of passes for as many windows as `values` has."""
    return -(-len(values) // self._size)

  def split(self, values):
    """Parts of `values` (W, ...), a pass each."""
    return [values[first:first + self._size] for first in range(0, len(values), self._size)]

  def _rows(self, tree):
    """Arrays of a pass on the mesh, filled up to `size` windows with its last one."""
    def fill(values):
      missing = self._size - len(values)
      return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])

    return sharding.shard_rows(jax.tree.map(fill, tree), self._mesh)
