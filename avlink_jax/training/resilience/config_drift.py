"""Whether a run may go on with the config it is given, by the config it was saved with."""

import fnmatch
import json

from avlink_jax.errors import UserError
from avlink_jax.storage.config_versions import complete

# What says how long a run is, what it tells and what it runs on. Everything else says what is
# trained on what, and a run that changes it halfway is neither the old nor the new one.
MAY_CHANGE = (
    'train.steps', 'train.decay_steps',  # how long, and over what end the rate falls
    'train.log_every', 'train.sample_every', 'train.max_bad_steps', 'train.watchdog_seconds',
    'checkpoint.*', 'sample.*', 'frozen.upsampler',
    'mesh.*', 'hosts.*', 'profile.*', 'attention', 'remat', 'train.accumulate', 'compile_cache',
    'data.cache_bytes', 'data.threads', 'text.cache')


def flat(tree, path=''):
  """{'train.steps': value} of nested dicts; values as JSON would give them back."""
  if not isinstance(tree, dict):
    return {path: json.loads(json.dumps(tree))}
  return {name: value for key, branch in tree.items()
          for name, value in flat(branch, f'{path}.{key}' if path else key).items()}


def drift(saved, given):
  """[(key, saved value, given value)] of those that differ and may not; 'absent' where a config
  lacks the key."""
  saved, given = flat(saved), flat(given)
  pairs = [(key, saved.get(key, 'absent'), given.get(key, 'absent'))
           for key in sorted(saved.keys() | given.keys())]
  return [(key, old, new) for key, old, new in pairs
          if old != new and not any(fnmatch.fnmatch(key, may) for may in MAY_CHANGE)]


def check(saved, given, workdir):
  """Raises UserError, with the list of keys, where `given` may not go on from `saved` (dicts). What
  an earlier version saved has first the keys that came since (storage/config_versions.py)."""
  if found := drift(complete(saved, workdir).to_dict(), given):
    told = '; '.join(f'{key}: {old!r} -> {new!r}' for key, old, new in found)
    raise UserError(
        f'{workdir} was begun with another config ({told}): give the old values to go on, or '
        f'another --workdir to begin anew (--config.train.init_from={workdir} takes its weights)')
