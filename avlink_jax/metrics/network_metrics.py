"""Metrics that look at clips through networks: which there are, and their figures.

A metric's name says its network. Of whole sets: `fad_`, `fd_`, `fid_`, `fvd_` (frechet.py) and
`is_` (inception_score.py), each with its 95 % interval and, as NAME_infinity, without the bias of a
finite number of clips (set_figures.py). Of each clip: `kl_` from its reference; `clap_laion`, the
cosine of its sound and its prompt; `ib_ai`, `ib_av`, the cosine of its sound and its images or its
video in ImageBind's space.
"""

import typing

import numpy as np

from avlink_jax.errors import MediaError, UserError
from avlink_jax.metrics import clip_figures, frechet, inception_score, set_figures
from avlink_jax.metrics.networks import loading
from avlink_jax.metrics.networks.clap import Clap
from avlink_jax.metrics.networks.embedding import Embedder
from avlink_jax.metrics.networks.registry import CLAP, NETWORKS
from avlink_jax.storage.console import Progress

METRICS = {  # name: (what is made of the networks' rows, network, another network)
    'fad_vggish': ('frechet', 'vggish'),
    'fad_yamnet': ('frechet', 'yamnet'),
    'fad_aisfx': ('frechet', 'aisfx'),
    'fd_panns': ('frechet', 'panns'),
    'fd_soundnet': ('frechet', 'soundnet'),
    'clap_laion': ('obedience', 'clap'),
    'is_panns': ('score', 'panns'),
    'is_yamnet': ('score', 'yamnet'),
    'ib_ai': ('agreement', 'imagebind_audio', 'imagebind_image'),
    'ib_av': ('agreement', 'imagebind_audio', 'imagebind_video'),
    'kl_panns': ('divergence', 'panns'),
    'kl_yamnet': ('divergence', 'yamnet'),
    'fid_inception': ('frechet', 'inception'),
    'fid_efficientnet_lite0': ('frechet', 'efficientnet_lite0'),
    'fvd_i3d': ('frechet', 'i3d'),
}
# What their names begin with.
FAMILIES = ('fad_', 'fd_', 'clap_', 'is_', 'ib_', 'kl_', 'fid_', 'fvd_')
INFINITY = '_infinity'


class Clip(typing.NamedTuple):
  """A clip to be measured.

  Attributes:
    id: file stem.
    generated, reference: their Files (evaluation/pairs.py).
    together: Files of the generated sound and picture; where only one of them was generated and
      stands alone, the other is the reference's.
    seconds: that are compared.
    prompt: what the sound was asked to be; '' or None: nothing that is known.
  """
  id: str
  generated: typing.NamedTuple
  reference: typing.NamedTuple
  together: typing.NamedTuple
  seconds: float
  prompt: str | None


class Measured(typing.NamedTuple):
  """What was found.

  Attributes:
    figures: {name: float, None where fewer than two clips define it} of whole sets.
    intervals: {name: [low, high] or None} of those.
    per_clip: {name: a value a clip, None where it has none}, with `control_` each and, where it is
      of a clip alone, `reference_`.
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
    for network in METRICS[name][1:]:
      try:
        loading.find(NETWORKS[network], folder)
      except UserError as error:
        found.setdefault(name, str(error))
  return found


def measure(names, clips, shifts, folder, kept) -> Measured:
  """Computes metrics over clips, a network at a time.

  Args:
    names: of METRICS.
    clips: [Clip].
    shifts: by how many places references are turned for the control of figures of each clip.
    folder: with weights, or None.
    kept: what was embedded before (networks/embedding.py, Kept).
  """
  result, means = Measured({}, {}, {}, {}, {}, []), {}
  names = [name for name in names if not _without_prompts(result, name, clips)]
  for network in dict.fromkeys(network for name in names for network in METRICS[name][1:]):
    wanted = [name for name in names
              if network in METRICS[name][1:] and name not in result.missing]
    if not wanted:
      continue
    try:
      embedder = (Clap if network == CLAP.name else Embedder)(NETWORKS[network], folder)
    except UserError as error:
      result.missing.update(dict.fromkeys(wanted, str(error)))
      continue
    sides = ('together' if METRICS[wanted[0]][0] == 'agreement' else 'generated', 'reference')
    rows, left_out = _rows(embedder, clips, sides, kept)
    _tell(result, embedder, rows, sides, left_out, len(clips))
    means[network] = {side: [
        rows[clip.id][side]['embedding'].mean(0) if side in rows[clip.id] else None
        for clip in clips] for side in sides}
    for name in wanted:
      kind = METRICS[name][0]
      if kind == 'divergence':
        _divergences(result, name, clips, rows, shifts)
      elif kind == 'obedience':
        _obediences(result, name, clips, means[network], embedder, shifts)
      elif kind == 'agreement' and means.keys() >= set(METRICS[name][1:]):
        _agreements(result, name, *(means[of] for of in METRICS[name][1:]), shifts)
      elif kind in ('frechet', 'score'):
        _figures(result, name, kind, list(rows.values()))
  return result


def _without_prompts(result, name, clips):
  """Says so where nobody knows what was asked for."""
  if METRICS[name][0] != 'obedience' or any(clip.prompt for clip in clips):
    return False
  result.missing[name] = ('no clip has a prompt: rows of a manifest.jsonl, {"id": NAME, "prompt": '
                          'TEXT}, beside the generated clips or the references give them')
  return True


def _rows(embedder, clips, sides, kept):
  """({id: {side: rows}} of what could be seen, [{id, side, file, reason}] of what could not)."""
  found, left_out = {clip.id: {} for clip in clips}, []
  progress = Progress(f'{embedder.network.name}:', len(clips))
  for clip in clips:
    for side in sides:
      try:
        path = _file(embedder.network, side, getattr(clip, side))
        found[clip.id][side] = kept.get(embedder, path, clip.seconds)
      except MediaError as error:
        left_out.append({'id': clip.id, 'side': side, 'file': error.path, 'reason': error.reason})
    progress.add(note=f'{len({row["id"] for row in left_out})} left out')
  return found, left_out


def _file(network, side, files):
  if not network.sees:
    return files.sound
  if files.picture is None:
    raise MediaError(files.sound, f'no picture ({side})')
  return files.picture


def _tell(result, embedder, rows, sides, left_out, count):
  network, without = embedder.network, {row['id'] for row in left_out}
  result.networks[network.name] = {
      'weights': embedder.path.name, 'clips': count - len(without),
      'dimensions': network.size[0],
      'rows': {side: sum(len(pair[side]['embedding']) for pair in rows.values() if side in pair)
               for side in sides},
      'left_out': left_out}
  if left_out:
    result.warnings.append(
        f'{network.name}: {len(without)} of {count} clips left out where both sides are needed; '
        f'the first: {left_out[0]["file"]}: {left_out[0]["reason"]}')


def _figures(result, name, kind, pairs):
  """A figure of the whole set: value, interval, at infinity; warns where clips are few."""
  needed = ('generated',) if kind == 'score' else ('generated', 'reference')
  pairs = [pair for pair in pairs if pair.keys() >= set(needed)]
  if kind == 'score':
    logits = np.array([pair['generated']['logits'].mean(0) for pair in pairs])
    function = lambda chosen: inception_score.score(logits[chosen])  # noqa: E731
  else:
    sides = [[pair[side]['embedding'] for pair in pairs] for side in needed]
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
  logits = [{side: seen['logits'].mean(0) for side, seen in rows[clip.id].items()}
            for clip in clips]

  def between(k, j):
    if 'generated' not in logits[k] or 'reference' not in logits[j]:
      return None
    return inception_score.divergence(logits[j]['reference'], logits[k]['generated'])

  _put(result, name, clip_figures.paired(between, len(clips), shifts))


def _obediences(result, name, clips, sounds, embedder, shifts):
  """Each sound beside its prompt, and beside other clips' prompts."""
  prompts = list(dict.fromkeys(clip.prompt for clip in clips if clip.prompt))
  said = dict(zip(prompts, embedder.words(prompts), strict=True))
  said = [said.get(clip.prompt) for clip in clips]
  _beside(result, name, sounds['generated'], said, sounds['reference'], said, shifts)


def _agreements(result, name, sounds, pictures, shifts):
  """Each sound beside its picture, and beside other clips' pictures."""
  _beside(result, name, sounds['together'], pictures['together'], sounds['reference'],
          pictures['reference'], shifts)


def _beside(result, name, one, other, reference_one, reference_other, shifts):
  """Cosines of what belongs together, of what does not, and of the references' own."""
  def cosines(one, other, shifts):
    return clip_figures.paired(
        lambda k, j: clip_figures.cosine(one[k], other[j]), len(one), shifts)

  _put(result, name, cosines(one, other, shifts))
  result.per_clip[f'reference_{name}'], _ = cosines(reference_one, reference_other, ())


def _put(result, name, found):
  result.per_clip[name], result.per_clip[f'control_{name}'] = found
