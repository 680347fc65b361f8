"""Precision policy by hardware.

Trainable parameters, optimiser and losses are float32 everywhere. Activations and frozen towers are
bfloat16 on accelerators and float32 on a CPU, where bfloat16 has no benefit. Codecs have float32
weights, and operations that need float32's range request it themselves (norms, softmax, flow time).
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Precision:
  """dtypes of activations (`compute`) and of frozen towers (`frozen`; None: as in their files)."""
  compute: object
  frozen: object


def of(platform=None):
  """Precision on `platform`: 'cpu', 'gpu' or 'tpu' (default: this process's)."""
  if (platform or jax.default_backend()) == 'cpu':
    return Precision(jnp.float32, None)
  return Precision(jnp.bfloat16, jnp.bfloat16)
