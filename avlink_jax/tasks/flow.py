"""The flow-matching task: T2A, T2V, V2A, A2V, joint, and both modalities at once."""

import dataclasses

import jax
import jax.numpy as jnp

from avlink_jax import flow
from avlink_jax.codecs.text import drop
from avlink_jax.errors import UserError
from avlink_jax.model import pretrained
from avlink_jax.model.frames import masked_mse
from avlink_jax.model.noise import gaussian
from avlink_jax.model.tower import Input
from avlink_jax.tasks.schedule import Schedule
from avlink_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class FlowTask(Task):
  """T2A and T2V (a tower alone), V2A, A2V, both of them in one, and both modalities at once.

  `config.generate` lists directions; a direction names what is generated ('audio+video': both at
  once), and with a link the other modalities condition. Each training example is assigned a random
  direction. The tasks differ in nothing else.

  Attributes:
    direction: restricts the task to one of the config's directions; '': all.
    input_type: class of its towers' inputs.
    guide: additional input of a tower beside its noisy data (low_video.LowVideo), or None.
  """
  direction: str = ''
  prompted = True
  sampler = 'flow'
  guide = None
  input_type = Input

  def __post_init__(self):
    if not self.config.generate:
      raise UserError(f'generate=() leaves {self.config.task} nothing to do: give audio, video or '
                      'audio+video')
    law = self.config.flow.condition_law
    if law not in ('fixed', 'uniform'):
      raise UserError(f'flow.condition_law={law!r}: use fixed or uniform')
    refresh, all_of_them = self.schedule.refresh, set(self.models.modalities)
    if refresh > 1 and not (self.linked and all(
        set(names) < all_of_them for names in self.directions)):
      raise UserError(f'sample.refresh={refresh}: {self.config.task} has no conditioning stream: '
                      'leave it at 1')

  @property
  def schedule(self):
    """Schedule of its samples."""
    return Schedule.of(self.config.sample)

  @property
  def linked(self):
    return self.models.link is not None

  @property
  def directions(self):
    names = (self.direction,) if self.direction else self.config.generate
    return tuple(tuple(direction.split('+')) for direction in names)

  @property
  def generate(self):
    """Modalities that any direction generates, in the towers' order."""
    return tuple(name for name in self.models.modalities
                 if any(name in direction for direction in self.directions))

  @property
  def modalities(self):
    return tuple(self.models.modalities) if self.linked else self.generate

  @property
  def conditions(self):
    return tuple(name for name in self.modalities if name not in self.generate)

  @property
  def kept_media(self):
    return self.conditions

  @property
  def needed(self):
    """What conditions, and video, which a clip has its length of: a silent one lacks nothing but a
    reference for audio that is generated."""
    return tuple(name for name in self.modalities
                 if name in self.conditions or self.codec(name).medium == 'video')

  @property
  def condition_layout(self):
    """Layout of a user's conditioning clips."""
    return self.models.layout

  @property
  def readers(self):
    return tuple(self.codec(name) for name in self.modalities)

  @property
  def noised(self):
    """Modalities whose data get noise."""
    return tuple(name for name in self.modalities if self.codec(name).noise)

  @property
  def frozen_parts(self):
    codecs = dict.fromkeys(self.codec(name).part for name in self.modalities)
    towers = tuple(name for name, modality in self.models.modalities.items() if modality.prompted)
    return tuple(filter(None, codecs)) + (towers if self.linked else ())

  @property
  def published_part(self):
    name = self.generate[0]
    return name if not self.linked and pretrained.source(self.config, name) else ''

  @property
  def links_published(self):
    return self.linked and all(pretrained.source(self.config, name) for name in self.texts)

  @property
  def finetuned(self):
    """Towers that are trained with the link: of all modalities that the run generates, even if this
    task is restricted to a direction in which one of them conditions."""
    if not (self.linked and self.config.fusion.finetune):
      return ()
    return dataclasses.replace(self, direction='').generate

  @property
  def active_towers(self):
    return {name: self.models.towers[name] for name in self.modalities}

  @property
  def texts(self):
    return {name: self.models.modalities[name].text for name in self.modalities
            if self.models.modalities[name].prompted}

  @property
  def base(self):
    layout = self.models.layout
    for name in self.generate:
      if self.codec(name).medium == 'video':
        _, rows, columns, _ = self.codec(name).shape(layout)
        _, high, wide = self.config.towers[name].patch
        patch = [round(high * layout.height / rows), round(wide * layout.width / columns)]
        return dict(height=layout.height, width=layout.width, fps=layout.fps, patch=patch)
    return {}

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
    for text in self.texts.values():
      text.check('')
    for name in self.generate:
      self.codec(name).check()

  def check_samples(self):
    for name in self.generate:
      self.codec(name).check_samples()

  def check_prompt(self, prompt):
    for text in self.texts.values():
      text.check(prompt)

  def init(self, key, frozen):
    if self.linked:
      towers = {name: jax.tree.map(lambda x: x.astype(jnp.float32), frozen['towers'][name]['dit'])
                for name in self.finetuned}
      return self.models.link.init(key) | ({'towers': towers} if towers else {})
    name, = self.generate
    modality, keys = self.models.modalities[name], jax.random.split(key)
    return {'dit': modality.tower.init(keys[0]), 'text': modality.text.init(keys[1])}

  def towers(self, params, frozen):
    """Current parameters {name: {'dit', 'text'}} of all towers that this task runs."""
    if not self.linked:
      return {self.generate[0]: params}
    return {name: {**frozen['towers'].get(name, {'dit': {}, 'text': {}}),
                   **({'dit': params['towers'][name]} if name in self.finetuned else {})}
            for name in self.modalities}

  def begin(self, params, frozen, inputs):
    """Conditions (avlink.AVLink): what of the conditioning streams is computed once a sample."""
    if not self.linked:
      return None
    return self.models.link.begin(params, self._dits(params, frozen), inputs, self.generate)

  def velocity(self, params, frozen, inputs, conditions=None):
    """Velocities {name: v} of the generated modalities."""
    dits = self._dits(params, frozen)
    if self.linked:
      return self.models.link.velocity(params, dits, inputs, self.generate, conditions)
    return {name: self.models.towers[name].velocity(dits[name], inputs[name])
            for name in self.generate}

  def refresh(self, params, frozen, inputs, conditions):
    """As `velocity`, and conditions that may stand for several steps."""
    return self.models.link.refresh(
        params, self._dits(params, frozen), inputs, self.generate, conditions)

  def _dits(self, params, frozen):
    return {name: tower['dit'] for name, tower in self.towers(params, frozen).items()}

  def bare(self, params, frozen):
    """Parameters {name: dit} of generated towers for the unconditional pass, without Fusion Blocks:
    of linked ones the frozen base, since training shows a fine-tuned tower no input alone."""
    return {name: (frozen['towers'][name] if self.linked else params)['dit']
            for name in self.generate}

  def codec_weights(self, frozen, name):
    """Weights {'params', 'std'} of a modality's codec, or None."""
    return frozen.get(self.codec(name).part)

  def clean(self, frozen, batch, name):
    """Data X_1 of a modality, (B, T, ...)."""
    return self.codec(name).encode(self.codec_weights(frozen, name), batch)

  def mask(self, batch, name):
    """Mask of `clean`, False for padding: bool (B, T)."""
    return self.codec(name).mask(batch)

  def finish(self, frozen, name, decoded, clip):
    """Media of a clip from its codec's `decoded` (T, …): float32 (S,) or uint8 (N, H, W, 3)."""
    return self.codec(name).finish(
        self.codec_weights(frozen, name), decoded, clip.duration, self.models.layout)

  def condition_time(self, name, size):
    """Flow time (size,) of a condition: fixed (Sec. 3.3), or 1 if it never gets noise."""
    return jnp.full(size, self.config.flow.condition_time[name] if self.codec(name).noise else 1.0)

  def encode(self, towers, name, prepared):
    """Fields 'text' and 'text_mask' of a modality's Input from its prompts; None if unprompted."""
    if not self.models.modalities[name].prompted:
      return dict(text=None, text_mask=None)
    embedded, mask = self.models.modalities[name].text.encode(towers[name]['text'], prepared)
    return dict(text=embedded, text_mask=mask)

  def null(self, name):
    """Null prompt of a modality, prepared, for one example."""
    return jax.tree.map(jnp.asarray, self.models.modalities[name].text.prepare(['']))

  def loss(self, params, stats, frozen, batch, key, step=None, group=None,
           part=lambda examples: examples, share=None):
    """Mean squared error of the velocity over real (not padded) data (Eq. 5).

    For modalities generated at once, both times come from the same draw, each with its own
    location, so that training covers the pairs that the sampler visits. Modalities are weighted by
    `flow.loss_weight`, since the larger gradient would dominate the optimiser.

    Random draws and counts of real data are for the complete batch; then `part` selects the
    examples that the towers process. So the parts' losses add up to the batch's.

    share: instead of drawing t, takes that below which so much of its law lies, ().
    """
    del step, group
    inputs, targets, counted, key = self._draw(params, frozen, batch, key, part, share)
    velocities = self.velocity(params, frozen, inputs)
    terms = self.terms(frozen, inputs, velocities, targets, counted, part, key)
    metrics = {metric: value for metric, (_, value) in terms.items()}
    return sum(weight * value for weight, value in terms.values()), (metrics, stats)

  def validate(self, params, stats, frozen, batch, key, share):
    value, (metrics, _) = self.loss(params, stats, frozen, batch, key, share=share)
    return {'loss': value, **metrics}

  def times(self, shares):
    c = self.config.flow
    return {f'mse_{name}': flow.logit_normal_quantile(shares, c.location[name], c.scale)
            for name in self.generate}

  def _draw(self, params, frozen, batch, key, part, share=None):
    """Draws directions, times, noise and dropped prompts of a batch.

    Returns {modality: tower input}, {modality: target velocity}, {modality: bool (batch, T) of
    the data that count in the loss}, and a key for further draws.
    """
    c, towers = self.config.flow, self.towers(params, frozen)
    direction_key, time_key, key = jax.random.split(key, 3)
    size = self.mask(batch, self.modalities[0]).shape[:1]
    direction = jax.random.randint(direction_key, size, 0, len(self.directions))
    inputs, targets, counted = {}, {}, {}
    examples = jax.tree.map(part, batch)
    guide = {} if self.guide is None else self.guide.draw(
        frozen, examples, jax.random.fold_in(key, len(self.modalities)), size, part)
    for i, name in enumerate(self.modalities):
      by_direction = jnp.asarray([name in names for names in self.directions])
      generated = by_direction[direction]
      counted[name] = self.mask(batch, name) & generated[:, None]
      noise_key, condition_key, prompt_key = jax.random.split(jax.random.fold_in(key, i), 3)
      x1, mask = self.clean(frozen, examples, name), self.mask(examples, name)
      t = (flow.logit_normal(time_key, size, c.location[name], c.scale) if share is None else
           jnp.full(size, flow.logit_normal_quantile(share, c.location[name], c.scale)))
      condition_t = self.condition_time(name, size)
      if not self.codec(name).noise:
        inputs[name] = self.input_type(
            x=x1, t=part(condition_t), text=None, text_mask=None, mask=mask)
        continue
      if c.condition_law == 'uniform':
        condition_t = jax.random.uniform(condition_key, size)
      t = part(jnp.where(generated, t, condition_t))
      x0 = part(gaussian(noise_key, size + x1.shape[1:]))
      rate = jnp.where(generated, c.drop_generated, c.drop_condition)
      prompts = jax.tree.map(
          part, drop(prompt_key, batch[f'{name}_text'], self.null(name), rate))
      inputs[name] = self.input_type(x=flow.interpolate(x1, x0, t), t=t, mask=mask,
                                     **self.encode(towers, name, prompts), **guide)
      targets[name] = flow.target(x1, x0)
    return inputs, targets, counted, jax.random.fold_in(key, len(self.modalities) + 1)

  def terms(self, frozen, inputs, velocities, targets, counted, part, key):
    """Terms of the loss {metric: (weight, value)}, for a part of a batch as in `loss`; `counted`
    {name: (batch, T)} is the mask of the complete batch."""
    del frozen, inputs, key
    weights = self.config.flow.loss_weight
    return {f'mse_{name}': (weights[name], masked_mse(
        v, targets[name], part(counted[name]), counted[name])) for name, v in velocities.items()}
