"""Every switch of the paper's ablations trains and samples, through one and the same step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from micro import (
  batch_of,
  build,
  frozen_of,
  micro_config,
  noise_of,
  quick_jit,
  sampling,
  state_of,
)

from avlink_jax import build as model_builder
from avlink_jax import flow, tasks
from avlink_jax.build import example_shapes
from avlink_jax.errors import UserError
from avlink_jax.model.tower import Input
from avlink_jax.training import step as training

LAW = {'flow.condition_law': 'uniform', 'flow.location.video': -0.5, 'flow.scale': 0.5}
FEATURES = {'towers.video.features': 5}
CACHED = {'fusion.reinject': False}
TUNED = {'fusion.finetune': True}
CROSS, TEXT, ADD = ({'fusion.injection': kind} for kind in ('cross', 'text', 'add'))
RUN = {  # compiled and run; switches that have nothing to do with each other at once, to save time
    'features': ('v2a', FEATURES),
    'cached, after': ('v2a', CACHED | {'fusion.placement': 'after:1'}),
    'text, tuned': ('v2a', TEXT | TUNED),
    'add': ('v2a', ADD),
    'a2v, cross, law': ('a2v', CROSS | LAW),
    'a2v, add, tuned': ('a2v', ADD | TUNED),
    'joint': ('joint', {}),
    'av': ('av', {}),
}
TRACED = {  # their shapes and types alone, as compiling each would take minutes
    'fusion': ('v2a', {}),  # run in test_step.py
    'law and placement': ('v2a', LAW | {'fusion.placement': 'after:2'}),
    'cached': ('v2a', CACHED),
    'cross': ('v2a', CROSS),
    'text': ('v2a', TEXT),
    'add, tuned': ('v2a', ADD | TUNED),
    'features, cached': ('v2a', FEATURES | CACHED),
    'features, cross': ('v2a', FEATURES | CROSS),
    'features, text, tuned': ('v2a', FEATURES | TEXT | TUNED),
    'features, add': ('v2a', FEATURES | ADD),
    'cross, cached, after': ('v2a', CROSS | CACHED | {'fusion.placement': 'after:1'}),
    'a2v, cached': ('a2v', CACHED),
    'a2v, text, tuned': ('a2v', TEXT | TUNED),
    'joint, cross, tuned': ('joint', CROSS | TUNED),
    'av, tuned': ('av', TUNED),
}
# Leaves without a gradient: the way back of a stream that nothing looks at any more. Where the
# conditioning stream is reinjected, only the last Fusion Block's is not used, and the leaf stacks
# all of them.
UNUSED = {
    'cached, after': {"['blocks']['out_1']"},
}


def path_of(leaf_path):
  return jax.tree_util.keystr(leaf_path)


@functools.cache
def frozen_for(features):
  """The same frozen trees for all cases, but that features from outside have no video tower."""
  return frozen_of(build(micro_config('v2a', **FEATURES if features else {}))[0])


@functools.cache
def micro(name):
  """(config, task, frozen, batch, state) of a case; the fusion parameters random all over."""
  task_name, changes = (RUN | TRACED)[name]
  config = micro_config(task_name, **changes)
  models, task = build(config)
  frozen = frozen_for(bool(config.towers.video.features))
  return config, task, frozen, batch_of(models), state_of(task, config, frozen)


@functools.cache
def two_steps(name):
  """States 0 to 2, and the metrics of both steps."""
  config, task, frozen, batch, state = micro(name)
  step = quick_jit(functools.partial(
      training.train_step, task, training.make_optimizer(config), config))
  states, metrics = [state], []
  for _ in range(2):
    state, made = step(state, frozen, batch)
    states.append(state)
    metrics.append(made)
  return states, metrics


@functools.cache
def sampling_of(name, direction):
  """Two Euler steps one way, compiled."""
  return sampling(micro(name)[1].toward(direction), 2)


@pytest.mark.slow
@pytest.mark.parametrize('name', RUN)
def test_every_switch_trains(name):
  task = micro(name)[1]
  states, metrics = two_steps(name)
  for made in metrics:
    assert np.isfinite(made['loss']) and made['loss'] > 0 and np.isfinite(made['grad_norm'])
    assert {key for key in made if key.startswith('mse')} == {f'mse_{n}' for n in task.generate}
  # Adam's first moment of a leaf is zero as long as no gradient came.
  moments = optax.tree_utils.tree_get(states[2].optimizer, 'mu')
  still = {path_of(path) for path, m in jax.tree_util.tree_leaves_with_path(moments)
           if not np.any(m)}
  expected = UNUSED.get(name, set())
  assert all(any(leaf.startswith(part) for part in expected) for leaf in still), still
  assert all(any(leaf.startswith(part) for leaf in still) for part in expected), still


@pytest.mark.slow
@pytest.mark.parametrize('name', RUN)
def test_every_switch_samples(name):
  config, task, frozen, batch, state = micro(name)
  shapes = example_shapes(task.models)
  # Of `joint` one way is enough: that the other is V2A's program is shown in test_directions.py.
  direction = config.generate[-1]
  run = sampling_of(name, direction)
  made, unconditional = (run(state.ema, frozen, batch, guidance=w) for w in (5.0, 0.0))
  assert set(made) == set(direction.split('+'))
  for kind, x in made.items():
    assert x.shape == (4, *shapes[kind]) and np.isfinite(x).all()
    assert not np.allclose(x, unconditional[kind], atol=1e-2)  # the condition says something


@pytest.mark.parametrize('name', RUN | TRACED)
def test_every_switch_fits_together_in_half_precision(name):
  """As accelerators run it, segments recomputed; traced only, where types that do not fit show."""
  config, _, frozen, batch, state = micro(name)
  config = config.copy_and_resolve_references()
  config.remat = 'segment'
  task = tasks.make(config, model_builder.build(config, jnp.bfloat16))
  towers = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16),
                        frozen['towers'])
  loss, _ = jax.eval_shape(lambda params, towers: task.loss(
      params, {}, frozen | {'towers': towers}, batch, jax.random.key(0)), state.params, towers)
  assert loss.dtype == jnp.float32


@pytest.mark.parametrize('name', RUN | TRACED)
def test_what_is_trained_is_the_link_and_what_is_fine_tuned(name):
  config, task, frozen, _, state = micro(name)
  link = 'project' if config.fusion.injection in ('text', 'add') else 'blocks'
  tuned = set(task.generate) if config.fusion.finetune else set()
  assert set(state.params) == ({link, 'towers'} if tuned else {link})
  assert set(state.params.get('towers', {})) == tuned
  for kind in tuned:
    jax.tree.map(np.testing.assert_array_equal, state.params['towers'][kind],
                 frozen['towers'][kind]['dit'])
  size = count(state.params)
  assert count(state.ema) == size
  assert count([m for m in jax.tree.leaves(state.optimizer) if m.ndim]) == 2 * size
  assert set(task.frozen_parts) == {'codec'} | set(frozen['towers'])


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


# Fine-tuning

@pytest.mark.slow
@pytest.mark.parametrize('name, kind', [('text, tuned', 'audio'), ('a2v, add, tuned', 'video')])
def test_a_fine_tuned_tower_starts_as_the_frozen_one_and_moves(name, kind):
  _, task, frozen, _, _ = micro(name)
  states, _ = two_steps(name)
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), {'towers': frozen['towers']})
  begun = quick_jit(lambda: task.init(jax.random.key(0), half)['towers'])()
  assert set(begun) == set(states[0].params['towers']) == {kind}
  frozen = frozen['towers'][kind]['dit']
  for path, start in jax.tree_util.tree_leaves_with_path(begun[kind]):
    of = lambda tree, path=path: functools.reduce(lambda t, k: t[k.key], path, tree)  # noqa: E731
    assert start.dtype == np.float32
    np.testing.assert_allclose(start, of(frozen), rtol=2**-8)
    assert not np.array_equal(of(states[2].params['towers'][kind]), of(frozen)), path_of(path)


@pytest.mark.slow
def test_the_unconditional_pass_is_the_frozen_towers_also_where_it_is_fine_tuned():
  config, task, frozen, batch, _ = micro('text, tuned')
  params = two_steps('text, tuned')[0][2].params
  x = noise_of(task, 4)['audio']

  @quick_jit
  def bare(tower, x, t):
    text = task.models.modalities['audio'].text
    said = text.encode(frozen['towers']['audio']['text'], text.prepare([''] * 4))
    given = Input(x, jnp.full(4, t), *said, task.mask(batch, 'audio'))
    return task.models.towers['audio'].velocity(tower, given)

  tuned_too = x
  times = flow.time_grid(2, config.sample.shift.audio)
  for t, t_next in zip(times[:-1], times[1:], strict=True):
    x = x + (t_next - t) * bare(frozen['towers']['audio']['dit'], x, t)
    tuned_too = tuned_too + (t_next - t) * bare(params['towers']['audio'], tuned_too, t)
  made = sampling_of('text, tuned', 'audio')(params, frozen, batch, guidance=0.0)['audio']
  np.testing.assert_allclose(made, x, atol=1e-4)
  assert not np.allclose(made, tuned_too, atol=1e-2)


def test_the_text_encoder_is_not_fine_tuned():
  _, task = build(micro_config('v2a', **TEXT | TUNED))
  frozen = {'towers': {name: {'dit': f'{name} dit', 'text': f'{name} text'}
                       for name in ('audio', 'video')}}
  assert task.towers({'towers': {'audio': 'tuned'}}, frozen) == {
      'audio': {'dit': 'tuned', 'text': 'audio text'}, 'video': frozen['towers']['video']}


# What is computed once

def products(jaxpr):
  """Matrix products of a computation as it runs: those in a scan as often as it goes round."""
  total = 0
  for equation in jaxpr.eqns:
    total += equation.primitive.name == 'dot_general'
    times = equation.params['length'] if equation.primitive.name == 'scan' else 1
    for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, 'eqns')):
      inner = getattr(inner, 'jaxpr', inner)
      if hasattr(inner, 'eqns'):
        total += times * products(inner)
  return total


@functools.cache
def products_of(name):
  """Matrix products that one more Euler step costs, and those that are made once."""
  _, task, frozen, batch, state = micro(name)

  def made(steps):
    sampled = functools.partial(sampling(task, steps, jit=lambda f: f), state.params, frozen, batch)
    return products(jax.make_jaxpr(sampled)().jaxpr)

  two, three = made(2), made(3)
  return three - two, 3 * two - 2 * three


def test_without_reinjection_the_conditioning_tower_runs_once_a_sample():
  (each, once), (each_cached, once_cached) = map(products_of, ('fusion', 'cached'))
  # A block: qkv, two of attention, out; q, kv, two, out; two of the MLP; modulation. And the
  # embedding: patches, the way past the tower (2), time (2), text (2).
  tower, blocks = 2 * 12 + 7, 2
  assert once_cached - once == tower + blocks  # and the way into each Fusion Block
  # There is no way in and no MLP (2) in a step; queries are apart from keys and values.
  assert each - each_cached == tower + blocks * (1 + 2 - 1)


@pytest.mark.parametrize('name', ['text, tuned', 'add', 'features'])
def test_no_other_conditioning_runs_a_tower_at_each_step(name):
  assert products_of(name)[0] < products_of('fusion')[0] - 2 * 12


@pytest.mark.slow
@pytest.mark.parametrize('name', ['fusion', 'cross', 'cached', 'text, tuned', 'features, cached'])
def test_what_is_kept_is_what_would_be_computed_again(name):
  _, task, frozen, _, state = micro(name)
  rng = np.random.default_rng(0)
  inputs = {}
  for kind, tower in task.models.towers.items():
    shape = example_shapes(task.models)[kind] if tower.depth else (6, tower.width)
    inputs[kind] = Input(
        rng.standard_normal((2, *shape), np.float32), np.full(2, 0.6, np.float32),
        rng.standard_normal((2, 4, 16), np.float32), np.ones((2, 4), bool),
        np.arange(shape[0]) < np.array([[shape[0]], [shape[0] // 2]]))

  def velocities(params, frozen, inputs):
    # The generated modality is not there yet when the conditions begin.
    begun = task.begin(params, frozen, {'video': inputs['video']})
    refreshed, kept = task.refresh(params, frozen, inputs, begun)
    return refreshed, [task.velocity(params, frozen, inputs, conditions)
                       for conditions in (None, begun, kept)]

  refreshed, made = quick_jit(velocities)(state.params, frozen, inputs)
  for again in made:
    np.testing.assert_allclose(again['audio'], refreshed['audio'], atol=1e-5)
  assert np.std(refreshed['audio']) > 0.01


# What does not go together

@pytest.mark.parametrize('task, changes, said', [
    ('joint', TEXT, 'joint generates both'),
    ('joint', ADD | TUNED, 'joint generates both'),
    ('joint', CACHED, 'fusion.reinject=False'),
    ('av', TEXT, 'av generates both'),
    ('av', CACHED, 'av generates both'),
    ('v2a', {'fusion.injection': 'sum'}, "'sum'.*fusion, cross, text or add"),
    ('a2v', FEATURES, 'features'),
    ('joint', FEATURES, 'features'),
    ('av', FEATURES, 'features'),
    ('v2a', {'towers.audio.features': 5}, 'features'),
    ('v2a', {'flow.condition_law': 'normal'}, "'normal'.*fixed or uniform"),
])
def test_what_does_not_go_together_is_told_in_one_line(task, changes, said):
  with pytest.raises(UserError, match=said) as raised:
    build(micro_config(task, **changes))
  assert '\n' not in str(raised.value)


def test_the_sampler_goes_one_way_with_all_that_was_tuned():
  """Of a fine-tuned joint run: the condition's tower was trained too, is kept and is used."""
  _, task, frozen, _, state = micro('joint, cross, tuned')
  one_way = task.toward('audio')
  assert one_way.generate == ('audio',) and one_way.modalities == ('audio', 'video')
  assert set(state.params['towers']) == {'audio', 'video'}
  trees = [jax.eval_shape(t.init, jax.random.key(0), frozen) for t in (task, one_way)]
  assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])
  tuned = {'towers': {name: f'tuned {name}' for name in state.params['towers']}}
  assert {name: tower['dit'] for name, tower in one_way.towers(tuned, frozen).items()} == (
      tuned['towers'])
