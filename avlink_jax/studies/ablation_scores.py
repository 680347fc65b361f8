"""Scores of several seeds combined, and comparisons of rows.

A figure of single clips is averaged over a clip's seeds first and over clips then; its interval is
the bootstrap over clips (avlink_jax/metrics/bootstrap.py), a drawn clip bringing all its seeds. So
the interval covers other clips, and the seeds' own means, beside it, other trainings. A figure of a
whole folder (a Fréchet distance) has its seeds' lowest and highest.
"""

import json
import math
import pathlib
import re

from avlink_jax.errors import UserError
from avlink_jax.metrics import bootstrap

NAME = re.compile(r'(.+)-seed_(-?\d+)\.json')
CONTROL, REFERENCE = 'control_', 'reference_'  # as the JSON of --mode=evaluate has them
LOWER = ('fad_', 'fd_', 'kl_', 'fid_', 'fvd_')  # the lower the better; of all others the higher
# The figure shown of each family.
FAMILIES = {'onset_': 'onset_accuracy', 'event_': 'event_f1', 'motion_event_': 'motion_event_f1'}
# Meaningless figures of the conditioning modality: the video of V2A, the audio of A2V.
UNINFORMATIVE = {'audio': ('motion_event_', 'fid_', 'fvd_'),
                 'video': ('onset_', 'event_', 'fad_', 'fd_', 'is_', 'kl_', 'clap')}
MAIN = {'audio': ('event_f1', 'onset_accuracy'), 'video': ('motion_event_f1', 'av_align')}
HOLDS, FAILS, OPEN, EQUAL = 'holds', 'does not hold', 'within the interval', 'equal in the paper'


def read(folder):
  """Results of --mode=evaluate in DIR/scores, {row: {seed: result}}. Raises UserError: damaged."""
  rows = {}
  for path in sorted(pathlib.Path(folder, 'scores').glob('*.json')):
    if match := NAME.fullmatch(path.name):
      try:
        result = json.loads(path.read_text())
        if not isinstance(result['per_clip'], list):
          raise TypeError('per_clip is no list')
      except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path}: not what --mode=evaluate writes ({error!r}): remove it and its '
                        f'note {folder}/done/{path.stem}.evaluate.json') from None
      rows.setdefault(match[1], {})[int(match[2])] = result
  return rows


def missing(results):
  """Mapping {reason: [metrics]} that could not be computed."""
  reasons = {}
  for result in results:
    for name, reason in result.get('missing_metrics', {}).items():
      if name not in reasons.setdefault(reason, []):
        reasons[reason].append(name)
  return reasons


def metrics(results, modality):
  """Names of the figures to show for rows that generate 'audio' or 'video', main ones first."""
  names = list(MAIN[modality])
  for result in results:
    names += [name for name, value in result.items() if isinstance(value, (int, float))]
  return [name for name in dict.fromkeys(names)
          if any(result.get(name) is not None for result in results)
          and not name.startswith((CONTROL, REFERENCE, 'clips', *UNINFORMATIVE[modality]))
          and not name.endswith('_infinity')  # rows of as many clips have the same bias
          and all(name == shown for family, shown in FAMILIES.items() if name.startswith(family))]


def better(name):
  """Sign of improvement: +1 where higher is better, −1 where lower is."""
  return -1 if name.startswith(LOWER) else 1


def clips(seeds, name):
  """Mapping {clip: mean over seeds} of the clips that define a figure; {} for a folder's figure."""
  values = {}
  for result in seeds.values():
    for row in result['per_clip']:
      if isinstance(row.get(name), (int, float)):
        values.setdefault(row['id'], []).append(row[name])
  return {clip: math.fsum(v) / len(v) for clip, v in values.items()}


def estimate(seeds, name):
  """Estimate {'mean', 'low', 'high', 'of', 'seeds': {seed: mean}} of a row; None if undefined.

  'of' is 'clips' where low and high are an interval over clips, 'seeds' where they are the lowest
  and highest seed.
  """
  means = {seed: result[name] for seed, result in seeds.items() if result.get(name) is not None}
  if not means:
    return None
  per_clip = clips(seeds, name)
  if per_clip:
    bounds = bootstrap.intervals({name: list(per_clip.values())})[name]
    mean, of = math.fsum(per_clip.values()) / len(per_clip), 'clips'
  else:
    own = next(iter(seeds.values())).get('intervals', {}).get(name)
    bounds, of = (own, 'clips') if len(means) == 1 else (
        [min(means.values()), max(means.values())], 'seeds')
    mean = math.fsum(means.values()) / len(means)
  low, high = bounds or (None, None)
  return {'mean': mean, 'low': low, 'high': high, 'of': of, 'seeds': means}


def compare(one, other, name, expected=1):
  """Difference of two rows in a figure, and its verdict on an ordering.

  Args:
    one, other: {seed: result}; the seeds that both have are compared, clip by clip.
    expected: the paper's ordering, +1: `one` is the better; −1; 0: they are equal.
  Returns:
    {'difference', 'low', 'high', 'seeds', 'by_seed', 'verdict'}: the difference is positive where
    `one` is better. None where they share nothing.
  """
  common = sorted(one.keys() & other.keys())
  one, other = ({seed: side[seed] for seed in common} for side in (one, other))
  sign, ours, theirs = better(name), clips(one, name), clips(other, name)
  pairs = [(one[seed].get(name), other[seed].get(name)) for seed in common]
  by_seed = [sign * (a - b) for a, b in pairs if a is not None and b is not None]
  if shared := sorted(ours.keys() & theirs.keys()):
    differences = [sign * (ours[clip] - theirs[clip]) for clip in shared]
    bounds = bootstrap.intervals({name: differences})[name]
  else:
    differences = by_seed
    bounds = [min(differences), max(differences)] if len(differences) > 1 else None
  if not differences:
    return None
  low, high = bounds or (None, None)
  return {'difference': math.fsum(differences) / len(differences), 'low': low, 'high': high,
          'seeds': common, 'by_seed': by_seed, 'verdict': verdict(low, high, expected, by_seed)}


def verdict(low, high, expected, by_seed):
  """Verdict on an ordering: HOLDS or FAILS where the interval of the difference and each seed's own
  difference lie on one side of 0, the paper's or the other; else OPEN."""
  if expected == 0:
    return EQUAL
  if low is None or low <= 0 <= high or any(d * low <= 0 for d in by_seed):
    return OPEN
  return HOLDS if (low > 0) == (expected > 0) else FAILS
