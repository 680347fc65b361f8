"""What is computed and kept in which precision: the one policy, by hardware.

Trainable parameters, optimiser and losses are float32 everywhere. On accelerators activations are
bfloat16, and so are frozen towers; on a CPU, which gains nothing by it, both are float32. Codecs
keep float32 weights, and what needs it for its range says so itself (norms, softmax, flow time).
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Precision:
  """dtypes of activations and of frozen towers; None: as they are in their files."""
  compute: object
  frozen: object


def of(platform=None):
  """The Precision on `platform`: 'cpu', 'gpu' or 'tpu' (default: this process's)."""
  if (platform or jax.default_backend()) == 'cpu':
    return Precision(jnp.float32, None)
  return Precision(jnp.bfloat16, jnp.bfloat16)
