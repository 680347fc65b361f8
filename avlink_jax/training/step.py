"""One step of training: read, gradients, update. A pure function of (state, frozen, batch)."""

import functools

import flax
import jax
import jax.numpy as jnp
import optax

# Steps whose gradients were clipped; steps void because of a number that is not finite, in all
# and without a sound one in between.
COUNTS = ('clipped_steps', 'bad_steps', 'bad_in_a_row')


@flax.struct.dataclass
class State:
  """Everything that training changes, saved and restored as one thing.

  step: int32 (), steps taken. params: trainable, float32. ema: their moving average, what is
  sampled from. stats: running statistics of the task. counts: int32 () each, `COUNTS`.
  """
  step: jax.Array
  params: dict
  ema: dict
  stats: dict
  optimizer: optax.OptState
  counts: dict = flax.struct.field(
      default_factory=lambda: {name: jnp.zeros((), jnp.int32) for name in COUNTS})


def learning_rate(config):
  """Linear warm-up to `train.learning_rate`, then constant (App. C.1), or decayed to zero along
  a cosine over the last `train.decay_steps` steps."""
  train = config.train
  schedule = (  # of 0 steps optax makes a rate of 0 for good
      optax.warmup_constant_schedule(0.0, train.learning_rate, train.warmup_steps)
      if train.warmup_steps else optax.constant_schedule(train.learning_rate))
  if not train.decay_steps:
    return schedule
  decay_steps = min(train.decay_steps, train.steps)
  decay = optax.cosine_decay_schedule(1.0, decay_steps)
  first = train.steps - decay_steps
  # optax's cosine goes on to the left of 0, so the count starts at `first`.
  return lambda step: schedule(step) * decay(jnp.maximum(step - first, 0))


def make_optimizer(config):
  """AdamW after clipping by global norm (App. C.1)."""
  train = config.train
  return optax.chain(
      optax.clip_by_global_norm(train.clip_norm),
      optax.adamw(learning_rate(config), b1=train.beta1, b2=train.beta2, eps=train.epsilon,
                  weight_decay=train.weight_decay))


def init(task, optimizer, seed, frozen):
  """State at step 0, from the run's seed and, for what is fine-tuned, the frozen trees."""
  params = task.init(jax.random.key(seed), frozen)
  return State(step=jnp.zeros((), jnp.int32), params=params,
               ema=jax.tree.map(jnp.copy, task.exported(params)), stats=task.init_stats(),
               optimizer={group or 'all': optimizer.init(own_part(params, group))
                          for group in task.groups or (None,)})


def own_part(params, group):
  """The parameters that a group's loss trains; all of them where there are no groups."""
  return params if group is None else params[group]


def part_of(i, parts):
  """Takes part i of `parts` of anything with examples first: every parts-th example, so that what
  lies on a device is divided there."""
  def take(x):
    x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:])
    return jax.lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False)

  return take


def gradients_of(loss, own, parts):
  """((value, aux), gradients) of `loss(own, part)`, one part of the batch after another; the sum of
  their losses is the loss of the whole, and so with the rest. part: None where there is one."""
  of_part = jax.value_and_grad(loss, has_aux=True)
  if parts == 1:
    return of_part(own, None)
  one = lambda i: of_part(own, part_of(i, parts))  # noqa: E731
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, 0))
  add = lambda total, i: (jax.tree.map(jnp.add, total, one(i)), None)  # noqa: E731
  return jax.lax.scan(add, zeros, jnp.arange(parts))[0]


def train_step(task, optimizer, config, state, frozen, batch):
  """(State, metrics) after one update. All randomness comes from (seed, step).

  Gradients exist for `state.params` alone: the frozen trees are not differentiated. Groups
  (generator, discriminator) move one after another, each against the others' newest parameters;
  what their losses compute alike is computed once, since it is one program.

  Where a loss or a gradient's norm is not finite the step is void: it counts itself and changes
  nothing else. Both are sums over all devices, so that all hosts decide alike.
  """
  key = jax.random.fold_in(jax.random.key(config.seed), state.step)
  params, stats, optimizers, metrics = state.params, state.stats, {}, {}
  finite, clipped = True, False
  for group in task.groups or (None,):

    def loss(own, part, params=params, stats=stats, group=group):
      whole = own if group is None else {**params, group: own}
      of = {} if part is None else {'part': part}
      return task.loss(whole, stats, frozen, batch, key, state.step, group, **of)

    own = own_part(params, group)
    (value, (said, stats)), gradients = gradients_of(loss, own, config.train.accumulate)
    name, scale = group or 'all', task.lr_scale(group)
    updates, optimizers[name] = optimizer.update(gradients, state.optimizer[name], own)
    own = optax.apply_updates(own, optax.tree.scale(scale, updates))
    params = own if group is None else {**params, group: own}
    # The last group's loss is what the run is judged by; the others' carry their names.
    prefix = '' if group == (task.groups or (None,))[-1] else f'{group}_'
    norm = optax.global_norm(gradients)
    metrics |= {f'{prefix}loss': value, f'{prefix}grad_norm': norm, **said}
    finite &= jnp.isfinite(value) & jnp.isfinite(norm)
    clipped |= norm > config.train.clip_norm
  # A young average forgets its random start: Polyak's decay grows with the step.
  decay = jnp.minimum(config.train.ema_decay, (1 + state.step) / (10 + state.step))
  ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, state.ema, task.exported(params))
  metrics['learning_rate'] = learning_rate(config)(state.step)
  counts = counted(state.counts, finite, clipped)
  old = (state.params, state.ema, state.stats, state.optimizer)
  new = jax.tree.map(functools.partial(jnp.where, finite), (params, ema, stats, optimizers), old)
  return State(state.step + 1, *new, counts), {**metrics, **counts}


def counted(counts, finite, clipped):
  """`State.counts` after a step that was `finite` and `clipped`, bool () each."""
  one = lambda truth: jnp.asarray(truth, jnp.int32)  # noqa: E731
  return {'clipped_steps': counts['clipped_steps'] + one(finite & clipped),
          'bad_steps': counts['bad_steps'] + one(~finite),
          'bad_in_a_row': (counts['bad_in_a_row'] + 1) * one(~finite)}
