"""Second stage of sampling: a base model's frames upsampled to 512×288 at 24 fps (Sec. 3.2).

The upsampler is a run of its own (configs/upsampler.py): its config is in its weights' header, and
its codec in its workdir. It uses the same sampler.
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
  """Second stage: the upsampler's `task` and weights; `folder` may have its frozen parts."""
  task: tasks.UpsamplerTask
  trained: Trained
  frozen: dict
  folder: str

  @functools.cached_property
  def sampler(self):
    return Sampler(self.task, self.frozen)

  def name(self, seed):
    """Identity of its contribution to a sample: text."""
    parts = frozen_parts.digests(self.task.config, self.task.frozen_parts, self.folder)
    return resume.of_run(self.task, [self.trained.name, parts], seed).hexdigest()

  def steps(self, clips):
    """How often `stepped` is called for these clips."""
    return self.sampler.steps(clips)

  def __call__(self, clips, prompts, samples, seed, stepped=None):
    """Yields a base model's `samples`, for those clips and prompts, with upsampled frames:
    {'video': uint8 (⌈duration·24⌉, 288, 512, 3), 'low': the base model's frames, ...}; `stepped`
    as in sampler.Sampler."""
    small = [dataclasses.replace(
        clip, frames=sample['video'],
        frame_times=np.arange(len(sample['video'])) / self.task.condition_layout.fps)
        for clip, sample in zip(clips, samples, strict=True)]
    for group in self.sampler.batches(small):
      with memory.advice(memory.for_upsampling, self.task.config):
        large = self.sampler(self.trained, [small[i] for i in group],
                             [prompts[i] for i in group], seed, stepped=stepped)
      for i, sample in zip(group, large, strict=True):
        yield samples[i] | {'video': sample['video'], 'low': samples[i]['video']}


def load(task):
  """Loads the Upsampler for a task that generates frames; None if there is none, or it is off.

  Raises UserError: it is required but missing, or was trained for other frames.
  """
  config = task.config
  setting, source = config.sample.upsample, config.frozen.upsampler
  if not task.upsampled or setting is False:
    return None
  none = not source or (
      source == 'bundled' and not weights.bundled('upsampler', config.scale).exists())
  if setting is None and none:
    return None
  path = weights.locate('upsampler', source, config.scale)
  tree, about = weights.read(path)
  saved = config_versions.config_of(about, path)
  if saved.task != 'upsampler':
    raise UserError(f'frozen.upsampler={source}: {path} holds a {saved.task} model: give a '
                    'workdir of configs/upsampler.py')
  saved.mesh, saved.attention = config.mesh, config.attention  # this machine's
  policy = precision.of()
  models = model_builder.build(saved, policy.compute)
  upsampler = tasks.make(saved, models)
  check_grid(task.models.layout, upsampler.condition_layout, source)
  frozen = frozen_parts.load(saved, models, upsampler.frozen_parts, policy.frozen, path.parent)
  sharding.check_tokens(upsampler, sharding.make_mesh(**saved.mesh))
  like = jax.eval_shape(lambda key: upsampler.init(key, frozen), jax.random.key(0))
  params = weights.fit(tree['params'], like, path)
  trained = Trained(params, {}, str(path), frozen_parts.digest(path))
  return Upsampler(upsampler, trained, frozen, path.parent)


def check_grid(generated, expected, source):
  """Raises UserError: a model's frames have another layout than the upsampler's input."""
  sizes = [f'{layout.width}×{layout.height} at {layout.fps:g} fps'
           for layout in (generated, expected)]
  if sizes[0] != sizes[1]:
    raise UserError(f'frozen.upsampler={source} enlarges {sizes[1]}, and this model makes '
                    f'{sizes[0]}: give one trained for that, or set sample.upsample=False')
