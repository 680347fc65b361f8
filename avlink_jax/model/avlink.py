"""AV-Link: two frozen towers, cut into segments, with Fusion Blocks in the cuts (Sec. 3.3)."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp

from avlink_jax.errors import UserError
from avlink_jax.model.aided_fusion import AidedFusion
from avlink_jax.model.fusion import Fusion, Kept
from avlink_jax.model.tower import Tower


def segment_lengths(depth, fusions, placement):
  """Blocks of a tower before, between and after the Fusion Blocks: fusions + 1 numbers.

  'interleaved' spreads them evenly, the last one after the last block (24 blocks, 8 fusions:
  after 3, 6, … 24); 'spread' has the first one after the first block already (of 4 blocks and 3
  fusions: after 1, 2, 4); 'after:K' puts the whole group after block K (Sec. 4.4's ablation).
  """
  if depth == 0:  # features from outside have no blocks to place anything between
    return [0] * (fusions + 1)
  if placement == 'interleaved' and depth % fusions == 0:
    return [depth // fusions] * fusions + [0]
  if placement == 'spread' and 1 < fusions <= depth:
    after = [1 + i * (depth - 1) // (fusions - 1) for i in range(fusions)]
    return [1, *(b - a for a, b in itertools.pairwise(after)), 0]
  kind, _, k = placement.partition(':')
  if kind == 'after' and k.isdigit() and 0 < int(k) <= depth:
    return [int(k)] + [0] * (fusions - 1) + [depth - int(k)]
  raise UserError(
      f"fusion.placement={placement!r} does not cut a tower of {depth} blocks for {fusions} "
      "Fusion Blocks: use 'interleaved' (where the blocks divide), 'spread' or 'after:K'")


def runs(plans):
  """Groups equal neighbours of `plans` (a list) -> [(plan, first, count)]."""
  grouped = []
  for i, plan in enumerate(plans):
    if grouped and grouped[-1][0] == plan:
      grouped[-1][2] += 1
    else:
      grouped.append([plan, i, 1])
  return [tuple(g) for g in grouped]


def cut_tokens(tower, params, input, lengths):
  """A tower's activations at each cut, nothing reinjected: its last Stream and [(B, N, C)], one a
  Fusion Block."""
  stream, first, cuts = tower.embed(params, input), 0, []
  for length in lengths[:-1]:
    if length:
      stream = tower.segment(params, first, length, stream)
    first += length
    cuts.append(stream.tokens)
  return stream, cuts


@dataclasses.dataclass(frozen=True)
class AVLink:
  """Towers linked by Fusion Blocks; a pure function of (frozen towers, fusion parameters).

  The tower names order the streams: {'audio': Tower, 'video': Tower}. Every link has these four:

      init(key)                              -> trainable parameters
      begin(link, towers, inputs, outputs)   -> conditions: what of the conditioning streams does
                                                not depend on what is generated; once a sample
      velocity(link, towers, inputs, outputs, conditions=None) -> {name: velocity}
      refresh(link, towers, inputs, outputs, conditions=None)  -> the same, and the conditions as
                                                they now are, to stand for several steps

  Conditions here are {name: Kept}, streams that stand, so that they are not computed.

  Attributes:
    reinject: symmetric feature reinjection (Sec. 3.3). Without it the conditioning stream goes
      through its tower untouched, so that it is Kept from the beginning.
    trained: names of towers that are fine-tuned. Each turn of the loop is then given its own
      blocks, so that their gradient is made, and summed over the chips, once. Taken by an index, as
      of frozen towers, each turn would add to a gradient of all blocks; but nothing is copied.
  """
  towers: dict[str, Tower]
  fusion: Fusion | AidedFusion
  placement: str = 'interleaved'
  remat: bool = False
  reinject: bool = True
  trained: tuple[str, ...] = ()

  def init(self, key):
    """The trainable part: stacked Fusion Blocks."""
    return self.fusion.init(key, [tower.width for tower in self.towers.values()])

  def _lengths(self):
    return {name: segment_lengths(tower.depth, self.fusion.blocks, self.placement)
            for name, tower in self.towers.items()}

  def begin(self, link, towers, inputs, outputs):
    """{name: Kept} of the streams that are not in `outputs` and that nothing is put back into."""
    if self.reinject:
      return {}
    return {name: self._untouched(name, link, towers, inputs)
            for name in self.towers if name not in outputs}

  def _first_segment(self, name, towers, inputs):
    tower, length = self.towers[name], self._lengths()[name][0]
    stream = tower.embed(towers[name], inputs[name])
    return tower.segment(towers[name], 0, length, stream) if length else stream

  def _untouched(self, name, link, towers, inputs):
    """Kept of a stream into which nothing is put back."""
    m = list(self.towers).index(name)
    stream, cuts = cut_tokens(self.towers[name], towers[name], inputs[name], self._lengths()[name])
    normal = [self.fusion.normal(rows(link['blocks'], i), m, stream.replace(tokens=tokens))
              for i, tokens in enumerate(cuts)]
    return Kept(jnp.stack(normal), stream.mask, inputs[name].t, self.towers[name].width)

  def velocity(self, link, towers, inputs, outputs, conditions=None):
    """Velocities of the modalities in `outputs`, each conditioned on the other.

    The first segments run before anything trainable, so no gradient is computed there. Then
    each scan step is one Fusion Block and the segments it feeds: both its outputs replace
    the activations that enter the next blocks of both towers (symmetric reinjection).

    Args:
      link: stacked Fusion Block parameters.
      towers: {name: tower parameters}.
      inputs: {name: tower.Input}; of `conditions` only the shapes count.
      outputs: names whose velocity is wanted; blocks that feed none of them are not run.
      conditions: what `begin` or `refresh` gave for these inputs.
    Returns:
      {name: velocity, shaped as that input's x}.
    """
    return self._run(link, towers, inputs, outputs, conditions, keep=False)[0]

  def refresh(self, link, towers, inputs, outputs, conditions=None):
    """As `velocity`, and conditions that are all Kept: each stream at each cut as it was here."""
    return self._run(link, towers, inputs, outputs, conditions, keep=True)

  def _run(self, link, towers, inputs, outputs, conditions, keep):
    names, lengths = list(self.towers), self._lengths()
    kept = dict(self.begin(link, towers, inputs, outputs) if conditions is None else conditions)
    angles = [self.fusion.angles(self.towers[name].token_seconds(inputs[name].x.shape[1:-1]))
              for name in names]
    streams = {name: self._first_segment(name, towers, inputs)
               for name in names if name not in kept}
    keeping = [name for name in streams if name not in outputs] if keep else []
    masks = {name: streams[name].mask for name in keeping}

    last = self.fusion.blocks
    wanted = lambda i, name: name not in kept and (i < last or name in outputs)  # noqa: E731
    plans = [tuple((wanted(i, name), lengths[name][i] if wanted(i, name) else 0) for name in names)
             for i in range(1, last + 1)]
    start, normal = [lengths[name][0] for name in names], []
    for plan, first, count in runs(plans):
      fusion = rows(link['blocks'], slice(first, first + count))
      own = {name: x.normal[first:first + count] for name, x in kept.items()}
      # Where no stream is kept, the last Fusion Block has queries of both all the same: the paper's
      # samples stay as they are to the last bit, for a fortieth of such a step.
      asking = [is_wanted for is_wanted, _ in plan] if keep or kept else None
      turn = functools.partial(self._turn, towers, angles, plan, asking, start, kept, keeping)
      if count == 1:
        streams, made = self._checkpointed(functools.partial(turn, 0))(
            streams, *rows((fusion, own), 0), {})
        made = jax.tree.map(lambda x: x[None], made)
      else:
        blocks = {name: stretches(towers[name]['blocks'], n, count, length)
                  for name, n, (_, length) in zip(names, start, plan, strict=True)
                  if length and name in self.trained}
        streams, made = self._loop(turn, streams, jnp.arange(count), fusion, own, blocks)
      normal.append(made)
      start = [n + count * length for n, (_, length) in zip(start, plan, strict=True)]
    kept |= {name: Kept(jnp.concatenate([made[name] for made in normal]), masks[name],
                        inputs[name].t, self.towers[name].width) for name in keeping}
    return {name: self.towers[name].head(towers[name], streams[name]) for name in outputs}, kept

  def _turn(self, towers, angles, plan, asking, start, kept, keeping, i, streams, fusion, own,
            blocks):
    """{name: Stream} of the wanted ones after a Fusion Block and the segments it feeds, and {name:
    Kept.normal} of those in `keeping`.

    `plan` has for each stream whether it is wanted and the length of its segment, `start` where the
    first of equal turns begins and `i`, an int or traced, which of them this is. asking: as
    FusionBlock's `wanted`. fusion: the block's parameters. own: {name: Kept.normal} of `kept`, at
    this block. blocks: {name: a tower's blocks of this turn}, where it does not index them by i.
    """
    names = list(self.towers)
    given = [kept[name].replace(normal=own[name]) if name in kept else streams[name]
             for name in names]
    fused, normal = self.fusion.apply(fusion, given, angles, wanted=asking)
    of_turn = {name: ({**towers[name], 'blocks': blocks[name]}, 0) if name in blocks else
               (towers[name], first + i * length)
               for name, first, (_, length) in zip(names, start, plan, strict=True)}
    streams = {name: self.towers[name].segment(*of_turn[name], length, stream)
               if length else stream
               for name, (wanted, length), stream in zip(names, plan, fused, strict=True) if wanted}
    return streams, {name: x for name, x in zip(names, normal, strict=True) if name in keeping}

  def _loop(self, turn, streams, *each):
    """`turn` again and again, each time with a row of `each`."""
    turn = self._checkpointed(turn)
    return jax.lax.scan(lambda streams, own: turn(own[0], streams, *own[1:]), streams, each)

  def _checkpointed(self, turn):
    return jax.checkpoint(turn) if self.remat else turn


def stretches(blocks, first, count, length):
  """Stacked blocks (depth, …) from `first` on, `length` for each of `count` turns: (count, length,
  …)."""
  return jax.tree.map(lambda leaf: leaf[first:first + count * length].reshape(
      count, length, *leaf.shape[1:]), blocks)


def rows(tree, index):
  """Rows `index` of every leaf of `tree`."""
  return jax.tree.map(lambda leaf: leaf[index], tree)
