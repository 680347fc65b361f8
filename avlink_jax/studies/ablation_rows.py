"""Rows of configs/ablations.py at a scale: which are equal, which are scored."""

import functools
import json

from avlink_jax.configs import ablations
from avlink_jax.training.resilience.config_drift import flat


@functools.cache
def settings(name, scale):
  """Mapping {key: value} of a row's config, without its name."""
  config = flat(ablations.get_config(f'{name}:{scale}').to_dict())
  return {key: value for key, value in config.items() if key != 'name'}


@functools.cache
def _marks(scale):
  return {name: json.dumps(settings(name, scale), sort_keys=True) for name in ablations.ROWS}


def the_same(name, scale):
  """First row with equal settings at this scale, such as 'ours' for 'steps_64'."""
  marks = _marks(scale)
  return next(other for other in marks if marks[other] == marks[name])


def scored(name, scale):
  """Tells whether a row generates one modality, so that it can be scored."""
  config = ablations.get_config(f'{name}:{scale}')
  return len(config.generate) == 1 or bool(config.sample.direction)


def generated(name, scale):
  """Modality that a row generates: 'audio' or 'video'."""
  config = ablations.get_config(f'{name}:{scale}')
  return config.sample.direction or config.generate[0]


def changes(name, scale):
  """Differences from the row it is compared with: {key: (value there, own value)}."""
  own = settings(name, scale)
  base = settings({'video': 'ours_a2v'}.get(generated(name, scale), 'ours'), scale)
  return {key: (base.get(key), own.get(key)) for key in sorted(base.keys() | own.keys())
          if base.get(key) != own.get(key)}
