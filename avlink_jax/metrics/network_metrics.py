"""Metrics computed with networks: their names, and the figures of a set of clips.

A metric's name includes its network. Of whole sets: `fad_`, `fd_`, `fid_`, `fvd_` (frechet.py) and
`is_` (inception_score.py), each with its 95 % interval and, as NAME_infinity, without the bias of a
finite number of clips (set_figures.py); `is_` also as NAME_splits, which published tables have. Of
each clip: `kl_` from its reference; `clap_`, the cosine of its audio and its prompt; `ib_ai`,
`ib_av`, `ib_score`, the cosine of its audio and its images or its video in ImageBind's space;
`desync_`, the seconds that its audio is off its video.
"""

import functools
import typing

import jax
import numpy as np

from avlink_jax.errors import MediaError, UserError
from avlink_jax.metrics import clip_figures, frechet, inception_score, set_figures
from avlink_jax.metrics.networks import loading, synchformer
from avlink_jax.metrics.networks.clap import Clap
from avlink_jax.metrics.networks.embedding import Embedder, exact
from avlink_jax.metrics.networks.laion_clap import LaionClap
from avlink_jax.metrics.networks.registry import CLAP, CLAP_BASE, NETWORKS
from avlink_jax.storage.console import Progress

METRICS = {  # name: (kind of figure, network, another network)
    'fad_vggish': ('frechet', 'vggish'),
    'fad_yamnet': ('frechet', 'yamnet'),
    'fad_aisfx': ('frechet', 'aisfx'),
    'fd_panns': ('frechet', 'panns'),
    'fd_panns_32k': ('frechet', 'panns_32k'),
    'fd_soundnet': ('frechet', 'soundnet'),
    'clap_laion': ('prompt_similarity', 'clap'),
    'clap_laion_base': ('prompt_similarity', 'clap_base'),
    'is_panns': ('score', 'panns'),
    'is_panns_32k': ('score', 'panns_32k'),
    'is_yamnet': ('score', 'yamnet'),
    'ib_ai': ('audio_video_similarity', 'imagebind_audio', 'imagebind_image'),
    'ib_av': ('audio_video_similarity', 'imagebind_audio', 'imagebind_video'),
    'ib_score': ('audio_video_similarity', 'imagebind_audio', 'imagebind_pairs'),
    'kl_panns': ('divergence', 'panns'),
    'kl_panns_32k': ('divergence', 'panns_32k'),
    'kl_yamnet': ('divergence', 'yamnet'),
    'fd_passt': ('frechet', 'passt'),
    'is_passt': ('score', 'passt'),
    'kl_passt': ('divergence', 'passt'),
    'desync_synchformer': ('desync', 'synchformer_video', 'synchformer_audio'),
    'fid_inception': ('frechet', 'inception'),
    'fid_efficientnet_lite0': ('frechet', 'efficientnet_lite0'),
    'fvd_i3d': ('frechet', 'i3d'),
}
SETS = {  # name: metrics; README.md says which columns they are
    'paper': ('fad_vggish', 'fd_panns', 'clap_laion', 'is_panns', 'ib_ai', 'ib_av',
              'fid_inception', 'fvd_i3d'),
    'av_benchmark': ('fad_vggish', 'fd_panns', 'fd_passt', 'kl_panns', 'kl_passt', 'is_panns',
                     'is_passt', 'ib_score', 'desync_synchformer', 'clap_laion_base'),
}
INFINITY, SPLITS = '_infinity', '_splits'
EMBEDDERS = {CLAP.name: Clap, CLAP_BASE.name: LaionClap}
TOGETHER = ('audio_video_similarity', 'desync')  # kinds of figures of audio and video together


class Clip(typing.NamedTuple):
  """One clip to be evaluated.

  Attributes:
    id: file stem.
    generated, reference: their Files (evaluation/pairs.py).
    together: Files of the generated audio and video; where only one of them was generated and
      has a file of its own, the other is the reference's.
    seconds: that are compared.
    prompt: of the audio; '' or None where unknown.
    view: size and frame rate at which its videos are compared (evaluation/common.View), or None.
  """
  id: str
  generated: typing.NamedTuple
  reference: typing.NamedTuple
  together: typing.NamedTuple
  seconds: float
  prompt: str | None
  view: typing.Any = None


class Results(typing.NamedTuple):
  """Results of all metrics.

  Attributes:
    figures: {name: float, None where fewer than two clips define it} of whole sets.
    intervals: {name: [low, high] or None} of those.
    per_clip: {name: a value a clip, None where it has none}, each with `control_` and, where it
      is of a clip alone, `reference_`.
    networks: {network: its weights, rows, dimensions, and the clips left out and why}.
    missing: {metric: reason why it was not computed}.
    warnings: lines.
  """
  figures: dict
  intervals: dict
  per_clip: dict
  networks: dict
  missing: dict
  warnings: list


def choose(text: str) -> tuple:
  """Parses a comma-separated list of metrics and of SETS, such as `paper,kl_panns`; `all` is every
  metric.

  Raises:
    UserError: unknown metric.
  """
  sets, chosen = SETS | {'all': tuple(METRICS)}, []
  for name in filter(None, (part.strip() for part in (text or '').split(','))):
    if name not in sets and name not in METRICS:
      raise UserError(f'--metrics={name}: no such metric; there are {", ".join(METRICS)}, and the '
                      f'sets {", ".join(sets)} (onsets and AV-Align are always there)')
    chosen += sets.get(name, (name,))
  return tuple(dict.fromkeys(chosen))


def missing(names, folder) -> dict:
  """Mapping {metric: how to get its weights} of metrics whose weights are not installed."""
  reasons = {}
  for name in names:
    for network in METRICS[name][1:]:
      try:
        loading.find(NETWORKS[network], folder)
      except UserError as error:
        reasons.setdefault(name, str(error))
  return reasons


def measure(names, clips, shifts, folder, store) -> Results:
  """Computes metrics over clips, a network at a time.

  Args:
    names: of METRICS.
    clips: [Clip].
    shifts: rotations of the references for the controls of each clip's figures.
    folder: with weights, or None.
    store: EmbeddingStore (networks/embedding.py).
  """
  result, means, video = Results({}, {}, {}, {}, {}, []), {}, {}
  names = [name for name in names if not _without_prompts(result, name, clips)]
  for network in dict.fromkeys(network for name in names for network in METRICS[name][1:]):
    of_network = [name for name in names
              if network in METRICS[name][1:] and name not in result.missing]
    if not of_network:
      continue
    try:
      embedder = EMBEDDERS.get(network, Embedder)(NETWORKS[network], folder)
    except UserError as error:
      result.missing.update(dict.fromkeys(of_network, str(error)))
      continue
    own = METRICS[of_network[0]][0] not in TOGETHER
    sides = ('generated' if own else 'together', 'reference')
    rows, left_out = _rows(embedder, clips, sides, store)
    _record(result, embedder, rows, sides, left_out, len(clips))
    means[network] = {side: [
        rows[clip.id][side]['embedding'].mean(0) if side in rows[clip.id] else None
        for clip in clips] for side in sides}
    for name in of_network:
      kind = METRICS[name][0]
      if kind == 'divergence':
        _divergences(result, name, clips, rows, shifts)
      elif kind == 'prompt_similarity':
        _prompt_similarities(result, name, clips, means[network], embedder, shifts)
      elif kind == 'audio_video_similarity' and means.keys() >= set(METRICS[name][1:]):
        _audio_video_similarities(result, name, *(means[of] for of in METRICS[name][1:]), shifts)
      elif kind == 'desync' and embedder.network.sees:
        video = rows
      elif kind == 'desync':
        _desyncs(result, name, clips, rows, video, embedder.weights, shifts)
      elif kind in ('frechet', 'score'):
        _figures(result, name, kind, list(rows.values()))
  return result


def _without_prompts(result, name, clips):
  """Records a metric of prompts as missing where no clip has one; returns whether it did."""
  if METRICS[name][0] != 'prompt_similarity' or any(clip.prompt for clip in clips):
    return False
  result.missing[name] = ('no clip has a prompt: rows of a manifest.jsonl, {"id": NAME, "prompt": '
                          'TEXT}, beside the generated clips or the references give them')
  return True


def _rows(embedder, clips, sides, store):
  """({id: {side: rows}} of usable files, [{id, side, file, reason}] of the others)."""
  rows, left_out = {clip.id: {} for clip in clips}, []
  progress = Progress(f'{embedder.network.name}:', len(clips))
  for clip in clips:
    for side in sides:
      try:
        path = _file(embedder.network, side, getattr(clip, side))
        rows[clip.id][side] = store.get(embedder, path, clip.seconds,
                                        clip.view if embedder.network.sees else None)
      except MediaError as error:
        left_out.append({'id': clip.id, 'side': side, 'file': error.path, 'reason': error.reason})
    progress.add(note=f'{len({row["id"] for row in left_out})} left out')
  return rows, left_out


def _file(network, side, files):
  if not network.sees:
    return files.audio
  if files.video is None:
    raise MediaError(files.audio, f'no picture ({side})')
  return files.video


def _record(result, embedder, rows, sides, left_out, count):
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
  """Computes a figure of the set: value, interval, at infinity; warns where clips are few."""
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
  if kind == 'score':
    result.figures[name + SPLITS] = inception_score.score_in_splits(logits)
  if kind == 'frechet' and result.intervals[name]:
    result.intervals[name][0] = max(0.0, result.intervals[name][0])


def _divergences(result, name, clips, rows, shifts):
  """Divergence of each clip from its reference, and from other clips' references."""
  logits = [{side: outputs['logits'].mean(0) for side, outputs in rows[clip.id].items()}
            for clip in clips]

  def between(k, j):
    if 'generated' not in logits[k] or 'reference' not in logits[j]:
      return None
    return inception_score.divergence(logits[j]['reference'], logits[k]['generated'])

  _store(result, name, clip_figures.paired(between, len(clips), shifts))


def _prompt_similarities(result, name, clips, audio, embedder, shifts):
  """Similarity of each clip's audio to its own prompt, and to other clips' prompts."""
  prompts = list(dict.fromkeys(clip.prompt for clip in clips if clip.prompt))
  by_prompt = dict(zip(prompts, embedder.texts(prompts), strict=True))
  texts = [by_prompt.get(clip.prompt) for clip in clips]
  _similarities(result, name, audio['generated'], texts, audio['reference'], texts, shifts)


def _audio_video_similarities(result, name, audio, video, shifts):
  """Similarity of each clip's audio to its own video, and to other clips' videos."""
  _similarities(result, name, audio['together'], video['together'], audio['reference'],
                video['reference'], shifts)


def _desyncs(result, name, clips, audio, video, weights, shifts):
  """Seconds between each clip's audio and its own video, and other clips' videos."""
  compared = jax.jit(exact(synchformer.compare))

  def of(side):
    def between(k, j):
      heard, seen = (rows[clips[n].id].get(side) for rows, n in ((audio, k), (video, j)))
      return heard and seen and synchformer.desync(
          functools.partial(compared, weights), heard['embedding'], seen['embedding'])
    return between

  _store(result, name, clip_figures.paired(of('together'), len(clips), shifts))
  result.per_clip[f'reference_{name}'], _ = clip_figures.paired(of('reference'), len(clips), ())


def _similarities(result, name, one, other, reference_one, reference_other, shifts):
  """Cosines of matching pairs, of exchanged ones, and of the references' own."""
  def cosines(one, other, shifts):
    return clip_figures.paired(
        lambda k, j: clip_figures.cosine(one[k], other[j]), len(one), shifts)

  _store(result, name, cosines(one, other, shifts))
  result.per_clip[f'reference_{name}'], _ = cosines(reference_one, reference_other, ())


def _store(result, name, rows):
  result.per_clip[name], result.per_clip[f'control_{name}'] = rows
