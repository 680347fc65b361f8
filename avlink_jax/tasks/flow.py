"""Every flow-matching task, whatever it generates and whatever conditions it."""

import dataclasses

import jax
import jax.numpy as jnp

from avlink_jax import flow
from avlink_jax.codecs import text
from avlink_jax.errors import UserError
from avlink_jax.model.frames import masked_mse
from avlink_jax.model.noise import gaussian
from avlink_jax.model.tower import Input
from avlink_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class FlowTask(Task):
  """T2A and T2V (a tower alone), V2A, A2V, both of them in one, and both modalities at once.

  `config.generate` lists directions, and a direction names what is generated ('audio+video':
  both at once); with a link the other modalities condition. An example is drawn one of the
  directions. What differs between the tasks is only that.

  Attributes:
    direction: the only one of the config's that this task goes; '': all of them.
    input_type: what its towers are given.
    guide: what a tower looks at beside its noisy data (low_video.LowVideo); None: nothing.
  """
  direction: str = ''
  prompted = True
  sampler = 'flow'
  guide = None
  input_type = Input

  def __post_init__(self):
    law = self.config.flow.condition_law
    if law not in ('fixed', 'uniform'):
      raise UserError(f'flow.condition_law={law!r}: use fixed or uniform')

  @property
  def linked(self):
    return self.models.link is not None

  @property
  def directions(self):
    every = (self.direction,) if self.direction else self.config.generate
    return tuple(tuple(direction.split('+')) for direction in every)

  @property
  def generate(self):
    """Everything that some direction generates, in the towers' order."""
    return tuple(name for name in self.models.modalities
                 if any(name in direction for direction in self.directions))

  @property
  def modalities(self):
    return tuple(self.models.modalities) if self.linked else self.generate

  @property
  def given(self):
    return tuple(name for name in self.modalities if name not in self.generate)

  @property
  def beside(self):
    return self.given

  @property
  def given_layout(self):
    """How media come in that a user gives."""
    return self.models.layout

  @property
  def readers(self):
    return tuple(self.codec(name) for name in self.modalities)

  @property
  def noised(self):
    """The modalities whose towers see noise in their data."""
    return tuple(name for name in self.modalities if self.codec(name).noise)

  @property
  def frozen_parts(self):
    codecs = dict.fromkeys(self.codec(name).part for name in self.modalities)
    towers = tuple(name for name, modality in self.models.modalities.items() if modality.prompted)
    return tuple(filter(None, codecs)) + (towers if self.linked else ())

  @property
  def tuned(self):
    """Towers that are trained along with the link: whatever the run generates, also where this
    task goes one way only and another of them conditions."""
    if not (self.linked and self.config.fusion.finetune):
      return ()
    return dataclasses.replace(self, direction='').generate

  @property
  def towers_run(self):
    return {name: self.models.towers[name] for name in self.modalities}

  @property
  def upsampled(self):
    return 'video' in self.generate

  @property
  def decoder_weights(self):
    return [self.codec(name).decoder_weights for name in self.generate]

  def codec(self, name):
    return self.models.modalities[name].codec

  def toward(self, direction):
    return dataclasses.replace(self, direction=direction)

  def check(self):
    for name in self.modalities:
      if self.models.modalities[name].prompted:
        self.models.modalities[name].text.check('')
    for name in self.generate:
      self.codec(name).check()

  def check_prompt(self, prompt):
    for name in self.modalities:
      if self.models.modalities[name].prompted:
        self.models.modalities[name].text.check(prompt)

  def init(self, key, frozen):
    if self.linked:
      tuned = {name: jax.tree.map(lambda x: x.astype(jnp.float32), frozen['towers'][name]['dit'])
               for name in self.tuned}
      return self.models.link.init(key) | ({'towers': tuned} if tuned else {})
    name, = self.generate
    modality, keys = self.models.modalities[name], jax.random.split(key)
    return {'dit': modality.tower.init(keys[0]), 'text': modality.text.init(keys[1])}

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

  def codec_weights(self, frozen, name):
    """{'params', 'std'} of a modality's codec; None where it has none."""
    return frozen.get(self.codec(name).part)

  def clean(self, frozen, batch, name):
    """X_1 of a modality, (B, T, ...)."""
    return self.codec(name).encode(self.codec_weights(frozen, name), batch)

  def mask(self, batch, name):
    """Where `clean` is real, not padding: bool (B, T)."""
    return self.codec(name).mask(batch)

  def finish(self, frozen, name, decoded, clip):
    """A clip's media of what its codec decoded (T, …): float32 (S,) or uint8 (N, H, W, 3)."""
    return self.codec(name).finish(
        self.codec_weights(frozen, name), decoded, clip.duration, self.models.layout)

  def condition_time(self, name, size):
    """t of a conditioning modality: fixed (Sec. 3.3); what is never noised is at 1."""
    return jnp.full(size, self.config.flow.condition_time[name] if self.codec(name).noise else 1.0)

  def encode(self, towers, name, prepared):
    """A modality's prompts -> {'text', 'text_mask'} of its Input; None where nobody listens."""
    if not self.models.modalities[name].prompted:
      return dict(text=None, text_mask=None)
    embedded, mask = self.models.modalities[name].text.encode(towers[name]['text'], prepared)
    return dict(text=embedded, text_mask=mask)

  def null(self, name):
    """The null prompt of a modality, prepared, of one example."""
    return jax.tree.map(jnp.asarray, self.models.modalities[name].text.prepare(['']))

  def loss(self, params, stats, frozen, batch, key, step=None, group=None,
           part=lambda examples: examples):
    """Eq. 5: mean squared error of the velocity, over real (not padded) data.

    Both times of a pair that is generated at once are the same draw, each moved by its own
    location, so that training sees the pairs that the sampler goes through. Of several
    modalities each counts by `flow.loss_weight`: one optimiser sees the larger gradient.

    Everything is drawn for the whole batch, and what is real is counted in all of it; then `part`
    takes the examples that the towers see. So the parts' losses add up to the batch's.
    """
    del step, group
    inputs, targets, counted, key = self._draw(params, frozen, batch, key, part)
    velocities = self.velocity(params, frozen, inputs)
    terms = self.terms(frozen, inputs, velocities, targets, counted, part, key)
    metrics = {figure: value for figure, (_, value) in terms.items()}
    return sum(weight * value for weight, value in terms.values()), (metrics, stats)

  def _draw(self, params, frozen, batch, key, part):
    """Directions, times, noise and dropped prompts of a batch: the towers' inputs and velocities
    to regress, by modality, which of them count (batch, T), and a key for what else is drawn."""
    laws, towers = self.config.flow, self.towers(params, frozen)
    drawing, timing, key = jax.random.split(key, 3)
    size = self.mask(batch, self.modalities[0]).shape[:1]
    direction = jax.random.randint(drawing, size, 0, len(self.directions))
    inputs, targets, counted = {}, {}, {}
    seen = jax.tree.map(part, batch)
    guide = {} if self.guide is None else self.guide.draw(
        frozen, seen, jax.random.fold_in(key, len(self.modalities)), size, part)
    for i, name in enumerate(self.modalities):
      of_direction = jnp.asarray([name in names for names in self.directions])
      generated = of_direction[direction]
      counted[name] = self.mask(batch, name) & generated[:, None]
      noise, other_time, prompt = jax.random.split(jax.random.fold_in(key, i), 3)
      x1, mask = self.clean(frozen, seen, name), self.mask(seen, name)
      t = flow.logit_normal(timing, size, laws.location[name], laws.scale)
      standing = self.condition_time(name, size)
      if not self.codec(name).noise:
        inputs[name] = self.input_type(x=x1, t=part(standing), text=None, text_mask=None, mask=mask)
        continue
      if laws.condition_law == 'uniform':
        standing = jax.random.uniform(other_time, size)
      t = part(jnp.where(generated, t, standing))
      x0 = part(gaussian(noise, size + x1.shape[1:]))
      rate = jnp.where(generated, laws.drop_generated, laws.drop_condition)
      prompts = jax.tree.map(
          part, text.drop(prompt, batch[f'{name}_text'], self.null(name), rate))
      inputs[name] = self.input_type(x=flow.interpolate(x1, x0, t), t=t, mask=mask,
                                **self.encode(towers, name, prompts), **guide)
      targets[name] = flow.target(x1, x0)
    return inputs, targets, counted, jax.random.fold_in(key, len(self.modalities) + 1)

  def terms(self, frozen, inputs, velocities, targets, counted, part, key):
    """What the loss is the sum of: {figure: (weight, value)}, values as parts of a batch give them
    (`loss`), where `counted` {name: (batch, T)} is what is real in all of it."""
    del frozen, inputs, key
    weights = self.config.flow.loss_weight
    return {f'mse_{name}': (weights[name], masked_mse(
        v, targets[name], part(counted[name]), counted[name])) for name, v in velocities.items()}
