"""Samples of a codec: clips that are encoded and decoded."""

import jax

from avlink_jax.sampling.program import Program
from avlink_jax.training import hosts, sharding


class Reconstruction:
  """Reconstructs clips, with sampler.Sampler's interface; it is deterministic."""

  def __init__(self, task, frozen, mesh=None):
    del frozen, mesh
    self._reconstruct = task.reconstructor()

  @staticmethod
  def program(task, mesh, frozen):
    """Program for `--mode=compile`: decoding of one complete clip on each device; None if that is
    cheap."""
    del frozen
    if (decoding := task.decoding(mesh.size)) is None:
      return None
    decode, weights, latents = decoding
    batch = sharding.batch_sharding(mesh)
    arguments = (*sharding.abstract(weights, sharding.shardings(weights, mesh)),
                 sharding.abstract(latents, batch))
    return Program(jax.jit(decode, out_shardings=batch), arguments, mesh.size, 1, decode)

  def windows(self, clip):
    """Number of a clip's windows: it is decoded whole."""
    del clip
    return 1

  def batches(self, clips):
    """Groups of one clip index each."""
    return [[i] for i in range(len(clips))]

  def steps(self, clips):
    """How often `stepped` is called for these clips: there are no steps."""
    del clips
    return 0

  def __call__(self, trained, clips, prompts, seed, report, stepped=None):
    """Yields {modality: media} of each clip."""
    del prompts, seed, stepped
    params, stats = hosts.gather((trained.params, trained.stats))
    for clip in clips:
      sample = self._reconstruct(params, stats, clip)
      report(1)
      yield sample
