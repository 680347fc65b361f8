"""Metrics that look at clips through a network: which there are, and their figures.

A metric's name says its network. Of whole sets: `fad_`, `fd_`, `fid_`, `fvd_` (frechet.py) and
`is_` (inception_score.py), each with its 95 % interval and, as NAME_infinity, without the bias of a
finite number of clips (set_figures.py). Of each clip against its reference: `kl_`.
"""

import collections
import sys
import typing

import numpy as np

from avlink_jax.errors import MediaError, UserError
from avlink_jax.metrics import frechet, inception_score, set_figures
from avlink_jax.metrics.networks import loading
from avlink_jax.metrics.networks.embedding import Embedder
from avlink_jax.metrics.networks.registry import NETWORKS

METRICS = {  # name: (what is made of the network's rows, network)
    'fad_vggish': ('frechet', 'vggish'),
    'fad_yamnet': ('frechet', 'yamnet'),
    'fad_aisfx': ('frechet', 'aisfx'),
    'fd_panns': ('frechet', 'panns'),
    'is_panns': ('score', 'panns'),
    'is_yamnet': ('score', 'yamnet'),
    'kl_panns': ('divergence', 'panns'),
    'kl_yamnet': ('divergence', 'yamnet'),
    'fid_inception': ('frechet', 'inception'),
    'fid_efficientnet_lite0': ('frechet', 'efficientnet_lite0'),
    'fvd_i3d': ('frechet', 'i3d'),
}
FAMILIES = ('fad_', 'fd_', 'is_', 'kl_', 'fid_', 'fvd_')  # what their names begin with
INFINITY = '_infinity'


class Clip(typing.NamedTuple):
  """A pair to be measured: file stem, its Files (clips_on_disk.py), seconds that are compared."""
  id: str
  generated: typing.NamedTuple
  reference: typing.NamedTuple
  seconds: float


class Measured(typing.NamedTuple):
  """What was found.

  Attributes:
    figures: {name: float, None where fewer than two clips define it} of whole sets.
    intervals: {name: [low, high] or None} of those.
    per_clip: {name: a value a clip, None where it has none}, with `control_` each.
    networks: {network: what it saw: weights, rows, dimensions, clips that were left out and why}.
    missing: {metric: why it was not computed}.
    warnings: lines.
  """
  figures: dict
  intervals: dict
  per_clip: dict
  networks: dict
  missing: dict
  warnings: list


def choose(text: str) -> tuple:
  """Names of metrics in a list with commas; `all` for all there are.

  Raises:
    UserError: one that there is not.
  """
  names = [name for name in (part.strip() for part in (text or '').split(',')) if name]
  unknown = [name for name in names if name not in METRICS and name != 'all']
  if unknown:
    raise UserError(f'--metrics={unknown[0]}: no such metric; there are {", ".join(METRICS)}, all '
                    '(onsets and AV-Align are always there)')
  return tuple(METRICS) if 'all' in names else tuple(dict.fromkeys(names))


def missing(names, folder) -> dict:
  """{metric: how to get them} of metrics whose weights are neither in `folder` nor in a package."""
  found = {}
  for name in names:
    try:
      loading.find(NETWORKS[METRICS[name][1]], folder)
    except UserError as error:
      found[name] = str(error)
  return found


def measure(names, clips, shifts, folder, kept) -> Measured:
  """Computes metrics over pairs of clips, a network at a time.

  Args:
    names: of METRICS.
    clips: [Clip].
    shifts: by how many places references are turned for the control of figures of each clip.
    folder: with weights, or None.
    kept: what was embedded before (networks/embedding.py, Kept).
  """
  result = Measured({}, {}, {}, {}, {}, [])
  by_network = collections.defaultdict(list)
  for name in names:
    by_network[METRICS[name][1]].append(name)
  for network, metrics in by_network.items():
    try:
      embedder = Embedder(NETWORKS[network], folder)
    except UserError as error:
      result.missing.update(dict.fromkeys(metrics, str(error)))
      continue
    rows, left_out = _rows(embedder, clips, kept)
    _tell(result, embedder, rows, left_out)
    for name in metrics:
      kind = METRICS[name][0]
      if kind == 'divergence':
        _divergences(result, name, clips, rows, shifts)
      else:
        _figures(result, name, kind, list(rows.values()))
  return result


def _rows(embedder, clips, kept):
  """{id: {'generated': rows, 'reference': rows}} of clips that both could be seen; the others."""
  found, left_out = {}, []
  for k, clip in enumerate(clips):
    sides = {'generated': clip.generated, 'reference': clip.reference}
    try:
      found[clip.id] = {side: kept.get(embedder, _file(embedder.network, side, files), clip.seconds)
                        for side, files in sides.items()}
    except MediaError as error:
      left_out.append({'id': clip.id, 'file': error.path, 'reason': error.reason})
    if sys.stderr.isatty() or k + 1 == len(clips):
      print(f'\r{embedder.network.name}: {k + 1}/{len(clips)} clips, {len(left_out)} left out',
            end='\n' if k + 1 == len(clips) else '', file=sys.stderr, flush=True)
  return found, left_out


def _file(network, side, files):
  if not network.sees:
    return files.sound
  if files.picture is None:
    raise MediaError(files.sound, f'no picture ({side})')
  return files.picture


def _tell(result, embedder, rows, left_out):
  network = embedder.network
  result.networks[network.name] = {
      'weights': embedder.path.name, 'clips': len(rows), 'dimensions': network.size[0],
      'rows': {side: sum(len(pair[side]['embedding']) for pair in rows.values())
               for side in ('generated', 'reference')},
      'left_out': left_out}
  if left_out:
    result.warnings.append(
        f'{network.name}: {len(left_out)} of {len(rows) + len(left_out)} clips left out; the '
        f'first: {left_out[0]["file"]}: {left_out[0]["reason"]}')


def _figures(result, name, kind, pairs):
  """A figure of the whole set: value, interval, at infinity; warns where clips are few."""
  if kind == 'score':
    logits = np.array([pair['generated']['logits'].mean(0) for pair in pairs])
    function = lambda chosen: inception_score.score(logits[chosen])  # noqa: E731
  else:
    sides = [[pair[side]['embedding'] for pair in pairs] for side in ('generated', 'reference')]
    function = lambda chosen: frechet.distance(  # noqa: E731
        *(np.concatenate([rows[k] for k in chosen]) for rows in sides))
    dimensions = NETWORKS[METRICS[name][1]].size[0]
    if len(pairs) <= dimensions:
      result.warnings.append(
          f'{name}: {len(pairs)} clips are too few for {dimensions} dimensions: it is too large, '
          'and comparable only with figures over as many clips')
  enough = len(pairs) > 1
  result.figures[name] = function(np.arange(len(pairs))) if enough else None
  result.intervals[name] = set_figures.interval(function, len(pairs))
  result.figures[name + INFINITY] = set_figures.at_infinity(function, len(pairs))
  if kind == 'frechet' and result.intervals[name]:
    result.intervals[name][0] = max(0.0, result.intervals[name][0])


def _divergences(result, name, clips, rows, shifts):
  """KL of each clip from its reference, and from other clips' references."""
  logits = {clip: {side: rows[clip][side]['logits'].mean(0) for side in rows[clip]}
            for clip in rows}

  def between(generated, reference):
    if generated.id not in logits or reference.id not in logits:
      return None
    return inception_score.divergence(logits[reference.id]['reference'],
                                      logits[generated.id]['generated'])

  values, control = [], []
  for k, clip in enumerate(clips):
    values.append(between(clip, clip))
    others = [between(clip, clips[(k + shift) % len(clips)]) for shift in shifts]
    others = [value for value in others if value is not None]
    control.append(float(np.mean(others)) if others else None)
  result.per_clip[name], result.per_clip[f'control_{name}'] = values, control
