"""Mode `sample`: generates audio or video for clips, into a folder with a gallery."""

import functools
import os
import sys

import jax
from ml_collections import ConfigDict

from avlink_jax import build as model_builder
from avlink_jax import tasks
from avlink_jax.hardware import compile_cache, precision
from avlink_jax.model import attention
from avlink_jax.sampling import inputs, trained, upsampling
from avlink_jax.sampling.export import Exporter, folder_of_samples, one_way
from avlink_jax.storage import bucket
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.training import sharding


def sample(config: ConfigDict, workdir: str | os.PathLike, *, input_path: str | None = None,
           prompt: str | None = None, output: str | os.PathLike, seed: int = 0,
           explicit: bool = False) -> list[str]:
  """Generates samples for the user's clips or prompts, or for the data source's test split.

  `workdir` and `output` may be in a bucket (storage/bucket.py). `explicit`: the user named the
  workdir, so that it must have a checkpoint. Returns all samples' ids. Raises UserError.
  """
  with bucket.Mirror(workdir) as run, bucket.Mirror(output) as samples:
    run.pull('frozen')
    if jax.process_index() == 0:
      samples.pull('')
    compile_cache.use(config.compile_cache)
    policy = precision.of()
    models = model_builder.build(config, policy.compute)
    task = one_way(tasks.make(config, models), config.sample.direction)
    clips = inputs.find_clips(task, config, input_path, prompt)
    mesh = sharding.make_mesh(**config.mesh)
    sharding.check_tokens(task, mesh)
    place = functools.partial(sharding.shardings, mesh=mesh)
    frozen = sharding.shard(frozen_parts.load(
        config, models, task.frozen_parts, policy.frozen, run.here, place), mesh)
    weights = trained.find_weights(task, workdir, frozen, mesh, explicit)
    exporter = Exporter(task, frozen, run.here, upsampling.load(task), mesh)
    print(f'{len(jax.devices())} {jax.default_backend()} device(s), mesh {dict(mesh.shape)}, '
          f'attention {attention.choose(config.attention)}; weights: {weights.origin}',
          file=sys.stderr)
    return exporter.export(weights, clips, folder_of_samples(samples.here), seed)
