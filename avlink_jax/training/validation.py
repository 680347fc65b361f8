"""Loss on clips that are not trained on, always with the same noise: what shows overfitting.

Clips of the validation split, from places and with noise that do not change during a run. For flow
models at flow times t that divide the law of t in training into equal shares, so that their mean is
comparable with the training loss. Of the averaged weights (`validation/…`), which samples are made
with, and of the raw ones (`validation_raw/…`).
"""

import jax
import numpy as np

from avlink_jax.data import pipeline
from avlink_jax.training import sharding

GROUPS = ('validation', 'validation_raw')  # of the averaged weights, of the raw ones


class Validation:
  """Validation of a run every `validation.every` steps (0: never), and after its last one.

  Args: the run's task, its programs.Programs, mesh, and sharded frozen tree.
  """

  def __init__(self, task, jitted, mesh, frozen):
    c = task.config.validation
    self._task, self._mesh, self._frozen, self._program = task, mesh, frozen, jitted.validate
    self._every, self._count, levels = c.every, c.count, c.levels
    self._shares = (np.arange(levels) + 0.5) / levels
    self._times = task.times(self._shares)
    if not self._times:
      self._shares = self._shares[:1]
    self._source = self._batches = None
    if c.every:
      self._source = pipeline.open_source(
          task.config, task.models.layout, 'validation', task.reads)

  def due(self, step):
    """Tells whether `step` is one after which the run is validated."""
    return bool(self._every) and step > 0 and (
        step % self._every == 0 or step == self._task.config.train.steps)

  def __call__(self, state):
    """Figures of a State, {'validation/loss': …, 'validation/mse_audio/t0.050': …}, on the host."""
    if self._batches is None:
      self._batches = list(self._load())
    trees = state.ema, self._task.exported(state.params)
    return {f'{group}/{name}': value for group, params in zip(GROUPS, trees, strict=True)
            for name, value in self._figures(params, state.stats).items()}

  def _figures(self, params, stats):
    """Means {metric: …} over batches and flow times, and of each time {metric/tT: …}."""
    results = []
    for number, batch in enumerate(self._batches):
      batch = sharding.shard_batch(batch, self._mesh, self._size)
      results.append([self._program(params, stats, self._frozen, batch, *sharding.shard(
          (np.int32(number), np.float32(share)), self._mesh)) for share in self._shares])
    results = jax.device_get(results)
    table = {name: np.array([[float(at[name]) for at in batch] for batch in results])
             for name in results[0][0]}  # (batches, times) each
    figures = {name: float(values.mean()) for name, values in table.items()}
    for name, times in self._times.items():
      figures |= {f'{name}/t{t:.3f}': float(value)
                  for t, value in zip(times, table[name].mean(axis=0), strict=True)}
    return figures

  @property
  def _size(self):
    """Examples of a batch: no more than a training step has at a time, and whole shards."""
    train, unit = self._task.config.train, sharding.batch_shards(self._mesh)
    most = train.batch_size // train.accumulate
    return min(most, -(-self._count // unit) * unit)

  def _load(self):
    """Yields the batches, of each the rows that this process needs. Where there are fewer clips
    than that takes, some count twice."""
    config, models, size = self._task.config, self._task.models, self._size
    examples = pipeline.make_examples(
        self._source, models.layout, self._task.readers, config.data)
    for first in range(0, max(self._count // size, 1) * size, size):
      rows = first + sharding.local_rows(self._mesh, size)
      yield pipeline.collate(
          [examples(int(row) % len(self._source), (config.data.seed, int(row))) for row in rows],
          self._task.prepare)[0]
