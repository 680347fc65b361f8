"""The training loop, top to bottom: one for every task."""

import collections
import functools
import itertools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
from clu import parameter_overview

from avlink_jax import models as model_builder
from avlink_jax import tasks, weights
from avlink_jax.codecs import vocoder
from avlink_jax.data import pipeline
from avlink_jax.errors import UserError
from avlink_jax.model import attention
from avlink_jax.sample import export_samples
from avlink_jax.training import checkpoint, sharding
from avlink_jax.training import step as training
from avlink_jax.training.log import Log


def train(config, workdir):
  """Trains `config.task` in `workdir`, from its newest checkpoint where there is one."""
  workdir = prepare_workdir(config, workdir)
  on_cpu = jax.default_backend() == 'cpu'
  if config.scale == 'paper' and on_cpu:
    raise UserError('paper scale needs accelerators and this machine has none: '
                    f'try --config=configs/{config.task}.py:nano')
  models = model_builder.build(config, jnp.float32 if on_cpu else jnp.bfloat16)
  task = tasks.make(config, models)
  if isinstance(task, tasks.FlowTask):  # what is needed late had better be missed early
    models.text.check('')
    if 'audio' in task.generate:
      vocoder.load(config, models.layout.mel)
  first = jax.process_index() == 0
  mesh = sharding.make_mesh(**config.mesh)
  say(f'{config.task}, {config.scale}: {len(jax.devices())} {jax.default_backend()} device(s), '
      f'mesh {dict(mesh.shape)}, attention {attention.choose(config.attention)}')

  # Data
  source = pipeline.open_source(config, models.layout, 'train', task.reads)
  examples = pipeline.Examples(source, models.layout, task.reads, config.data.cache_bytes,
                               config.data.min_seconds, config.data.max_broken)
  say(f'{len(source)} training clips from {config.data.source}')

  # Frozen parts and state, made sharded
  frozen = weights.load_frozen(config, models, task.frozen_parts,
                               None if on_cpu else jnp.bfloat16, workdir)
  if first:
    weights.keep_frozen(workdir, frozen, task.frozen_parts)
  frozen = sharding.put(frozen, mesh)
  optimizer = training.make_optimizer(config)
  init = functools.partial(training.init, task, optimizer, config.seed)
  placement = sharding.shardings(jax.eval_shape(init, frozen), mesh)
  state = jax.jit(init, out_shardings=placement)(frozen)
  if config.train.init_from:
    state = start_from(state, config.train.init_from, task)
  if first:
    say(overview(state.params, frozen))

  checkpoints = checkpoint.Checkpoints(workdir, config.checkpoint.keep)
  if checkpoints.latest_step is not None:
    state = checkpoints.restore(state)
    say(f'resumed at step {int(state.step)}')
  start, steps = int(state.step), config.train.steps

  update = jax.jit(functools.partial(training.train_step, task, optimizer, config),
                   donate_argnums=0, out_shardings=(placement, None))
  log = Log(workdir, steps, start, write=first)
  skipped = collections.Counter()
  batches = pipeline.train_batches(
      examples, models.text.prepare, seed=config.seed, batch_size=config.train.batch_size,
      first_step=start, last_step=steps, process=jax.process_index(),
      processes=jax.process_count(), threads=config.data.threads)

  pending = None  # metrics of a step are fetched while the next one runs
  for step, (batch, meta) in zip(itertools.count(start + 1), batches, strict=False):
    state, metrics = update(state, frozen, sharding.put_batch(batch, mesh))
    log.skipped(workdir, [row for row in dict.fromkeys(meta.skipped) if row not in skipped])
    skipped.update(meta.skipped)
    if pending is not None:
      log.step(*pending)
      pending = None
    if step % config.train.log_every == 0 or step == steps:
      pending = (step, {**metrics, 'skipped_clips': len(skipped),
                        'replaced_examples': skipped.total()})
    if step % config.checkpoint.every == 0 or step == steps:
      checkpoints.save(step, state)
    if config.train.sample_every and step % config.train.sample_every == 0 and step < steps:
      export_samples(task, state.ema, state.stats, frozen, config, workdir, step, log)
  if pending is not None:
    log.step(*pending)

  checkpoints.close()
  if first:
    weights.save(workdir / 'weights.safetensors', {'params': state.ema, 'stats': state.stats},
                 {'task': config.task, 'scale': config.scale, 'steps': steps,
                  'seed': config.seed, 'config': json.dumps(config.to_dict())})
  scores = export_samples(task, state.ema, state.stats, frozen, config, workdir, steps, log)
  log.close()
  return scores


def start_from(state, given, task):
  """The State with the weights of an earlier run, as far as names and shapes are the same; says
  what was taken and what begins anew."""
  path = pathlib.Path(given)
  tree, _ = weights.read(path / 'weights.safetensors' if path.is_dir() else path)
  sampled = task.sampled(state.params)
  merged, taken, left = weights.overlay(sampled, tree['params'])
  if not taken:
    raise UserError(f'train.init_from={given}: nothing in it fits this model')
  say(f'{len(taken)} arrays from {given}; {len(left)} begin anew'
      + (f', such as {left[0]}' if left else ''))
  whole = merged if sampled is state.params else {**state.params, task.players[-1]: merged}
  return state.replace(params=whole, ema=jax.tree.map(jnp.copy, merged))


def prepare_workdir(config, workdir):
  """Makes the folder and writes config.json."""
  workdir = pathlib.Path(workdir)
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / 'config.json').write_text(json.dumps(config.to_dict(), indent=2))
  except OSError as error:
    raise UserError(f'{workdir}: cannot write the workdir ({error.strerror})') from None
  return workdir


def overview(params, frozen):
  """clu's table of trainable parameters, and the count of frozen ones."""
  table = parameter_overview.get_parameter_overview(params, include_stats=False)
  count = sum(x.size for x in jax.tree.leaves(frozen))
  return f'trainable parameters:\n{table}\nfrozen parameters: {count:,}'


def say(text):
  """A line for the person who watches, from the first process only."""
  if jax.process_index() == 0:
    print(text, file=sys.stderr, flush=True)
