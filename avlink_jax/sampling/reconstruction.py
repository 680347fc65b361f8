"""A codec's samples: each clip through it, there and back."""

import jax

from avlink_jax.sampling.program import Program
from avlink_jax.training import hosts, sharding


class Reconstruction:
  """`reconstruction(trained, clips, prompts, seed)`, as sampler.Sampler; nothing is drawn."""

  def __init__(self, task, frozen, mesh=None):
    del frozen, mesh
    self._reconstruct = task.reconstructor()

  @staticmethod
  def program(task, mesh, frozen):
    """What `--mode=compile` looks at: decoding, a whole clip on each device; None where that is
    nothing to speak of."""
    del frozen
    if (decoding := task.decoding(mesh.size)) is None:
      return None
    decode, weights, latents = decoding
    where = sharding.batch_sharding(mesh)
    arguments = (*sharding.abstract(weights, sharding.shardings(weights, mesh)),
                 sharding.abstract(latents, where))
    return Program(jax.jit(decode, out_shardings=where), arguments, mesh.size, 1, decode)

  def batches(self, clips):
    """Clip by clip."""
    return [[i] for i in range(len(clips))]

  def __call__(self, trained, clips, prompts, seed):
    """Yields {modality: media} of each clip."""
    del prompts, seed
    params, stats = hosts.gather((trained.params, trained.stats))
    for clip in clips:
      yield self._reconstruct(params, stats, clip)
