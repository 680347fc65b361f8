"""From a base model's pictures to 512×288 at 24 a second: the second stage of sampling (Sec. 3.2).

The upsampler is a run of its own (configs/upsampler.py): what it is stands in the header of its
weights, and its codec in its workdir. Its samples are made by the same sampler.
"""

import dataclasses
import functools

import jax
import numpy as np

from avlink_jax import build as model_builder
from avlink_jax import tasks
from avlink_jax.errors import UserError
from avlink_jax.hardware import precision
from avlink_jax.sampling import resume
from avlink_jax.sampling.sampler import Sampler
from avlink_jax.sampling.trained import Trained
from avlink_jax.storage import config_versions, weights
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.training import memory, sharding


@dataclasses.dataclass(frozen=True)
class Upsampler:
  """The second stage: `task` is the upsampler's own, `folder` where its frozen parts may lie."""
  task: tasks.UpsamplerTask
  trained: Trained
  frozen: dict
  folder: str

  @functools.cached_property
  def sampler(self):
    return Sampler(self.task, self.frozen)

  def name(self, seed):
    """What its part in a sample is: text."""
    parts = frozen_parts.digests(self.task.config, self.task.frozen_parts, self.folder)
    return resume.of_run(self.task, [self.trained.name, parts], seed).hexdigest()

  def __call__(self, clips, prompts, samples, seed):
    """Yields each of the `samples` of a base model for those clips and prompts with its frames
    enlarged: {'video': uint8 (⌈duration·24⌉, 288, 512, 3), 'low': what 'video' was, ...}."""
    small = [dataclasses.replace(
        clip, frames=sample['video'],
        frame_times=np.arange(len(sample['video'])) / self.task.given_layout.fps)
        for clip, sample in zip(clips, samples, strict=True)]
    for group in self.sampler.batches(small):
      with memory.told(memory.for_upsampling, self.task.config):
        large = self.sampler(self.trained, [small[i] for i in group],
                             [prompts[i] for i in group], seed)
      for i, enlarged in zip(group, large, strict=True):
        yield samples[i] | {'video': enlarged['video'], 'low': samples[i]['video']}


def load(task):
  """The Upsampler of a run that samples frames; None where there is none, or is not wanted.

  Raises UserError where it is wanted and not there, or made for other frames.
  """
  config = task.config
  wanted = config.sample.upsample
  if not task.upsampled or wanted is False:
    return None
  given = config.frozen.upsampler
  none = not given or given == 'bundled' and not weights.bundled('upsampler', config.scale).exists()
  if wanted is None and none:
    return None
  path = weights.locate('upsampler', given, config.scale)
  tree, about = weights.read(path)
  own = config_versions.config_of(about, path)
  if own.task != 'upsampler':
    raise UserError(f'frozen.upsampler={given}: {path} holds a {own.task} model: give a '
                    'workdir of configs/upsampler.py')
  own.mesh, own.attention = config.mesh, config.attention  # of this machine, not of that one
  policy = precision.of()
  models = model_builder.build(own, policy.compute)
  upsampler = tasks.make(own, models)
  check_grid(task.models.layout, upsampler.given_layout, given)
  frozen = frozen_parts.load(own, models, upsampler.frozen_parts, policy.frozen, path.parent)
  sharding.check_tokens(upsampler, sharding.make_mesh(**own.mesh))
  like = jax.eval_shape(lambda key: upsampler.init(key, frozen), jax.random.key(0))
  params = weights.fit(tree['params'], like, path)
  trained = Trained(params, {}, str(path), frozen_parts.digest(path))
  return Upsampler(upsampler, trained, frozen, path.parent)


def check_grid(made, wanted, given):
  """Raises UserError where a model's pictures are not what the upsampler was made for."""
  sizes = [f'{layout.width}×{layout.height} at {layout.fps:g} fps' for layout in (made, wanted)]
  if sizes[0] != sizes[1]:
    raise UserError(f'frozen.upsampler={given} enlarges {sizes[1]}, and this model makes '
                    f'{sizes[0]}: give one trained for that, or set sample.upsample=False')
