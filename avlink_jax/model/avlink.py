"""AV-Link: two frozen towers, cut into segments, with Fusion Blocks in the cuts (Sec. 3.3)."""

import dataclasses

import jax
import jax.numpy as jnp

from avlink_jax.errors import UserError
from avlink_jax.model.dit import DiT
from avlink_jax.model.fusion import Fusion


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


def cut_tokens(tower, params, inputs, lengths):
  """A tower's activations at each cut, nothing reinjected: [(B, N, C)], one a Fusion Block."""
  stream, first, cuts = tower.embed(params, inputs), 0, []
  for length in lengths[:-1]:
    if length:
      blocks = jax.tree.map(lambda p, i=first, n=length: p[i:i + n], params['blocks'])
      stream = tower.segment(blocks, stream)
    first += length
    cuts.append(stream.tokens)
  return stream, cuts


@dataclasses.dataclass(frozen=True)
class AVLink:
  """Towers linked by Fusion Blocks; a pure function of (frozen towers, fusion parameters).

  The tower names order the streams: {'audio': DiT, 'video': DiT}. Every link has these three:

      init(key)                                    -> trainable parameters
      features(towers, inputs, outputs)            -> what does not depend on what is generated,
                                                      to be computed once a sample; None if nothing
      velocity(link, towers, inputs, outputs, features=None) -> {name: velocity}

  Attributes:
    reinject: symmetric feature reinjection (Sec. 3.3). Without it the conditioning stream goes
      through its tower untouched, so that its activations are `features`.
  """
  towers: dict[str, DiT]
  fusion: Fusion
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
      inputs: {name: dit.Input}.
      outputs: names whose velocity is wanted; blocks that feed none of them are not run.
      features: what `features` gave for these inputs, where it is kept.
    Returns:
      {name: velocity, shaped as that input's x}.
    """
    names, lengths = list(self.towers), self._lengths()
    if features is None:
      features = self.features(towers, inputs, outputs)
    static = features or {}
    angles = [self.fusion.angles(self.towers[name].seconds(inputs[name].x.shape[1:-1]))
              for name in names]
    streams = {}
    for name in names:
      if name in static:
        streams[name] = static[name].replace(tokens=static[name].tokens[0])
        continue
      tower, count = self.towers[name], lengths[name][0]
      streams[name] = tower.embed(towers[name], inputs[name])
      if count:
        first = jax.tree.map(lambda p, n=count: p[:n], towers[name]['blocks'])
        streams[name] = tower.segment(first, streams[name])

    last = self.fusion.blocks
    plans = [tuple(lengths[name][i] if name not in static and (i < last or name in outputs) else 0
                   for name in names) for i in range(1, last + 1)]
    start = {name: lengths[name][0] for name in names}
    for plan, first, count in runs(plans):
      blocks = {}
      for name, length in zip(names, plan, strict=True):
        if length:
          blocks[name] = jax.tree.map(
              lambda p, s=start[name], n=count, k=length: p[s:s + n * k].reshape(
                  (n, k) + p.shape[1:]), towers[name]['blocks'])
        start[name] += count * length
      fusion = jax.tree.map(lambda p, i=first, n=count: p[i:i + n], link['blocks'])
      given = {name: kept.tokens[first:first + count] for name, kept in static.items()}

      def step(streams, params):
        fusion_params, blocks, given = params
        streams = streams | {name: streams[name].replace(tokens=x) for name, x in given.items()}
        fused = self.fusion.apply(fusion_params, [streams[name] for name in names], angles)
        return {name: self.towers[name].segment(blocks[name], s) if name in blocks else s
                for name, s in zip(names, fused, strict=True)}, None

      body = jax.checkpoint(step) if self.remat else step
      if count == 1:  # no loop, so that what nobody asks of it is not computed: its other stream
        streams, _ = body(streams, jax.tree.map(lambda p: p[0], (fusion, blocks, given)))
      else:
        streams, _ = jax.lax.scan(body, streams, (fusion, blocks, given))
    return {name: self.towers[name].head(towers[name], streams[name]) for name in outputs}
