"""FLOPs counted from shapes agree with formulas written by hand, and with XLA where XLA counts."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.sharding import AbstractMesh, PartitionSpec

from avlink_jax import build as model_builder
from avlink_jax.compile import sampling
from avlink_jax.hardware import flops
from avlink_jax.model import attention, dit
from avlink_jax.model.tower import Input
from avlink_jax.training import sharding
from configs import v2a

TERA = 1e12


def of(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


def by_xla(function, *args):
  return jax.jit(function).lower(*args).compile().cost_analysis()['flops']


def dense(x, w):
  return x @ w


def squared(function):
  return lambda *args: jnp.sum(function(*args) ** 2)


def test_a_dense_layer_is_two_a_weight_and_row():
  assert flops.of(dense, of(8, 32), of(32, 16)) == 2 * 8 * 32 * 16


def test_a_gradient_is_twice_the_layer_again():
  both = jax.grad(squared(dense), argnums=(0, 1))
  assert flops.of(both, of(8, 32), of(32, 16)) == 3 * 2 * 8 * 32 * 16


def test_what_no_output_depends_on_is_not_counted():
  weights_alone = jax.grad(squared(dense), argnums=1)
  assert flops.of(weights_alone, of(8, 32), of(32, 16)) == 2 * 2 * 8 * 32 * 16
  assert flops.of(lambda x, w: (dense(x, w), x)[1], of(8, 32), of(32, 16)) == 0


def test_attention_is_four_a_pair_and_channel():
  batch, heads, queries, keys, channels = 2, 3, 5, 7, 16
  q, k = of(batch, heads, queries, channels), of(batch, heads, keys, channels)
  assert (flops.of(attention.reference, q, k, k)
          == 4 * batch * heads * queries * keys * channels)


def test_a_scans_body_counts_as_often_as_it_runs_and_the_dearest_branch():
  def stacked(x, ws):
    return jax.lax.scan(lambda x, w: (x @ w, None), x, ws)[0]

  def either(x, w):
    return jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)

  assert flops.of(stacked, of(8, 16), of(5, 16, 16)) == 5 * 2 * 8 * 16 * 16
  assert flops.of(either, of(8, 16), of(16, 16)) == 2 * 2 * 8 * 16 * 16


def test_what_remat_computes_again_is_executed():
  """Of two layers the first is needed again, for the second's gradient."""
  two = lambda x, w: jnp.tanh(x @ w) @ w  # noqa: E731
  kept, again = (jax.grad(squared(f), argnums=1) for f in (two, jax.checkpoint(two)))
  args, once = (of(8, 16), of(16, 16)), 2 * 8 * 16 * 16
  assert flops.of(kept, *args) == (2 + 3) * once
  assert flops.of(again, *args) == flops.of(kept, *args) + once


@pytest.mark.parametrize('options', [
    dict(window_strides=(1,), padding='SAME'),
    dict(window_strides=(2,), padding='SAME'),
    dict(window_strides=(3,), padding=[(1, 4)], rhs_dilation=(2,)),
    dict(window_strides=(1,), padding=[(3, 3)], lhs_dilation=(2,))])
@pytest.mark.parametrize('groups', [1, 3])
def test_convolutions_and_their_gradients_are_what_xla_counts(options, groups):
  """XLA counts sums and products elsewhere too: a gradient's are in proportion."""
  convolve = functools.partial(
      jax.lax.conv_general_dilated, dimension_numbers=('NWC', 'WIO', 'NWC'),
      feature_group_count=groups, **options)
  x, kernel = of(2, 19, 3), of(4, 3 // groups, 6)
  assert flops.of(convolve, x, kernel) == by_xla(convolve, x, kernel)
  for argument in (0, 1):
    back = jax.grad(lambda *args: jnp.sum(convolve(*args)), argnums=argument)
    mine = flops.of(back, x, kernel)
    assert mine == pytest.approx(by_xla(back, x, kernel), rel=0.02, abs=200)


def test_a_whole_block_is_what_xla_counts_but_for_elementwise_work():
  block = dit.Block(width=128, heads=2, mlp=512, attention=attention.Kernel('reference'))
  args = of(1, 64, 128), of(1, 128), of(1, 16, 128), of(1, 16, dtype=bool), of(64, 32), of(
      1, 64, dtype=bool)
  params = jax.eval_shape(block.init, jax.random.key(0), *args)
  assert flops.of(block.apply, params, *args) == pytest.approx(
      by_xla(block.apply, params, *args), rel=0.05)


def test_a_kernels_body_counts_at_each_place_of_its_grid():
  def multiply(x_ref, w_ref, out_ref):
    out_ref[...] = x_ref[...] @ w_ref[...]

  def tiled(x, w):
    return pl.pallas_call(
        multiply, grid=(4,), out_shape=of(64, 32),
        in_specs=[pl.BlockSpec((16, 8), lambda i: (i, 0)), pl.BlockSpec((8, 32), lambda i: (0, 0))],
        out_specs=pl.BlockSpec((16, 32), lambda i: (i, 0)))(x, w)

  assert flops.of(tiled, of(64, 8), of(8, 32)) == 2 * 64 * 8 * 32


def test_what_each_device_computes_is_added_up():
  mesh = AbstractMesh((4, 2), ('data', 'other'))
  split = jax.shard_map(dense, mesh=mesh, in_specs=(PartitionSpec('data'), PartitionSpec()),
                        out_specs=PartitionSpec('data'), check_vma=False)
  assert flops.of(split, of(8, 16), of(16, 16)) == 2 * 2 * 8 * 16 * 16  # 'other' does it twice


def test_what_cannot_be_counted_is_an_error():
  forever = lambda x, w: jax.lax.while_loop(lambda x: x[0, 0] > 0, lambda x: x @ w, x)  # noqa: E731
  with pytest.raises(ValueError, match='while'):
    flops.of(forever, of(8, 8), of(8, 8))


@pytest.fixture(scope='module')
def paper():
  config = v2a.get_config('paper')
  config.attention = 'reference'
  return config, model_builder.build(config, jnp.bfloat16)


def test_a_pass_of_the_video_tower_is_44_teraflop_of_which_31_are_attention(paper):
  tower = paper[1].towers['video']
  params = jax.eval_shape(tower.init, jax.random.key(0))
  inputs = Input(of(1, 31, 36, 64, 3), of(1), of(1, 128, 1024), of(1, 128, dtype=bool),
                 of(1, 31, dtype=bool))
  tokens, width = 17_856, 1024
  looks = 24 * 4 * tokens**2 * width
  assert looks == pytest.approx(31 * TERA, rel=0.02)
  counted = flops.of(tower.velocity, params, inputs)
  assert counted == pytest.approx(44 * TERA, rel=0.02)
  # What is left is projections and MLP, to text 256 of the tokens' 17,856: 2 FLOP a weight.
  weights = 24 * (4 + 2 + 8) * width**2
  assert counted - looks == pytest.approx(2 * tokens * weights, rel=0.02)


def test_a_fusion_block_is_1_8_teraflop_of_which_1_3_are_attention(paper):
  fusion = paper[1].link.fusion
  tokens = [of(1, 129, 1024), of(1, 17_856, 1024)]
  times, masks = [of(1), of(1)], [of(1, 129, dtype=bool), of(1, 17_856, dtype=bool)]
  angles = [fusion.angles(jnp.arange(x.shape[1]) / 25) for x in tokens]
  params = jax.eval_shape(fusion.block.init, jax.random.key(0), tokens, times, masks, angles)
  apply = lambda *args: fusion.block.apply(*args, angles)  # noqa: E731
  assert 4 * (17_856 + 129)**2 * 1024 == pytest.approx(1.3 * TERA, rel=0.03)
  assert flops.of(apply, params, tokens, times, masks) == pytest.approx(1.8 * TERA, rel=0.25)


@pytest.mark.slow
def test_a_sample_of_64_steps_is_3_75_petaflop(paper):
  config = paper[0].copy_and_resolve_references()
  config.sample.batch_size = 1
  assert sampling(config, sharding.make_mesh()).model_flops == pytest.approx(3.75e15, rel=0.02)
