"""AV-Link: two frozen towers, cut into segments, with Fusion Blocks in the cuts (Sec. 3.3)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from avlink_jax.errors import UserError
from avlink_jax.model.aided_fusion import AidedFusion
from avlink_jax.model.fusion import Fusion
from avlink_jax.model.tower import Tower


def segment_lengths(depth, fusions, placement):
  """Blocks of a tower before, between and after the Fusion Blocks: fusions + 1 numbers.

  'interleaved' spreads them evenly, the last one after the last block (24 blocks, 8 fusions:
  after 3, 6, … 24); 'after:K' puts the whole group after block K (Sec. 4.4's ablation).
  """
  if depth == 0:  # features from outside have no blocks to place anything between
    return [0] * (fusions + 1)
  if placement == 'interleaved' and depth % fusions == 0:
    return [depth // fusions] * fusions + [0]
  kind, _, k = placement.partition(':')
  if kind == 'after' and k.isdigit() and 0 < int(k) <= depth:
    return [int(k)] + [0] * (fusions - 1) + [depth - int(k)]
  raise UserError(
      f"fusion.placement={placement!r} does not cut a tower of {depth} blocks for {fusions} "
      "Fusion Blocks: use 'interleaved' (where the blocks divide) or 'after:K'")


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

  The tower names order the streams: {'audio': Tower, 'video': Tower}. Every link has these three:

      init(key)                                    -> trainable parameters
      features(towers, inputs, outputs)            -> what does not depend on what is generated,
                                                      to be computed once a sample; None if nothing
      velocity(link, towers, inputs, outputs, features=None) -> {name: velocity}

  Attributes:
    reinject: symmetric feature reinjection (Sec. 3.3). Without it the conditioning stream goes
      through its tower untouched, so that its activations are `features`.
  """
  towers: dict[str, Tower]
  fusion: Fusion | AidedFusion
  placement: str = 'interleaved'
  remat: bool = False
  reinject: bool = True

  def init(self, key):
    """The trainable part: stacked Fusion Blocks."""
    return self.fusion.init(key, [tower.width for tower in self.towers.values()])

  def _lengths(self):
    return {name: segment_lengths(tower.depth, self.fusion.blocks, self.placement)
            for name, tower in self.towers.items()}

  def features(self, towers, inputs, outputs):
    """{name: Stream with tokens (fusions, B, N, C)} of streams that nothing is put back into."""
    if self.reinject:
      return None
    lengths, features = self._lengths(), {}
    for name in self.towers:
      if name not in outputs:
        stream, cuts = cut_tokens(self.towers[name], towers[name], inputs[name], lengths[name])
        features[name] = stream.replace(tokens=jnp.stack(cuts))
    return features

  def velocity(self, link, towers, inputs, outputs, features=None):
    """Velocities of the modalities in `outputs`, each conditioned on the other.

    The first segments run before anything trainable, so no gradient is computed there. Then
    each scan step is one Fusion Block and the segments it feeds: both its outputs replace
    the activations that enter the next blocks of both towers (symmetric reinjection).

    Args:
      link: stacked Fusion Block parameters.
      towers: {name: tower parameters}.
      inputs: {name: tower.Input}.
      outputs: names whose velocity is wanted; blocks that feed none of them are not run.
      features: what `features` gave for these inputs, where it is kept.
    Returns:
      {name: velocity, shaped as that input's x}.
    """
    names, lengths = list(self.towers), self._lengths()
    if features is None:
      features = self.features(towers, inputs, outputs)
    static = features or {}
    angles = [self.fusion.angles(self.towers[name].token_seconds(inputs[name].x.shape[1:-1]))
              for name in names]
    streams = {}
    for name in names:
      if name in static:
        streams[name] = static[name].replace(tokens=static[name].tokens[0])
        continue
      streams[name] = self.towers[name].embed(towers[name], inputs[name])
      if lengths[name][0]:
        streams[name] = self.towers[name].segment(
            towers[name], 0, lengths[name][0], streams[name])

    last = self.fusion.blocks
    plans = [tuple(lengths[name][i] if name not in static and (i < last or name in outputs) else 0
                   for name in names) for i in range(1, last + 1)]
    start = [lengths[name][0] for name in names]
    for plan, first, count in runs(plans):
      fusion = jax.tree.map(lambda p, i=first, n=count: p[i:i + n], link['blocks'])
      kept = {name: stream.tokens[first:first + count] for name, stream in static.items()}
      turn = functools.partial(self._turn, towers, angles, plan, start)
      if count == 1:  # unrolled, so that XLA drops the unused stream's output
        own = jax.tree.map(lambda p: p[0], (fusion, kept))
        streams = self._checkpointed(functools.partial(turn, 0))(streams, *own)
      else:
        streams = self._loop(turn, streams, jnp.arange(count), fusion, kept)
      start = [n + count * length for n, length in zip(start, plan, strict=True)]
    return {name: self.towers[name].head(towers[name], streams[name]) for name in outputs}

  def _turn(self, towers, angles, plan, start, i, streams, fusion, kept):
    """{name: Stream} after one Fusion Block and the segments it feeds.

    `plan` has the lengths of these segments, `start` where the first of equal turns begins and `i`,
    an int or traced, which of them this is. fusion: the block's parameters. kept: {name: tokens} of
    streams that nothing is put back into.
    """
    given = [streams[name].replace(tokens=kept[name]) if name in kept else streams[name]
             for name in self.towers]
    fused = self.fusion.apply(fusion, given, angles)
    return {name: self.towers[name].segment(towers[name], first + i * length, length, stream)
            if length else stream
            for name, first, length, stream in zip(self.towers, start, plan, fused, strict=True)}

  def _loop(self, turn, streams, *each):
    """`turn` again and again, each time with a row of `each`."""
    turn = self._checkpointed(turn)
    step = lambda streams, own: (turn(own[0], streams, *own[1:]), None)  # noqa: E731
    return jax.lax.scan(step, streams, each)[0]

  def _checkpointed(self, turn):
    return jax.checkpoint(turn) if self.remat else turn
