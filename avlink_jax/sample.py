"""Mode `sample`: generates audio or video for clips, into a folder with a gallery."""

import os
import sys

import jax
from ml_collections import ConfigDict

from avlink_jax.api import Model
from avlink_jax.model import attention
from avlink_jax.sampling import inputs
from avlink_jax.sampling.export import folder_of_samples
from avlink_jax.storage import bucket


def sample(config: ConfigDict, workdir: str | os.PathLike, *, input_path: str | None = None,
           prompt: str | None = None, condition_prompt: str | None = None,
           negative_prompt: str | None = None, takes: int = 1, output: str | os.PathLike,
           seed: int = 0, explicit: bool = False) -> list[str]:
  """Generates samples for the user's clips or prompts, or for the data source's test split.

  `prompt` says what to generate, `condition_prompt` what conditions (default: each clip's caption,
  and of an empty `prompt` none), `negative_prompt` what not to generate; of several `takes` each
  clip has samples ID_1, ID_2, …

  `workdir` and `output` may be in a bucket (storage/bucket.py). `explicit`: the user named the
  workdir, so that it must have a checkpoint. Returns all samples' ids. Raises UserError.
  """
  with bucket.Mirror(workdir) as run, bucket.Mirror(output) as samples:
    run.pull('frozen')
    if jax.process_index() == 0:
      samples.pull('')
    model = Model(config, workdir, run.here, explicit)
    clips = inputs.find_clips(model.task, config, input_path, prompt, condition_prompt,
                              negative_prompt, takes, samples.here)
    weights, exporter = model.trained, model.exporter()
    print(f'{len(jax.devices())} {jax.default_backend()} device(s), mesh '
          f'{dict(model.mesh.shape)}, attention {attention.choose(config.attention)}; weights: '
          f'{weights.origin}', file=sys.stderr)
    return exporter.export(weights, clips, folder_of_samples(samples.here), seed)
