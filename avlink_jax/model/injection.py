"""Other ways to let one modality condition the other, for the ablations of Sec. 4.4 (Table 2).

Both look at the conditioning tower's activations at the cuts where Fusion Blocks would sit,
averaged over space, a vector a moment. They change what enters the generated tower and nothing
inside it, so it is usually fine-tuned along (`fusion.finetune`).
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from avlink_jax.errors import UserError
from avlink_jax.model.avlink import cut_tokens, segment_lengths
from avlink_jax.model.dit import layer_norm, time_features
from avlink_jax.model.tower import Tower


class Project(nn.Module):
  """Features (B, T, C) at `seconds` (T,) -> (B, T, width); with `zero_init`, 0 at initialisation
  and without a clock."""
  width: int
  zero_init: bool
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features, seconds):
    kernel = nn.initializers.zeros if self.zero_init else nn.initializers.lecun_normal()
    x = nn.Dense(self.width, kernel_init=kernel, dtype=self.dtype, name='features')(features)
    if self.zero_init:
      return x
    clock = time_features(jnp.asarray(seconds, jnp.float32), scale=1.0, max_period=100.0)
    return x + nn.Dense(self.width, dtype=self.dtype, name='clock')(clock)


def pool(tokens, mask, moments):
  """Mean over space of real tokens: (B, T·S, C), (B, T·S) -> (B, T, C), (B, T)."""
  tokens = tokens.reshape(tokens.shape[0], moments, -1, tokens.shape[-1])
  mask = mask.reshape(mask.shape[0], moments, -1)
  weight = mask[..., None].astype(tokens.dtype)
  return jnp.sum(tokens * weight, 2) / jnp.maximum(jnp.sum(weight, 2), 1), mask.any(-1)


def moment_seconds(tower, shape, moments):
  """When each moment of a tower's tokens is: float64 (T,); tokens are time first."""
  return tower.token_seconds(shape).reshape(moments, -1)[:, 0]


def resampling(source, target):
  """Matrix (T_target, T_source) of means that brings values at `source` seconds to `target`.

  A target moment takes the mean of the source moments that fall into it, before the next one; where
  there are none, the source being slower, it repeats the one that is on (Movie Gen's direct
  alignment). The last moment is as long as the one before it.
  """
  steps = np.diff(target)
  ends = target + np.append(steps, steps[-1:] if len(steps) else np.inf)
  inside = (source >= target[:, None] - 1e-9) & (source < ends[:, None] - 1e-9)
  on = np.maximum(np.searchsorted(source, target + 1e-9, side='right') - 1, 0)
  repeated = np.arange(len(source)) == on[:, None]
  weights = np.where(inside.any(1, keepdims=True), inside, repeated).astype(np.float64)
  return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Injection:
  """A link (see avlink.AVLink) without Fusion Blocks.

  Attributes:
    kind: 'text': the conditioning features stand beside the prompt's embeddings, for the
      generated tower's cross-attention to look at (Diff-Foley's way). 'add': brought to the
      generated tokens' times and added to them (Movie Gen's); nothing is added at initialisation.
    cuts: from how many places of the conditioning tower features are taken, side by side.
  """
  towers: dict[str, Tower]
  generated: str
  kind: str
  cuts: int
  placement: str = 'interleaved'
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    if self.kind not in ('text', 'add'):
      raise UserError(f'fusion.injection={self.kind!r}: use fusion, cross, text or add')

  @property
  def _source(self):
    name, = set(self.towers) - {self.generated}
    return name

  @property
  def _project(self):
    return Project(self.towers[self.generated].width, self.kind == 'add', self.dtype)

  def init(self, key):
    features = jnp.zeros((1, 1, self.cuts * self.towers[self._source].width))
    return {'project': self._project.init(key, features, jnp.zeros(1))['params']}

  def begin(self, link, towers, inputs, outputs):
    """Features (B, T, cuts·C) and their mask (B, T): each cut normalised apart."""
    del link, outputs
    name = self._source
    tower = self.towers[name]
    lengths = segment_lengths(tower.depth, self.cuts, self.placement)
    stream, cuts = cut_tokens(tower, towers[name], inputs[name], lengths)
    pooled = [pool(tokens, stream.mask, stream.moments) for tokens in cuts]
    return jnp.concatenate([layer_norm(x) for x, _ in pooled], axis=-1), pooled[0][1]

  def refresh(self, link, towers, inputs, outputs, conditions=None):
    """As `velocity`, and the conditions, which always stand."""
    if conditions is None:
      conditions = self.begin(link, towers, inputs, outputs)
    return self.velocity(link, towers, inputs, outputs, conditions), conditions

  def velocity(self, link, towers, inputs, outputs, conditions=None):
    """{generated: velocity}; shapes as in avlink.AVLink.velocity."""
    name, = outputs
    tower, source = self.towers[name], self._source
    if conditions is None:
      conditions = self.begin(link, towers, inputs, outputs)
    x, mask = conditions
    seconds = moment_seconds(self.towers[source], inputs[source].x.shape[1:-1], x.shape[1])
    x = self._project.apply({'params': link['project']}, x, seconds)
    stream = tower.embed(towers[name], inputs[name])
    if self.kind == 'text':
      stream = stream.replace(text=jnp.concatenate([stream.text, x], axis=1),
                              text_mask=jnp.concatenate([stream.text_mask, mask], axis=1))
    else:
      x = jnp.where(mask[..., None], x, 0)
      weights = resampling(
          seconds, moment_seconds(tower, inputs[name].x.shape[1:-1], stream.moments))
      added = jnp.einsum('ns,bsc->bnc', weights.astype(x.dtype), x)
      places = stream.tokens.shape[1] // stream.moments
      stream = stream.replace(tokens=stream.tokens + jnp.repeat(added, places, axis=1))
    stream = tower.segment(towers[name], 0, tower.depth, stream)
    return {name: tower.head(towers[name], stream)}
