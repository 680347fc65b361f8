"""From a base model's pictures to 512×288 at 24 a second: the second stage of sampling (Sec. 3.2).

The upsampler is a run of its own (configs/upsampler.py): what it is stands in the header of its
weights, and its codec in its workdir. Its samples are made by the same sampler.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from avlink_jax import build as model_builder
from avlink_jax import tasks
from avlink_jax.errors import UserError
from avlink_jax.sampling import resume as fingerprint
from avlink_jax.sampling.sampler import Sampler
from avlink_jax.storage import config_versions, weights
from avlink_jax.training import memory, sharding


@dataclasses.dataclass(frozen=True)
class Upsampler:
  """`task` is the upsampler's own, `config` too; `params` and `frozen` are its trees."""
  task: tasks.UpsamplerTask
  config: ConfigDict
  params: dict
  frozen: dict

  @functools.cached_property
  def sampler(self):
    return Sampler(self.task, self.params, {}, self.frozen, self.config)

  def fingerprint(self, seed):
    """Bytes that say what its part in a sample is."""
    return fingerprint.of_run(self.task, [self.params, self.frozen], self.config, seed).digest()

  def __call__(self, clips, prompts, samples, seed):
    """Yields each of the `samples` of a base model for those clips and prompts with its pictures
    enlarged: {'video': uint8 (⌈duration·24⌉, 288, 512, 3), 'low': what 'video' was, ...}."""
    small = [dataclasses.replace(
        clip, frames=made['video'],
        frame_times=np.arange(len(made['video'])) / self.task.given_layout.fps)
        for clip, made in zip(clips, samples, strict=True)]
    for group in self.sampler.batches(small):
      with memory.told(memory.for_upsampling, self.config):
        large = self.sampler([small[i] for i in group], [prompts[i] for i in group], seed)
      for i, made in zip(group, large, strict=True):
        yield samples[i] | {'video': made['video'], 'low': samples[i]['video']}


def load(config, task):
  """The Upsampler of a run that samples pictures; None where there is none, or is not wanted.

  Raises UserError where it is wanted and not there, or made for other pictures.
  """
  wanted = config.sample.upsample
  if 'video' not in task.generate or wanted is False:
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
  on_cpu = jax.default_backend() == 'cpu'
  models = model_builder.build(own, jnp.float32 if on_cpu else jnp.bfloat16)
  upsampler = tasks.make(own, models)
  check_grid(task.models.layout, upsampler.given_layout, given)
  frozen = weights.load_frozen(own, models, upsampler.frozen_parts,
                               None if on_cpu else jnp.bfloat16, path.parent)
  mesh = sharding.make_mesh(**own.mesh)
  sharding.check_tokens(upsampler, mesh)
  like = jax.eval_shape(lambda key: upsampler.init(key, frozen), jax.random.key(0))
  return Upsampler(upsampler, own, weights.fit(tree['params'], like, path), frozen)


def check_grid(made, wanted, given):
  """Raises UserError where a model's pictures are not what the upsampler was made for."""
  sizes = [f'{layout.width}×{layout.height} at {layout.fps:g} fps' for layout in (made, wanted)]
  if sizes[0] != sizes[1]:
    raise UserError(f'frozen.upsampler={given} enlarges {sizes[1]}, and this model makes '
                    f'{sizes[0]}: give one trained for that, or set sample.upsample=False')
