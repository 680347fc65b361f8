"""The tower: as large as the paper says, silent at the start, blind to padding, cut anywhere."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from micro import plain_jit, random_like, random_params

from avlink_jax import build as model_builder
from avlink_jax.model import rope
from avlink_jax.model.attention import Kernel
from avlink_jax.model.dit import DiT
from avlink_jax.model.patches import grid, patchify, token_mask, unpatchify
from avlink_jax.model.tower import EvenSeconds, Input
from configs import t2a

AUDIO = DiT(channels=3, patch=(2,), seconds=EvenSeconds(25.0), width=16, depth=3, heads=2, mlp=24,
            text_width=12, attention=Kernel('reference'))
VIDEO = dataclasses.replace(AUDIO, patch=(1, 2, 3), seconds=EvenSeconds(6.0), depth=2)
SHAPES = {AUDIO: (8,), VIDEO: (4, 4, 6)}
both = pytest.mark.parametrize('tower', [AUDIO, VIDEO], ids=['audio', 'video'])


@functools.cache
def params_of(tower):
  return random_params(tower)


@functools.cache
def fresh(tower):
  """Parameters as training starts from them."""
  return plain_jit(tower.init)(jax.random.key(0, impl='unsafe_rbg'))  # compiles quickly


@functools.cache
def velocity(tower):
  return plain_jit(tower.velocity)


def input_of(tower, shape=None, batch=2, seed=0):
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
  shape = shape or SHAPES[tower]
  text_mask = np.ones((batch, 5), bool)
  text_mask[:, 3:] = False
  t = np.linspace(0.2, 0.8, batch, dtype=np.float32)
  return Input(normal(batch, *shape, tower.channels), t, normal(batch, 5, tower.text_width),
               text_mask, np.ones((batch, shape[0]), bool))


# Size

def dense(n_in, n_out):
  return n_in * n_out + n_out


def block_parameters(width, heads, mlp):
  attention = dense(width, 3 * width) + dense(width, width) + 2 * (width // heads)  # two QK norms
  # Self- and text attention have the same: q, k and v of one width, and the way out.
  return (2 * attention + dense(width, mlp) + dense(mlp, width)
          + dense(width, 7 * width))  # adaLN: 2 × (shift, scale, gate) and a gate


def tower_parameters(patch, text_width, width, depth, heads, mlp):
  """`patch`: numbers that make a token."""
  embed = (dense(patch, width) + dense(256, width) + dense(width, width)
           + dense(text_width, width) + dense(width, width))
  head = dense(width, 2 * width) + dense(width, patch)
  return embed + depth * block_parameters(width, heads, mlp) + head


def count(shapes):
  return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize('name, patch', [('audio', 64), ('video', 2 * 2 * 3)])
def test_the_papers_towers_have_576_million_parameters(name, patch):
  tower = model_builder.build(t2a.get_config('paper')).towers[name]
  parameters = count(jax.eval_shape(tower.init, jax.random.key(0)))
  # A block: 2·4 W² of attention, 8 W² of MLP and 7 W² of adaLN = 23 W², 24 times, W = 1024.
  assert parameters == tower_parameters(patch, 1024, width=1024, depth=24, heads=16, mlp=4096)
  assert parameters == pytest.approx(24 * 23 * 1024**2, rel=0.02)
  assert parameters == pytest.approx(576e6, rel=0.03)


@both
def test_the_arithmetic_holds_for_other_sizes_too(tower):
  assert count(jax.eval_shape(tower.init, jax.random.key(0))) == tower_parameters(
      math.prod(tower.patch) * 3, 12, width=16, depth=tower.depth, heads=2, mlp=24)


# At initialisation

def test_at_initialisation_a_block_is_the_identity():
  block, rng = AUDIO.block, np.random.default_rng(0)
  x, time, text = (rng.standard_normal(s).astype(np.float32)
                   for s in [(2, 7, 16), (2, 16), (2, 5, 16)])
  rest = (text, np.ones((2, 5), bool), np.zeros((7, 4), np.float32), np.ones((2, 7), bool))
  fresh_params = {'params': jax.tree.map(lambda p: p[0], fresh(AUDIO)['blocks'])}
  np.testing.assert_array_equal(block.apply(fresh_params, x, time, *rest), x)
  trained = random_like(fresh_params, 0)
  assert not np.allclose(block.apply(trained, x, time, *rest), x, atol=0.1)


@both
def test_at_initialisation_the_network_says_zero(tower):
  params, inputs = fresh(tower), input_of(tower)
  assert not np.asarray(velocity(tower)(params, inputs)).any()


# Patches

grids = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=3).filter(
    lambda sides: len(sides) != 2)


@given(grids, st.integers(0, 99))
@settings(max_examples=15)
def test_patches_put_together_are_the_data_also_where_it_does_not_divide(sides, seed):
  shape, patch = zip(*sides, strict=True)
  x = np.random.default_rng(seed).standard_normal((2, *shape, 2)).astype(np.float32)
  patches = patchify(x, patch)
  assert patches.shape == (2, math.prod(grid(shape, patch)), math.prod(patch) * 2)
  np.testing.assert_array_equal(unpatchify(patches, patch, shape), x)


def test_a_token_is_its_patch_time_first():
  x = np.random.default_rng(0).standard_normal((1, 4, 6, 8, 2), np.float32)
  patches = np.asarray(patchify(x, (2, 3, 4)))
  for token, (t, h, w) in enumerate(np.ndindex(*grid((4, 6, 8), (2, 3, 4)))):
    own = x[0, 2 * t:2 * t + 2, 3 * h:3 * h + 3, 4 * w:4 * w + 4]
    np.testing.assert_array_equal(patches[0, token], own.ravel())


@both
def test_a_token_knows_the_second_of_its_content(tower):
  shape = SHAPES[tower]
  x = np.broadcast_to(np.arange(shape[0]).reshape(-1, *[1] * len(shape)), (1, *shape, 1))
  first_frame = np.asarray(patchify(x, tower.patch))[0, :, 0]
  np.testing.assert_allclose(tower.token_seconds(shape), first_frame / tower.seconds.rate)


def test_seconds_need_not_be_even():
  """Of data whose first frame stands for one moment and each later one for four, as of a causal
  video autoencoder; a patch is at its first frame's second."""
  seconds = lambda count: np.concatenate([[0.0], 1 + 4 * np.arange(count - 1)]) / 24  # noqa: E731
  video = dataclasses.replace(VIDEO, patch=(2, 2, 3), seconds=seconds)
  made = video.token_seconds((5, 4, 6)).reshape(3, 2 * 2)
  np.testing.assert_allclose(made, np.repeat([[0], [5 / 24], [13 / 24]], 4, axis=1))


@both
def test_velocity_has_the_shape_of_data_that_does_not_divide(tower):
  shape = tuple(n + 1 for n in SHAPES[tower])
  inputs = input_of(tower, shape)
  made = velocity(tower)(params_of(tower), inputs)
  assert made.shape == inputs.x.shape and np.isfinite(made).all()


# Padding

@both
def test_padding_does_not_change_the_real_part(tower):
  params, inputs = params_of(tower), input_of(tower)
  alone = velocity(tower)(params, inputs)
  pad = 3 * tower.patch[0]
  rubbish = 5 * np.random.default_rng(1).standard_normal((2, pad, *inputs.x.shape[2:]))
  longer = inputs.replace(x=np.concatenate([inputs.x, rubbish.astype(np.float32)], axis=1),
                          mask=np.pad(inputs.mask, [(0, 0), (0, pad)]))
  real = inputs.x.shape[1]
  np.testing.assert_allclose(velocity(tower)(params, longer)[:, :real], alone, atol=2e-5)
  unmasked = longer.replace(mask=np.ones_like(longer.mask))
  assert not np.allclose(velocity(tower)(params, unmasked)[:, :real], alone, atol=1e-2)


def test_a_token_that_is_half_real_is_real():
  mask = np.ones((2, 7), bool)
  mask[1, 3:] = False
  np.testing.assert_array_equal(token_mask(mask, (2,), (7,)), [[1, 1, 1, 1], [1, 1, 0, 0]])
  stream = AUDIO.embed(params_of(AUDIO), input_of(AUDIO, (7,)).replace(mask=mask))
  np.testing.assert_array_equal(stream.mask, [[1, 1, 1, 1], [1, 1, 0, 0]])


# What is said

@both
def test_text_counts_where_its_mask_says_so_and_nowhere_else(tower):
  params, inputs = params_of(tower), input_of(tower)
  before = velocity(tower)(params, inputs)
  hidden, shown = inputs.text.copy(), inputs.text.copy()
  hidden[:, 3:] = 9.0
  shown[:, 2] = 9.0
  np.testing.assert_array_equal(velocity(tower)(params, inputs.replace(text=hidden)), before)
  assert not np.allclose(velocity(tower)(params, inputs.replace(text=shown)), before, atol=1e-2)


@both
def test_flow_time_counts_for_its_own_example_only(tower):
  params, inputs = params_of(tower), input_of(tower)
  before = np.asarray(velocity(tower)(params, inputs))
  after = np.asarray(velocity(tower)(params, inputs.replace(t=inputs.t + np.float32([0, 0.1]))))
  np.testing.assert_array_equal(after[0], before[0])
  assert not np.allclose(after[1], before[1], atol=1e-2)


@pytest.mark.parametrize('tower, axis', [(AUDIO, 0), (VIDEO, 0), (VIDEO, 1), (VIDEO, 2)])
def test_the_tower_tells_places_apart_along_every_axis(tower, axis):
  """Without positions, tokens moved about would be velocities moved about in the same way."""
  params, inputs = params_of(tower), input_of(tower)
  patches = inputs.x.reshape(2, *(n for pair in zip(
      grid(SHAPES[tower], tower.patch), tower.patch, strict=True) for n in pair), 3)
  turn = lambda x: np.roll(x, 1, axis=1 + 2 * axis).reshape(inputs.x.shape)  # noqa: E731
  before = np.asarray(velocity(tower)(params, inputs)).reshape(patches.shape)
  moved = velocity(tower)(params, inputs.replace(x=turn(patches)))
  assert not np.allclose(moved, turn(before), atol=1e-3)


# Segments, gradients

@both
def test_segments_run_one_after_another_like_single_blocks(tower):
  params, inputs = params_of(tower), input_of(tower)

  def cut_at(k):
    stream = tower.segment(params, 0, k, tower.embed(params, inputs))
    return tower.head(params, tower.segment(params, k, tower.depth - k, stream))

  def one_at_a_time():
    """Where a segment begins is only known when it runs."""
    step = lambda stream, n: (tower.segment(params, n, 1, stream), None)  # noqa: E731
    return tower.head(params, jax.lax.scan(
        step, tower.embed(params, inputs), np.arange(tower.depth))[0])

  def one_by_one():
    stream, shape = tower.embed(params, inputs), SHAPES[tower]
    places = np.array(list(np.ndindex(*grid(shape, tower.patch))), np.float64)
    angles = rope.angles(places, tower.width // tower.heads)
    x = stream.tokens
    for n in range(tower.depth):
      block = jax.tree.map(lambda p, n=n: p[n], params['blocks'])
      x = tower.block.apply({'params': block}, x, stream.time, stream.text, inputs.text_mask,
                            angles, stream.mask)
    return tower.head(params, stream.replace(tokens=x))

  wanted = plain_jit(one_by_one)()
  for k in range(tower.depth + 1):
    np.testing.assert_allclose(plain_jit(cut_at, static_argnums=0)(k), wanted, atol=1e-5)
  np.testing.assert_allclose(plain_jit(one_at_a_time)(), wanted, atol=1e-5)
  np.testing.assert_allclose(velocity(tower)(params, inputs), wanted, atol=1e-5)


def test_in_half_precision_the_tower_is_near_and_answers_in_float32():
  params, inputs = params_of(VIDEO), input_of(VIDEO)
  half = velocity(dataclasses.replace(VIDEO, dtype=jnp.bfloat16))(params, inputs)
  assert half.dtype == jnp.float32
  whole = np.asarray(velocity(VIDEO)(params, inputs))
  assert np.abs(half - whole).mean() < 0.05 * np.abs(whole).mean()
