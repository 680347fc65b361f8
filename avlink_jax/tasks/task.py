"""The protocol of a task: all that training, sampling and compiling ask of it."""

import dataclasses

from ml_collections import ConfigDict

from avlink_jax.build import Models


@dataclasses.dataclass(frozen=True)
class Task:
  """What a task trains, what it keeps frozen, and its loss. What a subclass does not say is here.

  Attributes:
    readers: what makes arrays of a clip (data/batch.py): codecs, or alike.
    modalities, generate: what it knows, and what it makes of that, in the streams' order.
    directions: the sets of modalities that are generated together; an example goes one of them.
    given: media that a sample needs of the user's clip.
    beside: media of the clip that a sample shows besides what was generated.
    prompted: whether prompts say what is generated.
    frozen_parts: what it needs of `frozen.load`.
    groups: () where one loss trains everything; else the subtrees of the parameters that have a
      loss and an optimiser each, in the order in which a step updates them.
    sampler: what makes its samples (sampling/make.py): 'flow' or 'reconstruction'.
    scored: whether its samples have audio that can be scored against the clip's.
    upsampled: whether its frames are what the upsampler was made for.
  """
  models: Models
  config: ConfigDict
  readers = ()
  modalities = generate = ()
  given = beside = ()
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
    """What a data source has to provide (data/pipeline.py)."""
    return tuple(reader.reads for reader in self.readers)

  @property
  def scored(self):
    return 'audio' in self.modalities

  @property
  def weights_name(self):
    """Which bundled weights are this run's: its task's, or its ablation's."""
    return self.config.name

  @property
  def base_part(self):
    """The part whose bundled weights `train.init_from=bundled` names: of the base video model,
    which the upsampler is fine-tuned from."""
    return 'video'

  @property
  def accumulates(self):
    """Whether a batch may come in parts; an adversary needs it whole."""
    return not self.groups

  @property
  def towers_run(self):
    """{modality: tower} of the towers that a step runs."""
    return {}

  @property
  def decoder_weights(self):
    """Arrays besides `exported` and the frozen ones that samples are made with."""
    return []

  def check(self):
    """Raises UserError where something that is needed late is not there."""

  def check_prompt(self, prompt):
    """Raises UserError for a prompt that the text encoders cannot take whole."""

  def toward(self, direction):
    """This task with one of its directions only ('audio+video': both at once), for sampling."""
    del direction
    return self

  def lr_scale(self, group):
    """What a group's learning rate is multiplied by."""
    del group
    return 1.0

  def init(self, key, frozen):
    """Trainable parameters; with groups a dict with their names."""
    raise TypeError(f'{type(self).__name__} has no parameters')

  def init_stats(self):
    """Running statistics that are not trained."""
    return {}

  def exported(self, params):
    """The part of the parameters that is averaged, exported and sampled from."""
    return params

  def decoding(self, clips):
    """What is dear in samples of a task that reconstructs: (decode(params, std, latents), shapes of
    params and std, of the latents of so many whole clips); None: nothing is."""
    del clips

  def reconstructor(self):
    """A function (params, stats, clip) -> {modality: media}: a codec's samples, the clip's first
    seconds through it; what it compiles is compiled once."""
    raise TypeError(f'{type(self).__name__} reconstructs nothing')

  def loss(self, params, stats, frozen, batch, key, step, group):
    """Scalar, (metrics, stats); `group` is None without groups, and these tasks take `part` too:
    what takes a part of the examples of an array (step.part_of). Losses, metrics and gradients of
    all parts add up to those of the batch."""
    raise TypeError(f'{type(self).__name__} has no loss')
