"""Check that a resumed run's config agrees with the one it was saved with."""

import fnmatch
import json

from avlink_jax.errors import UserError
from avlink_jax.storage.config_versions import complete

# Keys about a run's length, its output and its hardware. All others define the model and its
# training; a run that changed them halfway would be neither the old nor the new one.
MAY_CHANGE = (
    'train.steps', 'train.decay_steps',  # the length, and the final decay
    'train.log_every', 'train.sample_every', 'train.max_bad_steps', 'train.watchdog_seconds',
    'checkpoint.*', 'sample.*', 'frozen.upsampler',
    'mesh.*', 'hosts.*', 'profile.*', 'attention', 'remat', 'train.accumulate', 'compile_cache',
    'data.cache_bytes', 'data.threads', 'text.cache', 'texts.*.cache')


def flat(tree, path=''):
  """Flattens nested dicts to {'train.steps': value}; values as after a round trip through JSON."""
  if not isinstance(tree, dict):
    return {path: json.loads(json.dumps(tree))}
  return {name: value for key, branch in tree.items()
          for name, value in flat(branch, f'{path}.{key}' if path else key).items()}


def drift(saved, current):
  """Differences that are not allowed: [(key, saved value, current value)], 'absent' for a missing
  key."""
  saved, current = flat(saved), flat(current)
  pairs = [(key, saved.get(key, 'absent'), current.get(key, 'absent'))
           for key in sorted(saved.keys() | current.keys())]
  return [(key, old, new) for key, old, new in pairs
          if old != new and not any(fnmatch.fnmatch(key, pattern) for pattern in MAY_CHANGE)]


def check(saved, current, workdir):
  """Raises UserError, with the keys, if a run saved with `saved` cannot resume with `current`
  (dicts). Configs of earlier versions are completed first (storage/config_versions.py)."""
  if differences := drift(complete(saved, workdir).to_dict(), current):
    listing = '; '.join(f'{key}: {old!r} -> {new!r}' for key, old, new in differences)
    raise UserError(
        f'{workdir} was begun with another config ({listing}): give the old values to go on, or '
        f'another --workdir to begin anew (--config.train.init_from={workdir} takes its weights)')
