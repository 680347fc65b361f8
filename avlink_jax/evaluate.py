"""Mode `evaluate`: scores a folder of clips against a folder of references, whoever made them.

Clips are matched by file stem, in sub-folders too, and compared over their common length. Every
score comes with its control, the same generated clips against other clips' references: the score of
a model that generates the right kind of event at arbitrary times. And with an interval: where its
mean might lie with other clips.

    onset_, event_     the generated audio's onsets against the reference's, and exact times
    onset_NAME_published   the same by the published recipe (metrics/published_onset.py)
    av_align           the generated clip's own video against its own audio, for V2A and A2V alike
    motion_event_      the generated video's peaks of motion against exact times
    event_f1_25ms, …   F1 within 25 and 50 ms, lateness and spread in seconds, the strengths'
                       correlation (metrics/timing.py)
    event_material     share of clips that sound like the material that a benchmark's manifest names
                       (evaluation/materials.py)
    picture_           of generated pictures: tiles, grain, and bodies of `impacts`
                       (evaluation/pictures.py)
    reference_...      the same of the reference, against itself: an upper bound
    fad_, fd_, is_, kl_, clap_, ib_, fid_, fvd_    metrics of networks, where requested
                       (metrics/network_metrics.py)

A clip without an audio track counts as silent; for `av_align` and `ib_` it counts as video
generated for the reference's audio, and for `ib_` an audio file counts as generated for the
reference's video. Where the generated file carries its conditioning audio (A2V), `onset_` and
`event_` (and `fad_`, `fd_`, `kl_`) compare that with itself and are meaningless.
"""

import json
import math
import os
import pathlib

from avlink_jax.errors import UserError
from avlink_jax.evaluation import common, materials, pictures
from avlink_jax.evaluation import journal as journals
from avlink_jax.evaluation import pairs as clips_on_disk
from avlink_jax.metrics import av_align, bootstrap, onset, published_onset, timing
from avlink_jax.metrics.families import FAMILIES
from avlink_jax.storage.atomic import write_text

CONTROL_SHIFTS = 5
CONTROL, REFERENCE = 'control_', 'reference_'
# Columns of the paper's Tables 1 and 3 in their order, then ours; the first name with a value
# counts.
TABLES = {
    'V2A': {'FAD': ('fad_vggish', 'fad_yamnet'), 'FD': ('fd_panns', 'fd_soundnet'),
            'CLAP': ('clap_laion',), 'IS': ('is_panns', 'is_yamnet'), 'IB-AI': ('ib_ai',),
            'IB-AV': ('ib_av',),
            'Onset ACC': ('onset_accuracy',), 'KL': ('kl_panns', 'kl_yamnet'),
            'AV-Align': ('av_align',)},
    'A2V': {'FID': ('fid_inception', 'fid_efficientnet_lite0'), 'FVD': ('fvd_i3d',),
            'IB-AI': ('ib_ai',), 'IB-AV': ('ib_av',), 'AV-Align': ('av_align',)},
}


def evaluate(generated: str, reference: str, output: str | None = None, *, metrics: tuple = (),
             networks: str | None = None, seconds: float | None = None) -> dict:
  """Scores the clips in folder `generated` against those in folder `reference`.

  Args:
    generated: folder of clips, any media. Where two files share a name (ID.wav, ID.mp4), audio is
      taken from the one and video from the other.
    reference: folder of clips; `manifest.jsonl` in it may give exact `events` (seconds).
    output: JSON file to write atomically; None writes none. Intermediate results are stored beside
      it, so that an interrupted evaluation continues where it was.
    metrics: further ones to compute, of `network_metrics.METRICS`.
    networks: folder with networks' weights; None: the one that the variable AVLINK_WEIGHTS names.
    seconds: only the first so many of each clip are compared; None: all that both have.

  Returns:
    Content of the JSON: `clips` (number compared), `protocol` (seconds compared, `pictures`: sizes
    and frame rates of both sides and at which they are compared, `sample_rates`, prompts, seeds),
    `warnings`,
    the mean over clips of every `onset_NAME` (and `event_NAME`, against exact times;
    `reference_event_NAME`, the same of the reference's own audio) for `onset.NAMES`,
    `onset_NAME_published` for `published_onset.NAMES`; where
    generated clips have video, `av_align`, and `motion_event_NAME` for `av_align.EVENT_NAMES`,
    each with `reference_`; the same with the prefix `control_`; `intervals` (95 % of each mean,
    bootstrap over clips) and `difference_intervals` (of score - control, paired by clip),
    {name: [low, high]}; the number of clips behind them, what was left out and why, and
    `per_clip`. With `metrics` also their figures, `networks` (what each was computed from),
    and `missing_metrics` (whose weights are missing, and how to get them; the others are computed).
    A figure that no clip defines is None, and so is an interval over fewer than two clips.

  Raises:
    UserError: a folder is missing, no clip matches or can be read, or `output` is not writable.
  """
  if output:
    _require_writable(pathlib.Path(output))
  if networks or metrics:
    networks = _folder_of(networks)
  if seconds is not None and not 0 < seconds < math.inf:
    raise UserError(f'--seconds={seconds}: must be above 0')
  ours = clips_on_disk.find(generated, '--generated', reference)
  theirs = clips_on_disk.find(reference, '--reference', generated)
  matched = sorted(ours.keys() & theirs.keys())
  if not matched:
    raise UserError(clips_on_disk.none_match(ours, theirs, generated, reference))
  events = clips_on_disk.exact_events(reference)
  settings = clips_on_disk.generation_settings(generated, reference)
  journal = journals.Journal(output, seconds)
  try:
    pairs, unreadable = clips_on_disk.measure_pairs(
      [(stem, ours[stem], theirs[stem], events.get(stem)) for stem in matched], journal, seconds)
  finally:
    journal.close()
  if not pairs:
    first = unreadable[0]
    raise UserError(f'none of the {len(matched)} matched clips can be read; '
                    f'the first: {first["file"]}: {first["reason"]}')
  rows = _rows(pairs, clips_on_disk.exact_strengths(reference))
  _add(rows, materials.scores(reference, pairs, ours, theirs, control_shifts(len(pairs))))
  _add(rows, pictures.scores(generated, reference, pairs, theirs))
  measured, store = None, None
  if metrics:  # which need JAX; nothing else here does
    measured, store = _measure(metrics, pairs, (ours, theirs), settings, networks, output)
    _add(rows, measured.per_clip)
  means = _means(rows)
  intervals = _intervals(rows, means)
  if measured is not None:
    intervals['intervals'] |= measured.intervals
  of_networks = {} if measured is None else {
    **measured.figures, 'networks': measured.networks, 'missing_metrics': measured.missing}
  same = clips_on_disk.identical(pairs)
  warnings = common.copies(same) + common.warnings(pairs)
  warnings += [] if measured is None else measured.warnings
  result = {'clips': len(rows), 'protocol': _protocol(pairs, settings, seconds), **means,
            **intervals, **of_networks, 'warnings': warnings, **{
    'clips_with_reference_onsets': sum(bool(row['reference_onsets']) for row in rows),
    'clips_with_events': sum(bool(row['events']) for row in rows),
    'clips_with_picture': sum(pair.motion['generated'] is not None for pair in pairs),
    'unmatched_generated': sorted(ours.keys() - theirs.keys()),
    'unmatched_reference': sorted(theirs.keys() - ours.keys()),
    'unreadable': unreadable,
    'identical': same,
    'without_sound': [{'id': pair.id, 'side': side} for pair in pairs for side in pair.silent],
    'without_picture': [row for pair in pairs for row in pair.video_errors],
    'per_clip': rows,
  }}
  if output:
    write_text(output, json.dumps(result, indent=1, allow_nan=False) + '\n')
  journal.close(done=True)
  if store is not None:
    store.done()
  return result


def _add(rows, figures):
  """Adds {name: a value a clip} to the rows."""
  for name, values in figures.items():
    for row, value in zip(rows, values, strict=True):
      row[name] = value


def _measure(metrics, pairs, files, settings, networks, output):
  """Results of metrics of networks (network_metrics.measure), and the store of what was embedded;
  `files`: {stem: Files} of the generated clips and of the references."""
  from avlink_jax.metrics import network_metrics
  from avlink_jax.metrics.networks.embedding import EmbeddingStore
  store = EmbeddingStore(output)
  clips = [network_metrics.Clip(**of_clip) for of_clip in _clips(pairs, *files, settings)]
  return network_metrics.measure(
    metrics, clips, control_shifts(len(pairs)), networks, store), store


def _folder_of(networks):
  """Folder with networks' weights, or None. Raises UserError: there is no such folder."""
  from avlink_jax.metrics.networks import loading
  return loading.folder_of(networks)


def summary(result: dict) -> str:
  """Means of `evaluate` as a text table, with interval, control and difference."""
  def show(value, sign=''):
    return '    –' if value is None else f'{value:{sign or "5"}.3f}'

  def span(bounds, sign=''):
    return f'[{show(bounds[0], sign)}, {show(bounds[1], sign)}]' if bounds else ''
  protocol = result['protocol']
  of_condition = protocol['condition_prompts']
  lines = [f'made with prompts: {protocol["clips_with_prompt"]} of {result["clips"]} clips; '
           + (f'{of_condition} prompts of what conditions; ' if of_condition != 'unknown' else '')
           + f'seeds: {protocol["seeds"]}; guidance: {protocol["guidances"]}'
           ] if protocol['prompts'] != 'unknown' else []
  lines += [f'{str(result["clips"]) + " clips":32}  score  {"95 %":14}  control  score - control']
  for name in _score_names(result):
    line = f'{name:32}  {show(result[name])}  {span(result["intervals"].get(name)):14}'
    if CONTROL + name in result:
      line += (f'    {show(result[CONTROL + name])}  '
               f'{span(result["difference_intervals"][name], "+")}')
    lines.append(line.rstrip())
  for name in ('unmatched_generated', 'unmatched_reference', 'without_sound', 'without_picture'):
    if result[name]:
      lines.append(f'{name}: {len(result[name])}')
  lines += [f'unreadable: {clip["file"]}: {clip["reason"]}' for clip in result['unreadable']]
  lines += [f'warning: {line}' for line in result['warnings']]
  missing = result.get('missing_metrics', {})
  lines += [f'not computed: {", ".join(name for name in missing if missing[name] == why)}: {why}'
            for why in dict.fromkeys(missing.values())]
  return '\n'.join(lines + _table_rows(result))


def _table_rows(result):
  """Figures in the order of the paper's columns, where networks were used; each column has the
  name of its metric, as it may be of another network than the paper's."""
  lines = []
  for table, columns in TABLES.items():
    chosen = {column: next((name for name in names if result.get(name) is not None), None)
              for column, names in columns.items()}
    if result.get('networks') and any(
        name and name.startswith(FAMILIES) for name in chosen.values()):
      lines.append(f'{table}, {result["clips"]} clips | ' + ' | '.join(
          f'{name or column} {"–" if name is None else format(result[name], ".3f")}'
          for column, name in chosen.items()))
  return lines


def _score_names(scores):
  """Names of scores in a row or a result, except controls."""
  families = ('onset_', 'event_', 'motion_event_', 'av_align', 'picture_', *FAMILIES)
  return [name for name in scores if name.removeprefix(REFERENCE).startswith(families)]


def _require_writable(output):
  """Raises UserError, before any work, where the output cannot be written."""
  try:
    output.parent.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f'--output={output}: cannot make its folder ({error.strerror})') from error
  if output.is_dir() or not os.access(output.parent, os.W_OK):
    raise UserError(f'--output={output}: not a file that can be written')


def _protocol(pairs, settings, seconds):
  """Conditions of the figures, as far as known: seconds compared, prompts, seeds."""
  rows = [settings.get(pair.id, {}) for pair in pairs]

  def told(key):
    known = [row[key] for row in rows if row.get(key)]
    count = sum(any(prompts.values()) for prompts in known)
    return count, 'unknown' if not known else 'without' if not count else (
        'with' if count == len(rows) else 'some')

  count, prompts = told('prompts')
  negative = sorted({row['negative_prompt'] for row in rows if row.get('negative_prompt')})
  return {'seconds': seconds, 'pictures': common.compared(pairs),
          'sample_rates': common.sample_rates(pairs),
          'prompts': prompts, 'clips_with_prompt': count,
          'condition_prompts': told('condition_prompts')[1], 'negative_prompts': negative, **{
      f'{name}s': sorted({row[name] for row in rows if isinstance(row.get(name), int | float)})
      for name in ('seed', 'guidance')}}


def _clips(pairs, ours, theirs, settings):
  """Arguments of network_metrics.Clip for each pair."""
  clips = []
  for pair in pairs:
    generated, reference = ours[pair.id], theirs[pair.id]
    together = (reference if generated.video is None else generated)._replace(
        audio=(reference if 'generated' in pair.silent else generated).audio)
    clips.append(dict(
        id=pair.id, generated=generated, reference=reference, together=together,
        seconds=pair.duration, view=pair.view,
        prompt=settings.get(pair.id, {}).get('prompts', {}).get('audio')))
  return clips


def _rows(pairs, strengths):
  """Rows, a dict a clip: its scores, and its controls averaged over the other references;
  `strengths`: {stem: (exact times, strengths)} of those that have them."""
  rows = []
  shifts = control_shifts(len(pairs))
  for k, pair in enumerate(pairs):
    row = {
      'id': pair.id, 'duration': round(pair.duration, 6),
      'generated_onsets': len(pair.generated.times),
      'reference_onsets': None if pair.reference is None else len(pair.reference.times),
      'events': None if pair.events is None else len(pair.events),
      **_scores(pair, pair), **_timing(pair, *strengths.get(pair.id, (None, None)))}
    others = [_scores(pair, pairs[(k + shift) % len(pairs)]) for shift in shifts]
    for name in _score_names(row):
      if not name.startswith(REFERENCE) and name.removeprefix('event_') not in timing.NAMES:
        row[CONTROL + name] = _mean(other[name] for other in others)
    rows.append(row)
  return rows


def _timing(pair, times, strengths):
  """Scores of timing.py of a pair with exact times; `times` and `strengths` of its manifest row,
  None where it has no strengths."""
  if strengths is not None:
    inside = (times >= 0) & (times < pair.duration)
    times, strengths = times[inside], strengths[inside]
  else:
    times = pair.events
  found = None if times is None else timing.scores(pair.generated, times, strengths)
  return {f'event_{name}': found and found[name] for name in timing.NAMES}


def control_shifts(count: int) -> list:
  """Rotations of the references for the control: up to 5, never 0.

  Evenly spaced, since neighbours in order of name are often cut from the same recording.
  """
  turns = min(CONTROL_SHIFTS, count - 1)
  return [round(count * (k + 1) / (turns + 1)) for k in range(turns)]


def _scores(pair, other):
  """Scores of `pair`'s generated clip with `other` as its reference, over their common length: its
  audio against the reference's audio, its video against `other`'s own audio.
  """
  end = min(pair.duration, other.duration)
  generated = pair.generated.before(end)
  audio_onsets = None if other.reference is None else other.reference.before(end)
  times = None if other.events is None else other.events[other.events < end]
  scores = {
    'onset_': None if audio_onsets is None else onset.scores(audio_onsets, generated),
    'event_': None if times is None else onset.scores_against_times(generated, times),
    'reference_event_': None if audio_onsets is None or times is None
    else onset.scores_against_times(audio_onsets, times),
  }
  row = {prefix + name: None if values is None else values[name]
         for prefix, values in scores.items() for name in onset.NAMES}
  published = None if audio_onsets is None else published_onset.scores(audio_onsets, generated)
  row |= {f'onset_{name}_published': published and published[name]
          for name in published_onset.NAMES}
  for side, prefix in (('generated', ''), ('reference', REFERENCE)):
    motion, audio = pair.motion[side], other.audio_onsets[side]
    row[f'{prefix}av_align'] = (
      None if motion is None or audio is None else av_align.score(audio, motion, end))
    values = None if motion is None or times is None else av_align.event_scores(motion, times, end)
    row.update({f'{prefix}motion_event_{name}': values and values[name]
                for name in av_align.EVENT_NAMES})
  return row


def _means(rows):
  """Means over the rows that define each figure; without event figures where no clip has events,
  without those of video where no clip has any."""
  left_out = []
  if all(row['events'] is None for row in rows):
    left_out.append('event_')
  if all(row[name] is None for row in rows for name in row
         if name.startswith(('av_align', 'motion_event_'))):
    left_out += ['av_align', 'motion_event_']
  return {name: _mean(row[name] for row in rows) for name in _figures(rows[0])
          if not any(family in name for family in left_out)}


def _figures(row):
  scores = _score_names(row)
  return scores + [CONTROL + name for name in scores if CONTROL + name in row]


def _intervals(rows, names):
  """`intervals` of the means, `difference_intervals` of score - control, paired by clip."""
  differences = {
    name: [_difference(row[name], row[CONTROL + name]) for row in rows]
    for name in names if CONTROL + name in names}
  return {
    'intervals': bootstrap.intervals({name: [row[name] for row in rows] for name in names}),
    'difference_intervals': bootstrap.intervals(differences),
  }


def _difference(score, control):
  return None if score is None or control is None else score - control


def _mean(values):
  values = [value for value in values if value is not None]
  return math.fsum(values) / len(values) if values else None
