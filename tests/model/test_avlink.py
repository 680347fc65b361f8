"""Two towers and their Fusion Blocks: nothing at the start, then each hears the other, in time."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from micro import plain_jit, random_params

from avlink_jax import build as model_builder
from avlink_jax.errors import UserError
from avlink_jax.hardware import flops
from avlink_jax.model import rope
from avlink_jax.model.attention import Kernel
from avlink_jax.model.avlink import AVLink, runs, segment_lengths
from avlink_jax.model.dit import DiT
from avlink_jax.model.fusion import Fusion
from avlink_jax.model.patches import grid
from avlink_jax.model.tower import EvenSeconds, Input
from configs import v2a

DEPTH = 4
AUDIO = DiT(channels=3, patch=(2,), seconds=EvenSeconds(12.0), width=16, depth=DEPTH, heads=2,
            mlp=24, text_width=12, attention=Kernel('reference'))
VIDEO = dataclasses.replace(AUDIO, patch=(1, 2, 3), seconds=EvenSeconds(6.0), width=24)
JOINT = Kernel('reference').between(('tokens',) * 2, ('tokens',) * 2)
FUSION = Fusion(blocks=2, width=20, heads=2, mlp=28, rank=4, clock_rate=6.0, attention=JOINT)
TOWERS = {'audio': AUDIO, 'video': VIDEO}
WIDTHS = [AUDIO.width, VIDEO.width]
LINK = AVLink(TOWERS, FUSION)
BOTH = ('audio', 'video')


@functools.cache
def frozen():
  return {name: random_params(tower, i) for i, (name, tower) in enumerate(TOWERS.items())}


@functools.cache
def fresh():
  """Fusion Blocks as training starts from them."""
  return plain_jit(LINK.init)(jax.random.key(0, impl='unsafe_rbg'))


@functools.cache
def trained():
  """Fusion Blocks with nothing left at zero."""
  return random_params(LINK, 5)


def inputs(seed=0):
  rng = np.random.default_rng(seed)
  mask = {'audio': np.ones((2, 8), bool), 'video': np.ones((2, 4), bool)}
  mask['audio'][1, 6:] = mask['video'][1, 3:] = False
  return {name: Input(
      rng.standard_normal((2, *shape, 3)).astype(np.float32), rng.random(2, np.float32),
      rng.standard_normal((2, 5, 12)).astype(np.float32), np.ones((2, 5), bool), mask[name])
      for name, shape in (('audio', (8,)), ('video', (4, 4, 3)))}


@functools.cache
def bare(name):
  """Velocity of a tower alone."""
  return plain_jit(TOWERS[name].velocity)(frozen()[name], inputs()[name])


def link(**changes):
  return dataclasses.replace(LINK, **changes)


@functools.cache
def velocity(placement='interleaved', outputs=BOTH, remat=False):
  linked = link(placement=placement, remat=remat)
  run = plain_jit(
      lambda fusion, trees, inputs: linked.velocity(fusion, trees, inputs, outputs))
  return lambda fusion, inputs: run(fusion, frozen(), inputs)


def scans(jaxpr):
  """Lengths of all scans of a computation, nested ones too."""
  lengths = []
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'scan':
      lengths.append(equation.params['length'])
    for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, 'eqns')):
      inner = getattr(inner, 'jaxpr', inner)
      if hasattr(inner, 'eqns'):
        lengths += scans(inner)
  return lengths


# Size

def dense(n_in, n_out):
  return n_in * n_out + n_out


def fusion_parameters(width, heads, mlp, rank, towers):
  """One Fusion Block between towers of the given widths."""
  times = 256 * len(towers)  # every stream's modulation sees all flow times
  shared = dense(width, 3 * width) + dense(width, width) + 2 * (width // heads)
  return shared + sum(
      dense(c, width) + dense(width, mlp) + dense(mlp, c)  # in, and back out
      + dense(times, rank) + dense(rank, 4 * width + c)  # adaLN: 2 × (shift, scale), and the gate
      for c in towers)


def count(shapes):
  return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))


def test_the_papers_eight_fusion_blocks_have_186_million_parameters():
  linked = model_builder.build(v2a.get_config('paper')).link
  parameters = count(jax.eval_shape(linked.init, jax.random.key(0)))
  # A block: 4 W² of attention, 2 W² on the way in, 2 · 8 W² of MLP = 22 W², W = 1024.
  one = fusion_parameters(1024, heads=16, mlp=4096, rank=16, towers=[1024, 1024])
  assert parameters == 8 * one
  assert one == pytest.approx(22 * 1024**2, rel=0.02)
  assert one == pytest.approx(23.25e6, rel=0.03)
  assert parameters == pytest.approx(186e6, rel=0.03)


def test_the_arithmetic_holds_for_towers_of_different_widths():
  assert count(jax.eval_shape(LINK.init, jax.random.key(0))) == 2 * fusion_parameters(
      20, heads=2, mlp=28, rank=4, towers=WIDTHS)


# At initialisation

@pytest.mark.parametrize('placement', ['interleaved', 'spread', 'after:1', 'after:3'])
def test_at_initialisation_avlink_is_the_frozen_base_bit_for_bit(placement):
  made = velocity(placement)(fresh(), inputs())
  for name in BOTH:
    assert np.any(bare(name))
    np.testing.assert_array_equal(made[name], bare(name))


@pytest.mark.slow
def test_so_it_is_with_towers_of_different_depth_and_the_compilers_optimiser_on():
  """All but for the order in which the optimiser adds up a sum in one program or another."""
  deep = dataclasses.replace(VIDEO, depth=6)
  linked = AVLink({'audio': AUDIO, 'video': deep}, FUSION)
  trees = frozen() | {'video': random_params(deep)}
  made = jax.jit(linked.velocity, static_argnums=3)(fresh(), trees, inputs(), BOTH)
  for name, tower in linked.towers.items():
    alone = jax.jit(tower.velocity)(trees[name], inputs()[name])
    np.testing.assert_allclose(made[name], alone, atol=2e-6)


def loss(linked, outputs, fusion, trees):
  return sum(jnp.sum(v**2) for v in linked.velocity(fusion, trees, inputs(), outputs).values())


@functools.cache
def gradient(outputs, remat=False):
  made = plain_jit(jax.grad(functools.partial(loss, link(remat=remat), outputs)))
  return lambda fusion: made(fusion, frozen())


def test_the_first_gradient_opens_the_gates():
  """And reaches nothing else: a zero gate passes none on."""
  made = gradient(BOTH)(fresh())['blocks']
  for m in range(2):
    kernel = made.pop(f'modulation_out_{m}')['kernel']
    assert (np.abs(kernel[..., 4 * FUSION.width:]).max((1, 2)) > 1e-4).all()  # in every block
    assert not np.any(kernel[..., :4 * FUSION.width])
  assert not any(np.any(g) for g in jax.tree.leaves(made))


def test_once_the_gates_are_open_everything_learns():
  for path, g in jax.tree_util.tree_leaves_with_path(gradient(BOTH)(trained())):
    for block in range(FUSION.blocks):
      assert np.isfinite(g[block]).all() and np.any(g[block]), jax.tree_util.keystr(path)


# Placement

@pytest.mark.parametrize('depth, fusions, placement, lengths', [
    (24, 8, 'interleaved', [3] * 8 + [0]), (4, 2, 'interleaved', [2, 2, 0]),
    (4, 3, 'spread', [1, 1, 2, 0]), (6, 3, 'spread', [1, 2, 3, 0]),
    (24, 8, 'spread', [1, 3, 3, 3, 4, 3, 3, 4, 0]), (4, 4, 'spread', [1, 1, 1, 1, 0]),
    (24, 8, 'after:1', [1] + [0] * 7 + [23]),
    (24, 8, 'after:11', [11] + [0] * 7 + [13]), (24, 8, 'after:22', [22] + [0] * 7 + [2]),
    (24, 8, 'after:24', [24] + [0] * 8),
    (5, 1, 'after:2', [2, 3]),
])
def test_placement_is_where_the_blocks_are_cut(depth, fusions, placement, lengths):
  assert segment_lengths(depth, fusions, placement) == lengths
  assert sum(lengths) == depth and len(lengths) == fusions + 1


@pytest.mark.parametrize('depth, fusions, placement', [
    (24, 7, 'interleaved'), (24, 1, 'spread'), (4, 5, 'spread'), (24, 8, 'after:25'),
    (24, 8, 'after:0'), (24, 8, 'after:'), (24, 8, 'after:-1'), (24, 8, 'after:two'),
    (24, 8, 'before:3'), (24, 8, '')])
def test_a_placement_that_does_not_cut_is_told_with_those_that_do(depth, fusions, placement):
  with pytest.raises(UserError, match=f'{placement!r}.*{depth} blocks.*{fusions}.*after:K'):
    segment_lengths(depth, fusions, placement)


def test_equal_neighbours_are_grouped():
  assert runs([3, 3, 1, 3]) == [(3, 0, 2), (1, 2, 1), (3, 3, 1)]
  assert runs([]) == []


@functools.cache
def pieces(name):
  """A tower's embedding, one block of it, its head: each compiled once."""
  tower = TOWERS[name]
  return (plain_jit(tower.embed),
          plain_jit(lambda block, s, angles: tower.block.apply(
              {'params': block}, s.tokens, s.time, s.text, s.text_mask, angles, s.mask)),
          plain_jit(tower.head))


def unrolled(fused_after, inputs, stands=()):
  """AV-Link as one would write it first: block after block, and after blocks number
  `fused_after` (a list, one entry a Fusion Block) both streams through a Fusion Block. `stands`:
  the video tokens that each of these sees in the place of its own.

  Returns velocities, and the video tokens that each Fusion Block saw.
  """
  streams, seconds, angles, seen = {}, [], {}, []
  for name, tower in TOWERS.items():
    shape = inputs[name].x.shape[1:-1]
    places = np.array(list(np.ndindex(*grid(shape, tower.patch))), np.float64)
    angles[name] = rope.angles(places, tower.width // tower.heads)
    seconds.append(places[:, 0] * tower.patch[0] / tower.seconds.rate)
    streams[name] = pieces(name)[0](frozen()[name], inputs[name])
  joint_angles = [rope.angles(when[:, None] * 6.0, FUSION.width // FUSION.heads)
                  for when in seconds]
  fuse = plain_jit(FUSION.block.apply)
  for number in range(DEPTH + 1):
    for k in (k for k, after in enumerate(fused_after) if after == number):
      if stands:
        streams['video'] = streams['video'].replace(tokens=stands[k])
      seen.append(streams['video'].tokens)
      tokens, _ = fuse({'params': jax.tree.map(lambda p, k=k: p[k], trained()['blocks'])},
                    [s.tokens for s in streams.values()], [i.t for i in inputs.values()],
                    [s.mask for s in streams.values()], joint_angles)
      streams = {n: streams[n].replace(tokens=x) for n, x in zip(streams, tokens, strict=True)}
    if number < DEPTH:
      for name, stream in streams.items():
        block = jax.tree.map(lambda p, n=number: p[n], frozen()[name]['blocks'])
        streams[name] = stream.replace(tokens=pieces(name)[1](block, stream, angles[name]))
  return {name: pieces(name)[2](frozen()[name], s) for name, s in streams.items()}, seen


@pytest.mark.parametrize('placement, fused_after', [
    ('interleaved', [2, 4]), ('after:1', [1, 1]), ('after:3', [3, 3]), ('after:4', [4, 4])])
def test_every_placement_is_the_plain_loop(placement, fused_after):
  assert list(inputs()) == list(TOWERS)
  wanted, _ = unrolled(fused_after, inputs())
  made = velocity(placement)(trained(), inputs())
  for name in BOTH:
    np.testing.assert_allclose(made[name], wanted[name], atol=3e-5)
    assert not np.allclose(made[name], bare(name), atol=0.05)  # the Fusion Blocks did something


def test_what_is_not_asked_for_is_not_run_and_changes_nothing():
  made = velocity('after:1', ('audio',))(trained(), inputs())
  assert list(made) == ['audio']
  both = velocity('after:1')(trained(), inputs())
  np.testing.assert_allclose(made['audio'], both['audio'], atol=1e-5)

  def last_segments(outputs):
    run = functools.partial(link(placement='after:1').velocity, outputs=outputs)
    return scans(jax.make_jaxpr(run)(trained(), frozen(), inputs()).jaxpr).count(DEPTH - 1)

  assert last_segments(('audio',)) == 1 and last_segments(BOTH) == 2


@pytest.mark.slow
def test_recomputing_segments_changes_no_gradient():
  kept, remade = (gradient(BOTH, remat)(trained()) for remat in (False, True))
  for a, b in zip(*map(jax.tree.leaves, (kept, remade)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max())


@pytest.mark.parametrize('placement, fused_after', [('interleaved', [2, 4]), ('after:1', [1, 1])])
def test_a_kept_stream_is_heard_at_each_cut_as_it_last_was(placement, fused_after):
  """A step later the audio is another one, at another time, which the video's modulation sees; the
  video's tokens are those of the step before."""
  given, linked = inputs(), link(placement=placement)
  later = given | {'audio': given['audio'].replace(x=-given['audio'].x, t=1 - given['audio'].t)}
  first, kept = plain_jit(lambda *args: linked.refresh(*args, ('audio',)))(
      trained(), frozen(), given)
  run = plain_jit(lambda *args: linked.velocity(*args[:-1], ('audio',), args[-1]))
  wanted, seen = unrolled(fused_after, given)
  np.testing.assert_allclose(first['audio'], wanted['audio'], atol=3e-5)
  for now in (given, later):
    made = run(trained(), frozen(), now, kept)
    wanted, _ = unrolled(fused_after, now, seen)
    assert list(made) == ['audio']
    np.testing.assert_allclose(made['audio'], wanted['audio'], atol=3e-5)
  fresh, _ = unrolled(fused_after, later)
  assert not np.allclose(made['audio'], fresh['audio'], atol=1e-3)  # it was kept


def test_beside_a_kept_stream_only_what_is_generated_is_computed():
  """Of a Fusion Block: no queries, way in, MLP and way back of the stream that stands."""
  given, rows = inputs(), lambda tokens, n_in, n_out: 2 * 2 * tokens * n_in * n_out  # two clips
  _, kept = jax.eval_shape(
      functools.partial(LINK.refresh, outputs=('audio',)), trained(), frozen(), given)
  made = flops.of(lambda *args: LINK.velocity(*args[:-1], ('audio',), args[-1]),
                  trained(), frozen(), given, kept)
  tower = flops.of(AUDIO.velocity, frozen()['audio'], given['audio'])
  width, audio, video = FUSION.width, 4, 8
  times = sum(rows(1, 512, FUSION.rank) + rows(1, FUSION.rank, 4 * width + c) for c in WIDTHS)
  block = (rows(audio, AUDIO.width, width) + rows(audio, width, width)  # in, queries
           + rows(audio + video, width, 2 * width)  # keys and values of both
           + 2 * rows(audio, width, audio + video) + rows(audio, width, width)  # attention, out
           + rows(audio, width, FUSION.mlp) + rows(audio, FUSION.mlp, AUDIO.width))
  assert made == tower + FUSION.blocks * (times + block)


# What flows where

def heard(fusion, given, name, **changes):
  """Which velocities change when a field of what `name` is given changes."""
  before = velocity()(fusion, given)
  after = velocity()(fusion, given | {name: given[name].replace(**changes)})
  distance = {n: np.abs(before[n] - after[n]).max() for n in BOTH}
  assert not any(0 < d < 1e-3 for d in distance.values()), distance  # clearly, or not at all
  return {n for n in BOTH if distance[n]}


@pytest.mark.parametrize('field, change', [
    ('x', lambda x: -x), ('t', lambda t: 1 - t), ('text', lambda text: -3 * text)])
@pytest.mark.parametrize('name', BOTH)
def test_each_modality_hears_the_other(name, field, change):
  """Symmetric reinjection, and modulation that sees both times: what one tower is given
  changes both velocities, and through Fusion Blocks alone."""
  given = inputs()
  changes = {field: change(getattr(given[name], field))}
  assert heard(trained(), given, name, **changes) == set(BOTH)
  assert heard(fresh(), given, name, **changes) == {name}


def test_what_the_first_fusion_block_says_goes_on_through_the_other_towers_blocks():
  """With the last Fusion Block shut, only what was put back between segments can be heard."""
  first_only = jax.tree.map(lambda t, f: jnp.concatenate([t[:1], f[1:]]), trained(), fresh())
  given = inputs()
  for name in BOTH:
    assert heard(first_only, given, name, x=-given[name].x) == set(BOTH)


def test_each_streams_modulation_sees_both_flow_times():
  """In the Fusion Block itself: here the tokens, which carry the towers' own times, stay."""
  before = fused([np.zeros(4)] * 2)
  for m in range(2):
    times = [0.3, 0.3]
    times[m] = 0.6
    after = fused([np.zeros(4)] * 2, times)
    assert all(not np.allclose(after[k], before[k], atol=1e-2) for k in range(2))


def test_padding_of_one_modality_is_not_heard_by_the_other():
  given = inputs()
  x = given['video'].x.copy()
  x[1, 3:] = 7.0
  run = velocity()
  before = run(trained(), given)['audio']
  after = run(trained(), given | {'video': given['video'].replace(x=x)})['audio']
  np.testing.assert_allclose(after, before, atol=1e-5)
  unmasked = given['video'].replace(x=x, mask=np.ones_like(given['video'].mask))
  assert not np.allclose(run(trained(), given | {'video': unmasked})['audio'][1], before[1],
                         atol=1e-2)


def fused(seconds, times=(0.3, 0.3)):
  """One Fusion Block on fixed tokens at the given seconds."""
  rng = np.random.default_rng(0)
  tokens = [rng.standard_normal((1, 4, width)).astype(np.float32) for width in WIDTHS]
  one = jax.tree.map(lambda p: p[0], trained()['blocks'])
  return plain_jit(FUSION.block.apply)(
      {'params': one}, tokens, [np.full(1, t, np.float32) for t in times],
      [np.ones((1, 4), bool)] * 2, [FUSION.angles(when) for when in seconds])[0]


def test_fusion_knows_when_things_are_relative_to_each_other_and_nothing_else():
  audio, video = np.arange(4) / 6.0, np.arange(4) / 3.0
  before, later, apart = map(
      fused, ([audio, video], [audio + 5.0, video + 5.0], [audio, video + 0.5]))
  for m in range(2):
    np.testing.assert_allclose(later[m], before[m], atol=1e-4)
    assert not np.allclose(apart[m], before[m], atol=1e-3)


def test_no_gradient_is_computed_below_the_first_fusion_block():
  """With all Fusion Blocks after the last block, the towers (scans of DEPTH blocks) run forward
  once each and never back."""
  last = functools.partial(loss, link(placement=f'after:{DEPTH}'), BOTH)
  passes = lambda argument: scans(  # noqa: E731
      jax.make_jaxpr(jax.grad(last, argument))(trained(), frozen()).jaxpr).count(DEPTH)
  assert passes(0) == 2
  assert passes(1) == 4  # as it would be if the towers were trained
