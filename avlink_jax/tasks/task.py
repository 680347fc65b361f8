"""Protocol of a task, as used by training, sampling and ahead-of-time compilation."""

import dataclasses

from ml_collections import ConfigDict

from avlink_jax.build import Models


@dataclasses.dataclass(frozen=True)
class Task:
  """Base class of tasks, with defaults.

  Attributes:
    readers: objects that convert a clip to arrays (data/batch.py), usually codecs.
    modalities, generate: modalities that are read, and those that are generated, in stream order.
    directions: sets of modalities that are generated together; an example has one of them.
    conditions: media that a user's clip must have.
    kept_media: media of the clip that a sample keeps beside the generated ones.
    prompted: whether there are prompts.
    frozen_parts: parts that `frozen.load` must read.
    groups: () if one loss trains all parameters; otherwise their subtrees that each have a loss and
      an optimiser, in the order of updates.
    sampler: which sampler makes its samples (sampling/export.SAMPLERS): 'flow', 'reconstruction'.
    scored: whether samples have audio that can be scored against the clip's.
    upsampled: whether its frames can be upsampled.
  """
  models: Models
  config: ConfigDict
  readers = ()
  modalities = generate = ()
  conditions = kept_media = ()
  prompted = False
  frozen_parts = ()
  groups = ()
  sampler = 'reconstruction'
  upsampled = False

  @property
  def directions(self):
    return (tuple(self.generate),)

  @property
  def reads(self):
    """Names of what a data source must provide (data/pipeline.py)."""
    return tuple(reader.reads for reader in self.readers)

  @property
  def needed(self):
    """Modalities that a clip must have to be sampled for."""
    return self.modalities

  @property
  def scored(self):
    return 'audio' in self.modalities

  @property
  def texts(self):
    """Mapping {modality: text encoder} of the prompts that are used."""
    return {}

  @property
  def prepare(self):
    """Mapping {modality: function of prompts -> arrays (B, ...)}, for data/batch.stack."""
    return {name: text.prepare for name, text in self.texts.items()}

  @property
  def base(self):
    """How its frames are generated, if they are, by a tower's tokens: {height, width, fps, patch},
    the last the rows and columns of pixels of a token; for what judges pictures."""
    return {}

  @property
  def weights_name(self):
    """Name of the bundled weights of this run: its task's, or its ablation's."""
    return self.config.name

  @property
  def base_part(self):
    """Part that `train.init_from=bundled` refers to: the base video model, from which the upsampler
    is fine-tuned."""
    return 'video'

  @property
  def published_part(self):
    """Part that is the model that this task trains, if `config.frozen` names a published one."""
    return ''

  @property
  def links_published(self):
    """Tells whether it links towers that all are published models."""
    return False

  @property
  def accumulates(self):
    """Tells whether a batch may be split into parts; adversarial losses need the complete batch."""
    return not self.groups

  @property
  def active_towers(self):
    """Mapping {modality: tower} of the towers that a step runs."""
    return {}

  @property
  def decoder_weights(self):
    """Arrays, besides `exported` and frozen ones, that samples depend on."""
    return []

  def check(self):
    """Raises UserError if something that is only needed later is missing."""

  def check_samples(self):
    """Raises UserError if something was left open that whoever asks for samples has to decide."""

  def check_prompt(self, prompt):
    """Raises UserError if a prompt is too long for the text encoders."""

  def toward(self, direction):
    """Copy of this task restricted to one direction ('audio+video': both at once), for sampling."""
    del direction
    return self

  def lr_scale(self, group):
    """Factor of a group's learning rate."""
    del group
    return 1.0

  def init(self, key, frozen):
    """Initial trainable parameters; with groups a dict by group."""
    raise TypeError(f'{type(self).__name__} has no parameters')

  def init_stats(self):
    """Initial running statistics."""
    return {}

  def exported(self, params):
    """Subtree of the parameters that is averaged, exported and used for samples."""
    return params

  def decoding(self, clips):
    """Expensive part of a reconstruction, for ahead-of-time compilation, or None.

    Returns (decode(params, std, latents), shapes of (params, std), shapes of the latents of
    `clips` complete clips)."""
    del clips

  def reconstructor(self):
    """Function (params, stats, clip) -> {modality: media} that encodes and decodes a clip's first
    seconds; it compiles once."""
    raise TypeError(f'{type(self).__name__} reconstructs nothing')

  def validate(self, params, stats, frozen, batch, key, share):
    """Loss of exported parameters on clips that are not trained on: {'loss': scalar, metric: …}.

    All randomness comes from `key`; `share` () chooses the flow time t, where there is one, as that
    below which so much of its law in training lies."""
    raise TypeError(f'{type(self).__name__} has no loss')

  def times(self, shares):
    """Mapping {metric of `validate`: flow times (n,)} at `shares` (n,) of the law of t; {} where
    `validate` does not depend on t."""
    del shares
    return {}

  def loss(self, params, stats, frozen, batch, key, step, group):
    """Loss: scalar, (metrics, stats). `group` is None without groups.

    Tasks without groups also accept `part`, a function that selects a part of an array's examples
    (step.part_of). Losses, metrics and gradients of all parts add up to those of the batch."""
    raise TypeError(f'{type(self).__name__} has no loss')
