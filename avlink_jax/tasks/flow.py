"""Every flow-matching task, whatever it generates and whatever conditions it."""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avlink_jax import flow
from avlink_jax.build import Models
from avlink_jax.codecs import text
from avlink_jax.errors import UserError
from avlink_jax.model.dit import Input
from avlink_jax.model.features import Features
from avlink_jax.model.frames import masked_mse
from avlink_jax.model.noise import gaussian


@dataclasses.dataclass(frozen=True)
class FlowTask:
  """T2A and T2V (a tower alone), V2A, A2V, both of them in one, and both modalities at once.

  `config.generate` lists directions, and a direction names what is generated ('audio+video':
  both at once); with a link the other modalities condition. An example is drawn one of the
  directions. What differs between the tasks is only that.
  """
  models: Models
  config: ConfigDict
  direction: str = ''  # the only one of the config's that this task goes; '': all of them
  players = ()

  def __post_init__(self):
    law = self.config.flow.condition_law
    if law not in ('fixed', 'uniform'):
      raise UserError(f'flow.condition_law={law!r}: use fixed or uniform')

  @property
  def linked(self):
    return self.models.link is not None

  @property
  def directions(self):
    """The sets of modalities that are generated together, as tuples."""
    every = (self.direction,) if self.direction else self.config.generate
    return tuple(tuple(direction.split('+')) for direction in every)

  @property
  def generate(self):
    """Everything that some direction generates, in the towers' order."""
    return tuple(name for name in self.models.towers
                 if any(name in direction for direction in self.directions))

  @property
  def modalities(self):
    return tuple(self.models.towers) if self.linked else self.generate

  @property
  def given(self):
    """What a sample needs of a clip."""
    return tuple(name for name in self.modalities if name not in self.generate)

  @property
  def given_layout(self):
    """How pictures come in that a user gives."""
    return self.models.layout

  @property
  def noised(self):
    """What the towers see with noise in it."""
    return tuple(name for name in self.modalities if not self.is_features(name))

  @property
  def reads(self):
    return tuple(f'{name}_features' if self.is_features(name) else name
                 for name in self.modalities)

  @property
  def frozen_parts(self):
    codec = ('codec',) if 'audio' in self.modalities else ()
    towers = tuple(name for name in self.models.towers if not self.is_features(name))
    return codec + (towers if self.linked else ())

  @property
  def tuned(self):
    """Towers that are trained along with the link: whatever the run generates, also where this
    task goes one way only and another of them conditions."""
    if not (self.linked and self.config.fusion.finetune):
      return ()
    return dataclasses.replace(self, direction='').generate

  def is_features(self, name):
    return isinstance(self.models.towers[name], Features)

  def toward(self, direction):
    """This task with one direction only, for sampling."""
    return dataclasses.replace(self, direction=direction)

  def pace(self, player):
    del player
    return 1.0

  def init(self, key, frozen):
    if self.linked:
      tuned = {name: jax.tree.map(lambda x: x.astype(jnp.float32), frozen['towers'][name]['dit'])
               for name in self.tuned}
      return self.models.link.init(key) | ({'towers': tuned} if tuned else {})
    name, = self.generate
    keys = jax.random.split(key)
    return {'dit': self.models.towers[name].init(keys[0]), 'text': self.models.text.init(keys[1])}

  def sampled(self, params):
    return params

  def init_stats(self):
    return {}

  def towers(self, params, frozen):
    """{name: {'dit', 'text'}} of all towers this task runs, as they are trained so far."""
    if not self.linked:
      return {self.generate[0]: params}
    return {name: {**frozen['towers'].get(name, {'dit': {}, 'text': {}}),
                   **({'dit': params['towers'][name]} if name in self.tuned else {})}
            for name in self.modalities}

  def features(self, params, frozen, inputs):
    """What the link can compute once and keep while something is generated (avlink.AVLink)."""
    if not self.linked:
      return None
    return self.models.link.features(self._dits(params, frozen), inputs, self.generate)

  def velocity(self, params, frozen, inputs, features=None):
    """Velocities {name: v} of the generated modalities."""
    dits = self._dits(params, frozen)
    if self.linked:
      return self.models.link.velocity(params, dits, inputs, self.generate, features)
    return {name: self.models.towers[name].velocity(dits[name], inputs[name])
            for name in self.generate}

  def _dits(self, params, frozen):
    return {name: tower['dit'] for name, tower in self.towers(params, frozen).items()}

  def clean(self, frozen, batch, name):
    """X_1 of a modality, (B, T, ...): pictures in [−1, 1], or the frozen codec's latents, or
    features from outside as they are."""
    if self.is_features(name):
      return batch[f'{name}_features']
    if name == 'video':
      return batch['video'].astype(jnp.float32) / 127.5 - 1
    if 'audio_latents' in batch:  # prepared by that very codec (pipeline.check_codec)
      return batch['audio_latents']
    return self.models.codec.encode_padded(frozen['codec']['params'], frozen['codec']['std'],
                                           batch['mel'])

  def mask(self, batch, name):
    """Where `clean` is real, not padding: bool (B, T)."""
    mask = batch[f'{name}_mask']
    if name == 'video':
      return mask
    stride = self.models.codec.stride
    mask = jnp.pad(mask, ((0, 0), (0, -mask.shape[1] % stride)))
    return mask.reshape(mask.shape[0], -1, stride).any(-1)

  def condition_time(self, name, size):
    """t of a conditioning modality: fixed (Sec. 3.3); features from outside have no noise."""
    return jnp.full(size, 1.0 if self.is_features(name) else self.config.flow.condition_time[name])

  def drawn_guide(self, frozen, batch, key, size, part):
    """What a tower is guided by in training, as dit.Input's fields; drawn for `size` examples, of
    which `part` takes those of `batch`. Here there is none (UpsamplerTask)."""
    del frozen, batch, key, size, part
    return {}

  def fixed_guide(self, frozen, batch, noise):
    """The same while something is generated."""
    del frozen, batch, noise
    return {}

  def encode(self, towers, name, prepared):
    """A modality's prompts -> embeddings, mask; of features nobody asks."""
    if self.is_features(name):
      return None, None
    return self.models.text.encode(towers[name]['text'], prepared)

  def loss(self, params, stats, frozen, batch, key, step=None, player=None,
           part=lambda examples: examples):
    """Eq. 5: mean squared error of the velocity, over real (not padded) data.

    Both times of a pair that is generated at once are the same draw, each moved by its own
    location, so that training sees the pairs that the sampler goes through. Of several
    modalities each counts by `flow.loss_weight`: one optimiser hears the louder gradient.

    Everything is drawn for the whole batch, and what is real is counted in all of it; then `part`
    takes the examples that the towers see. So the parts' losses add up to the batch's.
    """
    del step, player
    laws, towers = self.config.flow, self.towers(params, frozen)
    drawing, timing, key = jax.random.split(key, 3)
    size = batch[f'{self.modalities[0]}_mask'].shape[:1]
    direction = jax.random.randint(drawing, size, 0, len(self.directions))
    inputs, targets, counted = {}, {}, {}
    seen = jax.tree.map(part, batch)
    guide = self.drawn_guide(frozen, seen, jax.random.fold_in(key, len(self.modalities)), size,
                             part)
    for i, name in enumerate(self.modalities):
      of_direction = jnp.asarray([name in names for names in self.directions])
      made = of_direction[direction]
      counted[name] = self.mask(batch, name) & made[:, None]
      noise, other_time, prompt = jax.random.split(jax.random.fold_in(key, i), 3)
      x1 = self.clean(frozen, seen, name)
      t = flow.logit_normal(timing, size, laws.location[name], laws.scale)
      standing = self.condition_time(name, size)
      if self.is_features(name):
        inputs[name] = Input(x1, part(standing), None, None, self.mask(seen, name))
        continue
      if laws.condition_law == 'uniform':
        standing = jax.random.uniform(other_time, size)
      t = part(jnp.where(made, t, standing))
      x0 = part(gaussian(noise, size + x1.shape[1:]))
      null = jax.tree.map(jnp.asarray, self.models.text.prepare(['']))
      rate = jnp.where(made, laws.drop_generated, laws.drop_condition)
      said = jax.tree.map(part, text.drop(prompt, batch[f'{name}_text'], null, rate))
      inputs[name] = Input(flow.interpolate(x1, x0, t), t, *self.encode(towers, name, said),
                           self.mask(seen, name), **guide)
      targets[name] = flow.target(x1, x0)
    velocities = self.velocity(params, frozen, inputs)
    metrics = {
        f'mse_{name}': masked_mse(v, targets[name], part(counted[name]), counted[name])
        for name, v in velocities.items()}
    loss = sum(laws.loss_weight[name] * metrics[f'mse_{name}'] for name in velocities)
    key = jax.random.fold_in(key, len(self.modalities) + 1)
    for name, v in velocities.items():
      shown = self.shown_loss(
          frozen, name, inputs[name], v, targets[name], counted[name], part, key)
      for figure, (weight, value) in shown.items():
        metrics[figure] = value
        loss += weight * value
    return loss, (metrics, stats)

  def shown_loss(self, frozen, name, inputs, velocity, target, counted, part, key):
    """What else a velocity (B, T, …) costs, by what it leads to: {figure: (weight, value)}, values
    as parts of a batch give them (`loss`), where `counted` (batch, T) is what is real in all of it.
    """
    del frozen, name, inputs, velocity, target, counted, part, key
    return {}
