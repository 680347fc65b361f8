"""One step of training, against closed forms, and what it leaves alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from micro import batch_of, build, frozen_of, micro_config, plain_jit

from avlink_jax.errors import UserError
from avlink_jax.training import step as training


def schedule(**train):
  config = micro_config('t2a')
  config.train.update(**train)
  return training.learning_rate(config)


# The learning rate

def test_the_rate_warms_up_in_a_line_and_then_stands():
  rate = schedule(learning_rate=0.3, warmup_steps=10, decay_steps=0, steps=100)
  for step in (0, 1, 5, 10, 11, 99, 1000):
    assert rate(step) == pytest.approx(0.3 * min(1, step / 10))


@pytest.mark.parametrize('decay_steps', [20, 60, 100, 500])
def test_the_rate_ends_in_half_a_cosine_over_the_last_steps(decay_steps):
  rate = schedule(learning_rate=0.3, warmup_steps=10, decay_steps=decay_steps, steps=100)
  length = min(decay_steps, 100)
  for step in range(101):
    done = max(0, step - (100 - length)) / length
    wanted = 0.3 * min(1, step / 10) * (1 + np.cos(np.pi * done)) / 2
    assert rate(step) == pytest.approx(wanted, abs=1e-6)
    assert rate(jnp.int32(step)) == pytest.approx(wanted, abs=1e-6)
  assert rate(100) == pytest.approx(0, abs=1e-7)


# The optimiser

def adamw(params, gradients, rates, *, beta1, beta2, epsilon, weight_decay, clip):
  """AdamW (Loshchilov & Hutter, Alg. 2) on gradients clipped by their norm, in float64."""
  m = v = np.zeros_like(params)
  for n, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
    g = g * min(1, clip / np.linalg.norm(g))
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    adam = m / (1 - beta1**n) / (np.sqrt(v / (1 - beta2**n)) + epsilon)
    params = params - rate * (adam + weight_decay * params)
  return params


@pytest.mark.parametrize('size', [1e-3, 1.0, 1e3])
def test_the_optimiser_is_adamw_on_clipped_gradients(size):
  config = micro_config('t2a')
  config.train.update(learning_rate=0.1, warmup_steps=2, weight_decay=0.05, clip_norm=0.7)
  rng, optimizer = np.random.default_rng(0), training.make_optimizer(config)
  start = rng.standard_normal(7)
  gradients = size * rng.standard_normal((5, 7)) * np.geomspace(1, 10, 5)[:, None]
  params = jnp.asarray(start, jnp.float32)
  state = optimizer.init(params)
  for g in gradients:
    updates, state = optimizer.update(jnp.asarray(g, jnp.float32), state, params)
    params = optax.apply_updates(params, updates)
  wanted = adamw(start, gradients, [0, 0.05, 0.1, 0.1, 0.1], beta1=0.9, beta2=0.99, epsilon=1e-8,
                 weight_decay=0.05, clip=0.7)
  np.testing.assert_allclose(params, wanted, rtol=1e-4, atol=1e-5)


def test_muon_moves_each_block_by_itself_in_all_directions_alike():
  """Singular values of each matrix's update are equal within what Newton–Schulz leaves, their root
  mean square is AdamW's usual 0.2 of the rate, and a block does not see its neighbours."""
  config = micro_config('t2a')
  config.train.update(optimizer='muon', learning_rate=0.1, warmup_steps=0, weight_decay=0.0)
  optimizer = training.make_optimizer(config)
  rng = np.random.default_rng(0)

  def update(blocks):
    params = {'blocks': {'kernel': jnp.zeros((len(blocks), 12, 8)), 'bias': jnp.zeros(8)}}
    gradients = {'blocks': {'kernel': jnp.asarray(blocks), 'bias': jnp.ones(8)}}
    return optimizer.update(gradients, optimizer.init(params), params)[0]['blocks']

  # Gradients whose directions differ in size by up to 30 times.
  first, second = rng.standard_normal((2, 12, 8)).astype(np.float32) * np.geomspace(1, 30, 8)
  both = update(1e-3 * np.stack([first, second]))
  for block in both['kernel']:
    values = np.linalg.svd(block, compute_uv=False) / (0.1 * 0.2 * np.sqrt(12))
    assert values.min() > 0.6 and values.max() < 1.3, values
  np.testing.assert_allclose(both['kernel'][0], update(2e-3 * first[None])['kernel'][0], atol=1e-5)
  # AdamW's first step with Nesterov's momentum (Dozat, 2016), at beta1 0.9.
  np.testing.assert_allclose(both['bias'], -0.1 * (1 + 0.9 * 0.1 / (1 - 0.9**2)), rtol=1e-4)


def test_muon_takes_the_weight_matrices_of_the_model_and_nothing_else():
  _, task, frozen, *_ = micro('v2a')
  params = jax.eval_shape(lambda frozen: task.init(jax.random.key(0), frozen), frozen)
  marked = jax.tree_util.tree_map_with_path(
      lambda path, leaf, mark: mark == ((1, 2) if path[-1].key == 'kernel' else None),
      params, training.matrices(params), is_leaf=lambda x: hasattr(x, 'shape'))
  assert all(jax.tree.leaves(marked)) and len(jax.tree.leaves(marked)) > 20
  rows = {'video': {'head': {'refine': {'kernel': jnp.zeros((1, 3, 3, 8, 8))}}},
          'embed': {'kernel': jnp.zeros((4, 8))}, 'time': {'bias': jnp.zeros((4, 8))}}
  found = training.matrices(rows)
  assert found['embed']['kernel'] == (0, 1)
  assert found['video']['head']['refine']['kernel'] is found['time']['bias'] is None


# The step, on micro models

@functools.cache
def micro(task_name, **train):
  """(config, task, frozen, state, batch, jitted step) of a micro model."""
  config = micro_config(task_name, **{f'train.{name}': value for name, value in train.items()})
  config.train.update(ema_decay=0.25)  # so that both branches of the decay come in three steps
  models, task = build(config)
  optimizer = training.make_optimizer(config)
  frozen, batch = frozen_of(models), batch_of(models)
  state = plain_jit(lambda frozen: training.init(task, optimizer, 0, frozen))(frozen)
  step = plain_jit(functools.partial(training.train_step, task, optimizer, config))
  return config, task, frozen, state, batch, step


def equal(a, b):
  return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


@functools.cache
def four_steps():
  """States 0 to 4 of V2A, and the metrics between them."""
  _, _, frozen, state, batch, step = micro('v2a')
  states, metrics = [state], []
  for _ in range(4):
    state, made = step(state, frozen, batch)
    states.append(state)
    metrics.append(made)
  return states, metrics


def test_the_average_follows_the_parameters_with_a_growing_memory():
  states, _ = four_steps()
  assert equal(states[0].ema, states[0].params)
  for n, (before, after) in enumerate(zip(states[:-1], states[1:], strict=True)):
    decay = min(0.25, (1 + n) / (10 + n))
    wanted = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * p, before.ema, after.params)
    for e, w in zip(*map(jax.tree.leaves, (after.ema, wanted)), strict=True):
      np.testing.assert_allclose(e, w, atol=1e-6)


@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
def test_with_only_some_parameters_trained_the_others_stay_to_the_last_bit(optimizer):
  _, _, frozen, state, batch, step = micro('t2v', only='^dit/head', optimizer=optimizer)
  began = state
  for _ in range(3):
    state, _ = step(state, frozen, batch)
  moved = {path: not np.array_equal(a, b) for (path, a), b in zip(
      jax.tree_util.tree_leaves_with_path({'params': began.params, 'ema': began.ema}),
      jax.tree.leaves({'params': state.params, 'ema': state.ema}), strict=True)}
  head = {path: 'head' in [part.key for part in path] for path in moved}
  assert not any(moved[path] for path in moved if not head[path])
  assert any(moved.values())
  # And none of the optimiser's moments are kept for them.
  size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
  assert size(state.optimizer) < size(state.params['dit']['blocks'])


def test_no_gradient_is_computed_of_what_is_not_trained():
  params = {'kept': jnp.ones(3), 'moved': jnp.ones(3)}
  loss = lambda params: jnp.sum(jnp.sin(training.held('moved', params)['kept'])  # noqa: E731
                                * training.held('moved', params)['moved'])
  gradients = jax.grad(loss)(params)
  assert not np.any(gradients['kept'])
  np.testing.assert_allclose(gradients['moved'], np.sin(1), rtol=1e-6)
  assert 'cos' not in str(jax.make_jaxpr(jax.grad(loss))(params))


def test_a_name_that_no_parameter_has_is_told_with_one_that_there_is():
  with pytest.raises(UserError, match='train.only=vidoe: no parameter has that .*/'):
    micro('t2v', only='vidoe')


def test_a_step_counts_itself_and_tells_its_rate_and_losses():
  config = micro('v2a')[0]
  states, metrics = four_steps()
  assert [int(s.step) for s in states] == [0, 1, 2, 3, 4]
  for n, made in enumerate(metrics):
    assert made['learning_rate'] == pytest.approx(config.train.learning_rate * min(1, n / 2))
    assert made['loss'] == made['mse_audio'] and 'mse_video' not in made
    assert np.isfinite(made['grad_norm']) and made['grad_norm'] > 0


def test_only_the_fusion_blocks_are_trained():
  """State and optimiser know of nothing else; each parameter moves; the frozen trees do not."""
  _, task, frozen, _, _, _ = micro('v2a')
  kept = jax.tree.map(np.copy, frozen)
  states, _ = four_steps()
  fusion = task.models.link.init
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
  size = count(jax.eval_shape(fusion, jax.random.key(0)))
  assert count(states[-1].params) == count(states[-1].ema) == size
  moments = [x for x in jax.tree.leaves(states[-1].optimizer) if x.ndim]
  assert count(moments) == 2 * size
  assert task.frozen_parts == ('codec', 'audio', 'video') and equal(frozen, kept)
  for path, start in jax.tree_util.tree_leaves_with_path(states[0].params):
    end = functools.reduce(lambda tree, k: tree[k.key], path, states[-1].params)
    assert not np.array_equal(start, end), jax.tree_util.keystr(path)


def test_the_same_seed_and_step_give_the_same_step_bit_for_bit():
  _, _, frozen, _, batch, step = micro('v2a')
  states, metrics = four_steps()
  again, made = step(states[2], frozen, batch)
  assert equal(again, states[3]) and equal(made, metrics[2])


def test_another_step_draws_other_noise():
  _, _, frozen, state, batch, step = micro('v2a')
  _, first = step(state, frozen, batch)
  _, later = step(state.replace(step=state.step + 5), frozen, batch)
  assert first['loss'] != later['loss']


# Bad numbers

def at_step(state, step):
  """The state, with the step and the learning rate's place in its schedule at `step`."""
  of_schedule = lambda node: isinstance(node, optax.ScaleByScheduleState)  # noqa: E731
  optimizer = jax.tree.map(
      lambda node: node._replace(count=step) if of_schedule(node) else node, state.optimizer,
      is_leaf=of_schedule)
  return state.replace(step=step, optimizer=optimizer)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_step_whose_loss_or_gradient_is_not_finite_changes_nothing(bad):
  """But that it is counted, and the learning rate's schedule goes on with the run's steps; the next
  one is as if it had not been."""
  _, _, frozen, _, batch, step = micro('v2a')
  state = four_steps()[0][2]
  mel = batch['mel'].copy()
  mel[1, 3, 5] = bad
  for n in (1, 2):
    after, metrics = step(state, frozen, batch | {'mel': mel})
    assert not np.isfinite(metrics['loss'])
    assert equal(at_step(after, state.step).replace(counts=state.counts), state)
    assert not equal(after.optimizer, state.optimizer)
    assert int(after.step) == int(state.step) + 1
    assert (after.counts['bad_steps'], after.counts['bad_in_a_row']) == (n, n)
    assert metrics['bad_in_a_row'] == n
    state = after
  after, metrics = step(state, frozen, batch)
  assert np.isfinite(metrics['loss'])
  assert (after.counts['bad_steps'], after.counts['bad_in_a_row']) == (2, 0)
  wanted, _ = step(at_step(four_steps()[0][2], state.step), frozen, batch)
  assert equal(after.replace(counts=wanted.counts), wanted)


def test_clipped_gradients_are_counted():
  """The limit is one that some of the four steps pass and some do not."""
  clip = micro('v2a')[0].train.clip_norm
  _, metrics = four_steps()
  spikes = [made['grad_norm'] > clip for made in metrics]
  assert 0 < sum(spikes) < 4
  assert [int(made['clipped_steps']) for made in metrics] == list(np.cumsum(spikes))


@pytest.mark.slow
def test_another_seed_draws_other_noise():
  config, task, frozen, state, batch, step = micro('v2a')
  other = config.copy_and_resolve_references()
  other.seed = 1
  reseeded = plain_jit(functools.partial(
      training.train_step, task, training.make_optimizer(other), other))
  assert reseeded(state, frozen, batch)[1]['loss'] != step(state, frozen, batch)[1]['loss']


@pytest.mark.parametrize(
    'task_name', [pytest.param('mel_vae', marks=pytest.mark.slow), 't2a', 'v2a'])
def test_the_loss_falls_on_one_batch(task_name):
  _, task, frozen, state, batch, step = micro(task_name)
  player = 'generator' if task.groups else None  # the adversary's has no way to fall for good
  loss = plain_jit(lambda params: jnp.stack([  # the same noise before and after
      task.loss(params, state.stats, frozen, batch, jax.random.key(k), 0, player)[0]
      for k in (1, 2)]).mean())
  start = loss(state.params)
  for _ in range(30):
    state, _ = step(state, frozen, batch)
  assert loss(state.params) < 0.97 * start
  averaged = state.ema if player is None else {**state.params, player: state.ema}
  assert np.isfinite(loss(averaged))


def test_padding_has_no_part_in_the_loss():
  """Pictures where a clip is not, in the batch's last example, are never looked at."""
  _, task, frozen, _, batch, _ = micro('v2a')
  params = four_steps()[0][-1].params
  loss = plain_jit(lambda video: task.loss(
      params, {}, frozen, batch | {'video': video}, jax.random.key(0))[0])
  real = batch['video_mask'][..., None, None, None]
  wanted = loss(batch['video'])
  assert loss(np.where(real, batch['video'], 255).astype(np.uint8)) == pytest.approx(
      float(wanted), rel=1e-6)
  assert abs(loss(np.where(real, 255 - batch['video'], batch['video'])) - wanted) > 1e-4 * wanted


@pytest.mark.parametrize('name', ['audio', 'video'])
def test_a_latent_that_is_partly_real_is_real(name):
  """Masks of data steps from masks of mel frames; the last may hang over the clip's end."""
  task = micro('v2a')[1]
  stride = task.models.modalities['audio'].codec.vae.stride if name == 'audio' else 1
  for length in range(1, 10):
    mask = np.arange(10 * stride - 1) < length
    made = task.mask({f'{name}_mask': mask[None]}, name)[0]
    np.testing.assert_array_equal(made, np.arange(len(made)) < -(-length // stride))
