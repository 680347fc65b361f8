"""What the rows of configs/ablations.py are at a scale: which are the same, which are scored."""

import functools
import json

from avlink_jax.training.resilience.config_drift import flat
from configs import ablations


@functools.cache
def settings(name, scale):
  """{key: value} of a row's config, whatever it is called."""
  config = flat(ablations.get_config(f'{name}:{scale}').to_dict())
  return {key: value for key, value in config.items() if key != 'ablation'}


@functools.cache
def _marks(scale):
  return {name: json.dumps(settings(name, scale), sort_keys=True) for name in ablations.ROWS}


def the_same(name, scale):
  """The first row that is the very same at this scale, such as 'ours' for 'guidance_5'."""
  marks = _marks(scale)
  return next(other for other in marks if marks[other] == marks[name])


def scored(name, scale):
  """Whether a row goes one way, so that there is something to score."""
  config = ablations.get_config(f'{name}:{scale}')
  return len(config.generate) == 1 or bool(config.sample.direction)


def generated(name, scale):
  """'audio' or 'video'."""
  config = ablations.get_config(f'{name}:{scale}')
  return config.sample.direction or config.generate[0]


def changes(name, scale):
  """{key: (value in the row it is compared with, own value)}."""
  own = settings(name, scale)
  base = settings({'video': 'ours_a2v'}.get(generated(name, scale), 'ours'), scale)
  return {key: (base.get(key), own.get(key)) for key in sorted(base.keys() | own.keys())
          if base.get(key) != own.get(key)}
