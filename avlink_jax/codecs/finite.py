"""Check of what was generated, before it is turned into media."""

import numpy as np

from avlink_jax.errors import UserError


class NotFinite(UserError):
  """Generated data with NaN or infinity: the weights have diverged."""


class Broken(NotFinite):
  """Some samples with NaN or infinity; the others are complete."""

  def __init__(self, names, count):
    listed = ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
    super().__init__(f'{len(names)} of {count} samples hold numbers that are not finite: {listed}: '
                     'the weights have diverged, or what conditions has extreme values; the others '
                     'are complete')


def checked(array, name):
  """Numpy copy of a modality's decoded data. Raises NotFinite."""
  array = np.asarray(array)
  if not np.isfinite(array).all():
    raise NotFinite(f'the generated {name} holds numbers that are not finite: the weights have '
                    'diverged; use those of an earlier step (python -m avlink_jax.export), or a '
                    'lower train.learning_rate')
  return array
