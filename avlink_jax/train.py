"""Mode `train`: the training loop of every task, top to bottom."""

import contextlib
import functools
import itertools
import json
import os
import pathlib
import tempfile
from collections.abc import Sequence

import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from avlink_jax import build as model_builder
from avlink_jax import tasks
from avlink_jax.codecs.finite import NotFinite
from avlink_jax.data import identity, pipeline
from avlink_jax.errors import Preempted, UserError
from avlink_jax.hardware import compile_cache, precision
from avlink_jax.model import attention
from avlink_jax.sampling.in_training import TrainingSamples
from avlink_jax.storage import bucket, weights
from avlink_jax.storage.atomic import write_text
from avlink_jax.storage.config_versions import complete
from avlink_jax.storage.console import hms, say
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.training import (
    hosts,
    init_from,
    memory,
    mfu,
    programs,
    saved_weights,
    sharding,
    validation_plot,
    wandb_run,
)
from avlink_jax.training.checkpoint import Checkpoints
from avlink_jax.training.data_counts import DataCounts
from avlink_jax.training.log import Log
from avlink_jax.training.profile import Profile
from avlink_jax.training.resilience import config_drift, drift_record, rising_rate
from avlink_jax.training.resilience.bad_numbers import BadNumbers, file_name
from avlink_jax.training.resilience.lock import only_run
from avlink_jax.training.resilience.preemption import Preemption
from avlink_jax.training.resilience.watchdog import Watchdog
from avlink_jax.training.validation import Validation


def train(config: ConfigDict, workdir: str | os.PathLike,
          allow_drift: Sequence[str] = ()) -> dict:
  """Trains `config.task` in `workdir`, from its newest intact checkpoint if there is one.

  `allow_drift`: keys whose values may differ from those that the run was begun with.

  Returns the scores of the final samples. Raises UserError, and Preempted after saving its state.
  """
  config_drift.check_allowed(allow_drift)
  workdir = make_workdir(workdir)
  process = jax.process_index()
  with (only_run(workdir) if process == 0 else contextlib.nullcontext(),
        bucket.Mirror(workdir) as mirror,
        Preemption() as preemption,
        Watchdog(mirror.here, config.train.watchdog_seconds, process) as watchdog):
    return build_and_run(config, workdir, mirror, preemption, watchdog, allow_drift)


def build_and_run(config, workdir, mirror, preemption, watchdog, allow_drift):
  """Builds the task and runs it; everything except checkpoints is written through `mirror`."""
  if config.scale == 'paper' and jax.default_backend() == 'cpu':
    raise UserError('paper scale needs accelerators and this machine has none: '
                    f'try --config=configs/{config.task}.py:nano')
  compile_cache.use(config.compile_cache)
  task = tasks.make(config, model_builder.build(config, precision.of().compute))
  task.check()  # so that a missing vocoder is reported now, not at the first samples
  with memory.advice(memory.for_training, task):
    return run(task, workdir, mirror, preemption, watchdog, allow_drift)


def run(task, workdir, mirror, preemption, watchdog, allow_drift):
  """Runs a task from its newest checkpoint to the final samples; returns their scores."""
  config, models = task.config, task.models
  first = jax.process_index() == 0
  profile = Profile(mirror.here, config.profile.steps, config.train.steps, first)

  # Checkpoint to resume from
  mirror.pull('frozen', 'metrics.jsonl', 'skipped.jsonl', drift_record.FILE,
              file_name(jax.process_index()))
  checkpoints = Checkpoints(workdir, config.checkpoint.keep, config.checkpoint.keep_every)
  start = checkpoints.newest_intact()
  saved = {} if start is None else checkpoints.about(start)
  source = pipeline.open_source(config, models.layout, 'train', task.reads)
  data = identity.of(source)

  def same(key):
    """Tells whether a key names the same data, or the same frozen part, at another place."""
    section, name = key.split('.')
    if section == 'frozen':
      return frozen_parts.same(config, name, mirror.here)
    return data is not None and saved.get('data') == data

  if saved:
    accepted = config_drift.check(
        saved['config'], config.to_dict(), workdir, allow_drift, same, first)
    if notice := rising_rate.notice(complete(saved['config']), config, start):
      say(notice, first)
  if start is not None and start > config.train.steps:
    raise UserError(f'{workdir} is at step {start} already: train.steps={config.train.steps} would '
                    'be a step back')
  if first:
    checkpoints.tidy(start)
    write_text(mirror.here / 'config.json', json.dumps(config.to_dict(), indent=2))
    if saved:
      drift_record.write(mirror.here, start, accepted)

  mesh = sharding.make_mesh(**config.mesh)
  sharding.check_batch(config, mesh)
  say(f'{config.task}, {config.scale}: {len(jax.devices())} {jax.default_backend()} device(s), '
      f'mesh {dict(mesh.shape)}, attention {attention.choose(config.attention)}', first)

  # Data
  pipeline.tell(source, first)
  examples = pipeline.make_examples(source, models.layout, task.readers, config.data)
  say(f'{len(source)} training clips from {config.data.source}', first)

  # Frozen parts and state, sharded
  frozen = frozen_parts.load(config, models, task.frozen_parts, precision.of().frozen, mirror.here,
                             functools.partial(sharding.shardings, mesh=mesh))
  for codec in (modality.codec for modality in models.modalities.values()):
    if codec.reads in task.reads:
      pipeline.check_codec(source, codec, frozen.get(codec.part))
  if first:
    frozen_parts.keep(config, mirror.here, frozen, task.frozen_parts)
  jitted = programs.build(task, mesh, frozen)
  frozen = sharding.shard(frozen, mesh)
  state = jitted.init(frozen)
  say(overview(state.params, frozen), first)
  if start is not None:
    state = checkpoints.restore(state, start)
    say(f'resumed at step {start}, after {hms(saved.get("seconds", 0))} of training', first)
  elif config.train.init_from:
    state = init_from.start(state, config.train.init_from, task)
  start, steps = start or 0, config.train.steps

  counts = DataCounts(saved)
  log = Log(mirror.here, steps, start, first, saved.get('seconds', 0.0), counts.skipped,
            mfu.share_of_peak(config, jitted, mesh.devices.flat),
            wandb_run.start(config, mirror.here) if first else None)
  validation = Validation(task, jitted, mesh, frozen)
  samples = TrainingSamples(task, frozen, mirror.here, mesh)
  pipeline.tell_instead(samples.source, first)
  bad_numbers = BadNumbers(mirror.here, start, config.train.max_bad_steps, jax.process_index())
  mirror.push()
  rows = sharding.local_rows(mesh, config.train.batch_size)
  batches = pipeline.train_batches(
      examples, task.prepare, seed=config.seed, batch_size=config.train.batch_size,
      first_step=start, last_step=steps, rows=rows, threads=config.data.threads)

  def count_together():
    """Counts what all processes found odd in the data, and says what is new."""
    had_silent = bool(counts.silent)
    skipped, silent = counts.meet()
    log.skipped(mirror.here, skipped)
    if silent and not had_silent and not config.data.drop_silent:
      name, lack = silent[0]
      say(f'{name}: {lack}, and is trained on: silent_clips in metrics.jsonl counts such clips, '
          'data.drop_silent leaves them out', first)

  def report(step, metrics, ids):
    """Checks and logs a step's results; waits for its end, while the next one runs already."""
    metrics = jax.device_get(metrics)
    bad_in_a_row = int(metrics['bad_in_a_row'])
    watchdog.step_ended(step)
    profile.ended(step)
    bad_numbers.check(step, bad_in_a_row, ids)
    if step % config.train.log_every == 0 or step == steps:
      count_together()
      log.step(step, {**metrics, **counts.figures(), **pipeline.shares(
          source, config.seed, step * config.train.batch_size)})
    mirror.push(bucket.EVERY)

  def validate(step):
    """Validates on all processes with the sharded weights; the first one writes."""
    with watchdog.paused():
      log.validation(step, validation(state))

  def sample(step):
    """Samples on all processes with the sharded weights; the first one writes and scores."""
    with watchdog.paused():
      if first:
        mirror.pull(f'samples/step_{step}')
      try:
        scores = samples.export(state.ema, state.stats, step, log)
      except NotFinite as error:
        if step == steps:
          raise
        scores = {}  # the run may recover, and is stopped by its bad steps if not
        say(f'no samples of step {step}: {error}', first)
      mirror.push()
      hosts.wait_for_all(f'samples {step}', config.hosts.patience_seconds)
    return scores

  def is_sampled(step):
    every = config.train.sample_every
    return every and step and step % every == 0 and step < steps

  # The run may have been stopped before these; what is written the first process knows.
  validated, scored = hosts.as_the_first(np.array([log.validated(start), log.scored(start)]))
  if validation.due(start) and not validated:
    validate(start)
  if is_sampled(start) and not scored:
    sample(start)
  if missed := profile.missed(start):
    say(missed, first)
  hosts.wait_for_all('first step', config.hosts.patience_seconds)  # gloo waits 30 s for the slowest
  pending, leave = None, False  # results of the last step that are not reported yet
  for step, (batch, meta) in zip(itertools.count(start + 1), batches, strict=False):
    batch = sharding.shard_batch(batch, mesh, config.train.batch_size)
    with jax.transfer_guard(config.train.transfer_guard):
      with profile.step(step):
        state, metrics = jitted.update(state, frozen, batch)
      if pending:
        report(*pending)
    counts.add(step, rows, meta)
    if jax.process_count() == 1:
      count_together()  # and not only when it is logged
    pending = (step, metrics, meta.ids)
    leave = preemption.reached(step)
    save = step % config.checkpoint.every == 0 or step == steps or leave
    # A resumed run will not report steps before its checkpoint.
    if save or is_sampled(step) or validation.due(step):
      report(*pending)
      pending = None
    if save:
      count_together()
      log.sync()
      mirror.push()
      checkpoints.save(step, state, {
          'config': config.to_dict(), 'seconds': log.seconds, 'data': data,
          **counts.as_saved()})
    if leave:
      break
    if validation.due(step):
      validate(step)
    if is_sampled(step):
      sample(step)

  profile.close()
  checkpoints.close()
  if leave:
    log.close()
    raise Preempted(f'{workdir}: saved at step {step} of {steps}, as it was asked to leave: start '
                    'the same command again to go on')
  exported = hosts.gather({'params': state.ema, 'stats': state.stats})
  if first:
    if names := saved_weights.not_finite(exported):
      raise UserError(f'{workdir}: the weights are not finite ({names[0]}) and are not exported: '
                      'python -m avlink_jax.export writes those of an earlier checkpoint')
    weights.save(mirror.here / weights.OF_RUN, exported,
                 {'task': config.task, 'scale': config.scale, 'steps': steps,
                  'seed': config.seed, 'config': json.dumps(config.to_dict())})
    validation_plot.write(mirror.here)
  scores = sample(steps)
  log.close()
  return scores


def make_workdir(workdir):
  """Creates the folder, and returns its path or, in a bucket, its address, where the lock is the
  first object written. Raises UserError: it cannot be written to."""
  if bucket.is_bucket(workdir):
    return bucket.absolute(workdir)
  workdir = pathlib.Path(workdir)
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=workdir):
      return workdir
  except OSError as error:
    raise UserError(f'{workdir}: cannot write the workdir ({error.strerror})') from None


def overview(params, frozen):
  """Text with clu's table of trainable parameters, and the number of frozen ones."""
  table = parameter_overview.get_parameter_overview(params, include_stats=False)
  count = sum(x.size for x in jax.tree.leaves(frozen))
  return f'trainable parameters:\n{table}\nfrozen parameters: {count:,}'
