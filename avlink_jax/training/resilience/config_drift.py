"""Check that a resumed run's config agrees with the one it was saved with."""

import fnmatch
import json

from avlink_jax.errors import UserError
from avlink_jax.storage.config_versions import upgrade
from avlink_jax.storage.console import say

# Keys about a run's length, its output and its hardware. All others define the model and its
# training; a run that changed them halfway would be neither the old nor the new one.
MAY_CHANGE = (
    'train.steps', 'train.decay_steps',  # the length, and the final decay
    'train.log_every', 'train.sample_every', 'train.transfer_guard', 'train.max_bad_steps',
    'train.watchdog_seconds', 'checkpoint.*', 'sample.*', 'validation.*', 'log.*',
    'frozen.upsampler',
    'mesh.*', 'hosts.*', 'profile.*', 'attention', 'remat', 'train.accumulate', 'compile_cache',
    'data.cache_bytes', 'data.threads', 'text.cache', 'texts.*.cache')
# Keys that `--allow_drift` may let change as well: how the same model is trained.
ALLOWED = (
    'seed', 'train.*', 'flow.*', 'data.source', 'data.tfds_dir', 'data.seed', 'data.impacts_clips',
    'data.max_fps', 'data.min_seconds', 'data.decode_seconds', 'data.max_broken',
    'data.drop_silent')
NEVER = ('train.optimizer',)  # its saved state would have another form
# Keys that say where something lies; another value is no change where the same lies there.
PLACES = ('data.source', 'data.tfds_dir', 'frozen.*')
CODEC = 'towers.video.codec'
NAMED = 5  # keys that are listed by name


def flat(tree, path=''):
  """Flattens nested dicts to {'train.steps': value}; values as after a round trip through JSON."""
  if not isinstance(tree, dict):
    return {path: json.loads(json.dumps(tree))}
  return {name: value for key, branch in tree.items()
          for name, value in flat(branch, f'{path}.{key}' if path else key).items()}


def drift(saved, current):
  """Differences that are not allowed: [(key, saved value, current value)], of keys in both."""
  saved, current = flat(saved), flat(current)
  # A video autoencoder that nothing uses may have any sizes.
  used = 'video_vae' in (saved.get(CODEC), current.get(CODEC))
  may_change = MAY_CHANGE if used else (*MAY_CHANGE, 'video_codec.*')
  return [(key, saved[key], current[key]) for key in sorted(saved.keys() & current.keys())
          if saved[key] != current[key] and not matches(key, may_change)]


def matches(key, patterns):
  """Whether a key is one of `patterns`, such as 'train.*'."""
  return any(fnmatch.fnmatch(key, pattern) for pattern in patterns)


def check(saved, current, workdir, allowed=(), same=lambda key: False, write=True):
  """Checks that a run saved with `saved` can resume with `current` (dicts), and says in a line what
  else is to be said.

  Keys that came since the save count as their defaults of then (storage/config_versions.py).

  Args:
    allowed: keys or patterns that may differ (`--allow_drift`).
    same: function that tells whether what lies at a key of PLACES is what it was.
    write: False on all but a run's first process.

  Returns the differences that were allowed, {key: [saved value, current value]}. Raises UserError,
  with the keys: others differ.
  """
  completed, changes = upgrade(saved, workdir)
  completed = completed.to_dict()
  if text := story(changes, flat(completed), flat(current)):
    say(f'{workdir} was saved by an earlier version: {text}', write)
  differences = drift(completed, current)
  if moved := [row for row in differences if matches(row[0], PLACES) and same(row[0])]:
    differences = [row for row in differences if row not in moved]
    say(f'{workdir}: {listing(moved)}: the same, at another place', write)
  accepted = {key: [old, new] for key, old, new in differences
              if matches(key, allowed) and key not in NEVER}
  if refused := [row for row in differences if row[0] not in accepted]:
    hint = [key for key, *_ in refused if matches(key, ALLOWED) and key not in NEVER]
    raise UserError(
        f'{workdir} was begun with another config ({listing(refused)}): give the old values to go '
        f'on, or another --workdir to begin anew (--config.train.init_from={workdir} takes its '
        'weights)' + (f'; --allow_drift={",".join(hint)} goes on with the new ones'
                      if len(hint) == len(refused) else ''))
  return accepted


def check_allowed(allowed):
  """Raises UserError: --allow_drift names what defines the model, or nothing."""
  for pattern in allowed:
    if not matches(pattern, ALLOWED) or pattern in NEVER:
      raise UserError(f'--allow_drift={pattern}: a run may go on with other values of '
                      f'{", ".join(ALLOWED)} alone; another model is another run')


def listing(rows):
  """Text for [(key, old, new)]."""
  return '; '.join(f'{key}: {old!r} -> {new!r}' for key, old, new in rows)


def story(changes, completed, current):
  """Text on keys that were renamed, removed or added since a config was saved, or '': by `changes`
  (config_versions.Changes), and those that only one of two flat configs has (a config file of the
  user's own)."""
  came = [*changes.added, *(current.keys() - completed.keys())]
  gone = [*changes.removed, *(completed.keys() - current.keys())]
  parts = [f'{old} is {new} now' for old, new in changes.renamed.items()]
  if gone:
    parts.append(f'{named(gone)} {"is" if len(gone) == 1 else "are"} no more')
  if came:
    parts.append(f'{named(came)} came since, and count as what was done before')
  return '; '.join(parts)


def named(keys):
  """Text for a list of keys: a, b, c and 4 more."""
  keys = sorted(keys)
  more = f' and {len(keys) - NAMED} more' if len(keys) > NAMED else ''
  return ', '.join(keys[:NAMED]) + more
