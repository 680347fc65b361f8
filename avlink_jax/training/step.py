"""Training step: gradients and update, a pure function of (state, frozen, batch)."""

import re

import flax
import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

from avlink_jax.errors import UserError

# Steps with clipped gradients; steps skipped because a value was not finite, in all and in a row.
COUNTS = ('clipped_steps', 'bad_steps', 'bad_in_a_row')


@flax.struct.dataclass
class State:
  """Everything that training changes; saved and restored together.

  step: int32 (), steps taken. params: trainable, float32. ema: their moving average, used for
  samples. stats: the task's running statistics. counts: {name in `COUNTS`: int32 ()}.
  """
  step: jax.Array
  params: dict
  ema: dict
  stats: dict
  optimizer: optax.OptState
  counts: dict = flax.struct.field(
      default_factory=lambda: {name: jnp.zeros((), jnp.int32) for name in COUNTS})


def learning_rate(config):
  """Schedule: linear warm-up to `train.learning_rate`, then constant (App. C.1), with cosine decay
  to zero over the last `train.decay_steps` steps, if any."""
  train = config.train
  schedule = (  # with 0 warm-up steps optax would return 0 forever
      optax.warmup_constant_schedule(0.0, train.learning_rate, train.warmup_steps)
      if train.warmup_steps else optax.constant_schedule(train.learning_rate))
  if not train.decay_steps:
    return schedule
  decay_steps = min(train.decay_steps, train.steps)
  decay = optax.cosine_decay_schedule(1.0, decay_steps)
  first = train.steps - decay_steps
  # optax's cosine is not constant for negative counts, hence the maximum.
  return lambda step: schedule(step) * decay(jnp.maximum(step - first, 0))


def make_optimizer(config):
  """Optimiser after clipping by global norm: AdamW (App. C.1), or Muon (arXiv:2502.16982) of weight
  matrices, with Nesterov's AdamW of all else."""
  train, rate = config.train, learning_rate(config)
  if train.optimizer == 'muon':
    # Its updates get the size that AdamW's have (root mean square), so that one rate serves both.
    update = muon(rate, consistent_rms=0.2, eps=train.epsilon, weight_decay=train.weight_decay,
                  muon_weight_dimension_numbers=matrices,
                  adam_b1=train.beta1, adam_b2=train.beta2, adam_weight_decay=train.weight_decay)
  else:
    update = optax.adamw(rate, b1=train.beta1, b2=train.beta2, eps=train.epsilon,
                         weight_decay=train.weight_decay)
  update = optax.chain(optax.clip_by_global_norm(train.clip_norm), update)
  if not train.only:
    return update
  return optax.partition({True: update, False: optax.set_to_zero()},
                         lambda params: jax.tree_util.tree_map_with_path(
                             lambda path, _: chosen(train.only, path), params))


def chosen(only, path):
  """Tells whether the parameter at `path` of a tree is trained: whether the regular expression
  `only` is found in its name, such as blocks/mlp/Dense_0/kernel."""
  return bool(re.search(only, jax.tree_util.keystr(path, simple=True, separator='/')))


def held(only, params):
  """`params`, with no gradient through those that are not trained, and no work for one."""
  if not only:
    return params
  return jax.tree_util.tree_map_with_path(
      lambda path, x: x if chosen(only, path) else jax.lax.stop_gradient(x), params)


def matrices(params):
  """Marks the weight matrices of a tree: each leaf's axes (in, out), or None where it has no two.

  Kernels of dense layers are (in, out); stacked `blocks` (dit.py, fusion.py) have (depth, in, out),
  each block a matrix by itself. Convolutions' are none.
  """
  def mark(path, leaf):
    keys = [part.key for part in path]
    if keys[-1:] != ['kernel'] or leaf.ndim != 2 + ('blocks' in keys):
      return None
    return MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1)

  return jax.tree_util.tree_map_with_path(mark, params)


def init(task, optimizer, seed, frozen):
  """State at step 0, from the run's seed and, for fine-tuned parts, the frozen trees.

  Raises UserError: no parameter is trained."""
  params = task.init(jax.random.key(seed), frozen)
  if only := task.config.train.only:
    names = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    if not any(chosen(only, path) for path in names):
      name = jax.tree_util.keystr(names[0], simple=True, separator='/')
      raise UserError(f'train.only={only}: no parameter has that in its name, such as {name}')
  return State(step=jnp.zeros((), jnp.int32), params=params,
               ema=jax.tree.map(jnp.copy, task.exported(params)), stats=task.init_stats(),
               optimizer={group or 'all': optimizer.init(group_params(params, group))
                          for group in task.groups or (None,)})


def group_params(params, group):
  """Parameters that a group's loss trains; all of them without groups."""
  return params if group is None else params[group]


def part_of(i, parts):
  """Function that selects part i of `parts` of an array (B, …): every parts-th example, so that
  each device splits its own examples."""
  def take(x):
    x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:])
    return jax.lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False)

  return take


def gradients_of(loss, params, parts):
  """Sums ((value, aux), gradients) of `loss(params, part)` over the parts of a batch, one after
  another. part: as `part_of` returns it, None if there is only one."""
  value_and_grad = jax.value_and_grad(loss, has_aux=True)
  if parts == 1:
    return value_and_grad(params, None)
  of_part = lambda i: value_and_grad(params, part_of(i, parts))  # noqa: E731
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_part, 0))
  add = lambda total, i: (jax.tree.map(jnp.add, total, of_part(i)), None)  # noqa: E731
  return jax.lax.scan(add, zeros, jnp.arange(parts))[0]


def train_step(task, optimizer, config, state, frozen, batch):
  """Takes one step: (State, metrics). All randomness comes from (seed, step).

  Only `state.params` get gradients, not the frozen trees. Groups (generator, discriminator) are
  updated in order, each with the others' newest parameters; XLA shares what their losses have in
  common, since it is one program.

  If a loss or a gradient's norm is not finite, the step is skipped: only counts change, and the
  learning rate goes on in its schedule. Both are sums over all devices, so all hosts decide alike.
  """
  key = jax.random.fold_in(jax.random.key(config.seed), state.step)
  params, stats, optimizers, metrics = state.params, state.stats, {}, {}
  finite, clipped = True, False
  for group in task.groups or (None,):

    def loss(trained, part, params=params, stats=stats, group=group):
      trained = held(config.train.only, trained)
      merged = trained if group is None else {**params, group: trained}
      selected = {} if part is None else {'part': part}
      return task.loss(merged, stats, frozen, batch, key, state.step, group, **selected)

    trained = group_params(params, group)
    (value, (task_metrics, stats)), gradients = gradients_of(
        loss, trained, config.train.accumulate)
    name, scale = group or 'all', task.lr_scale(group)
    updates, optimizers[name] = optimizer.update(gradients, state.optimizer[name], trained)
    trained = optax.apply_updates(trained, optax.tree.scale(scale, updates))
    params = trained if group is None else {**params, group: trained}
    # The last group's loss is the run's main one; the others' metrics have a prefix.
    prefix = '' if group == (task.groups or (None,))[-1] else f'{group}_'
    norm = optax.global_norm(gradients)
    metrics |= {f'{prefix}loss': value, f'{prefix}grad_norm': norm, **task_metrics}
    finite &= jnp.isfinite(value) & jnp.isfinite(norm)
    clipped |= norm > config.train.clip_norm
  # The decay grows with the step, so that the average forgets its random start.
  decay = jnp.minimum(config.train.ema_decay, (1 + state.step) / (10 + state.step))
  # In this form what is not trained stays to the last bit.
  ema = jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), state.ema, task.exported(params))
  metrics['learning_rate'] = learning_rate(config)(state.step)
  counts = counted(state.counts, finite, clipped)
  old = (state.params, state.ema, state.stats, state.optimizer)
  new = taken_if(finite, (params, ema, stats, optimizers), old)
  return State(state.step + 1, *new, counts), {**metrics, **counts}


def taken_if(finite, new, old):
  """`new` where the step is `finite`, else `old`; but the learning rate's place in its schedule is
  that of the run's steps, skipped or not."""
  of_schedule = lambda node: isinstance(node, optax.ScaleByScheduleState)  # noqa: E731
  return jax.tree.map(
      lambda new, old: new if of_schedule(new) else jnp.where(finite, new, old), new, old,
      is_leaf=of_schedule)


def validation_loss(task, seed, params, stats, frozen, batch, number, share):
  """Figures of `task.validate` for batch `number` of the validation set, {metric: scalar}, with the
  noise that belongs to it at every step of the run."""
  key = jax.random.fold_in(jax.random.key(seed), number)
  return task.validate(params, stats, frozen, batch, key, share)


def counted(counts, finite, clipped):
  """Next `State.counts` after a step that was `finite` and `clipped`, bool () each."""
  as_int = lambda flag: jnp.asarray(flag, jnp.int32)  # noqa: E731
  return {'clipped_steps': counts['clipped_steps'] + as_int(finite & clipped),
          'bad_steps': counts['bad_steps'] + as_int(~finite),
          'bad_in_a_row': (counts['bad_in_a_row'] + 1) * as_int(~finite)}
