"""AV-Link: two frozen towers, cut into segments, with Fusion Blocks in the cuts (Sec. 3.3)."""

import dataclasses

import jax

from avlink_jax.errors import UserError
from avlink_jax.model.dit import DiT
from avlink_jax.model.fusion import Fusion


def segment_lengths(depth, fusions, placement):
  """Blocks of a tower before, between and after the Fusion Blocks: fusions + 1 numbers.

  'interleaved' spreads them evenly, the last one after the last block (24 blocks, 8 fusions:
  after 3, 6, … 24); 'after:K' puts the whole group after block K (Sec. 4.4's ablation).
  """
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


@dataclasses.dataclass(frozen=True)
class AVLink:
  """Towers linked by Fusion Blocks; a pure function of (frozen towers, fusion parameters).

  The tower names order the streams: {'audio': DiT, 'video': DiT}.
  """
  towers: dict[str, DiT]
  fusion: Fusion
  placement: str = 'interleaved'
  remat: bool = False

  def init(self, key):
    """The trainable part: stacked Fusion Blocks."""
    return self.fusion.init(key, [tower.width for tower in self.towers.values()])

  def velocity(self, fusion, frozen, inputs, outputs):
    """Velocities of the modalities in `outputs`, each conditioned on the other.

    The first segments run before anything trainable, so no gradient is computed there. Then
    each scan step is one Fusion Block and the segments it feeds: both its outputs replace
    the activations that enter the next blocks of both towers (symmetric reinjection).

    Args:
      fusion: stacked Fusion Block parameters (the only trainable ones).
      frozen: {name: tower parameters}.
      inputs: {name: dit.Input}.
      outputs: names whose velocity is wanted; blocks that feed none of them are not run.
    Returns:
      {name: velocity, shaped as that input's x}.
    """
    names = list(self.towers)
    lengths = {name: segment_lengths(tower.depth, self.fusion.blocks, self.placement)
               for name, tower in self.towers.items()}
    seconds = [s for name in names for s in self.towers[name].seconds(inputs[name].x.shape[1:-1])]
    angles = self.fusion.angles(seconds)
    streams = []
    for name in names:
      first = jax.tree.map(lambda p, n=name: p[:lengths[n][0]], frozen[name]['blocks'])
      tower = self.towers[name]
      streams.append(tower.segment(first, tower.embed(frozen[name], inputs[name])))

    last = self.fusion.blocks
    plans = [tuple(lengths[name][i] if i < last or name in outputs else 0 for name in names)
             for i in range(1, last + 1)]
    start = {name: lengths[name][0] for name in names}
    for plan, first, count in runs(plans):
      fusion_slice = jax.tree.map(lambda p, i=first, n=count: p[i:i + n], fusion['blocks'])
      block_slices = []
      for name, length in zip(names, plan, strict=True):
        block_slices.append(jax.tree.map(
            lambda p, s=start[name], n=count, k=length: p[s:s + n * k].reshape(
                (n, k) + p.shape[1:]), frozen[name]['blocks']))
        start[name] += count * length

      def step(streams, params, plan=plan):
        fusion_params, blocks = params
        streams = self.fusion.apply(fusion_params, streams, angles)
        return [self.towers[name].segment(b, s) if k else s
                for name, k, b, s in zip(names, plan, blocks, streams, strict=True)], None

      body = jax.checkpoint(step) if self.remat else step
      streams, _ = jax.lax.scan(body, streams, (fusion_slice, block_slices))
    streams = dict(zip(names, streams, strict=True))
    return {name: self.towers[name].head(frozen[name], streams[name]) for name in outputs}
