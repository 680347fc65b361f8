"""Gallery of a samples folder, `index.html`: each clip's takes, the best first, and its reference.

One page that opens from file:// and fetches nothing: clips are relative paths; posters,
spectrograms with waveforms and, where video was generated, strips of frames are files in
`figures/`; style and script are in the page (gallery_page.py). Whatever comes from a manifest is
escaped.
"""

import html
import io
import json
import math
import os
import pathlib
import re
import urllib.parse

import numpy as np
from PIL import Image

from avlink_jax.data.clip import resample_frames
from avlink_jax.data.media.decode import decode
from avlink_jax.errors import MediaError
from avlink_jax.metrics import av_align, onset
from avlink_jax.samples import gallery_page
from avlink_jax.samples.folder import event_times, file_stem, make_folder, read_manifest
from avlink_jax.samples.spectrogram import spectrogram_png, waveform_png
from avlink_jax.storage.atomic import write_bytes, write_text

FIGURES = 'figures'
STRIP_HEIGHT, STRIP_FRAMES = 72, 12  # pixels; frames in a row
POSTER_HEIGHT, POSTER_SECONDS = 148, 0.05  # of a player, pixels; within which its first frame is
SORTED_BY = ('event_f1', 'onset_f1', 'onset_accuracy')  # scores, besides AV-Align
HEADINGS = {(): 'Generated', ('audio',): 'Generated sound', ('video',): 'Generated picture',
            ('audio', 'video'): 'Generated picture and sound'}
VIDEO_SUFFIXES = ('.mp4', '.webm', '.mkv', '.mov')  # what a browser has a player for
AUDIO_SUFFIXES = ('.wav', '.flac', '.mp3', '.ogg', '.m4a')


def write_gallery(folder, reference=None, scores=None, heading='', overview='') -> pathlib.Path:
  """Writes `index.html` and `figures/` for the clips in the folder's manifest.

  Args:
    folder: a samples folder (`samples/folder.py`).
    reference: a folder with clips of the same names, shown beside; with a manifest (whose
      exact events are drawn) or without. None: no reference is shown.
    scores: result of `evaluate.evaluate`, for the table on top and at each clip.
    heading: over each clip; '' names what was generated.
    overview: HTML above the clips, about all of them; whatever it quotes must be escaped.

  Returns:
    the path of the page.

  Raises:
    UserError: the folder cannot be written, or a manifest is damaged.
  """
  folder = make_folder(folder)
  make_folder(folder / FIGURES)
  rows = read_manifest(folder)
  references = {row['id']: row for row in read_manifest(reference)} if reference else {}
  per_clip = {row['id']: row for row in scores['per_clip']} if scores else {}
  cards, sortable = [], []
  for takes in _by_clip(rows):
    row, sides = takes[0], []
    stem, generated = file_stem(row['id']), _generated(row)
    other = references.get(row['id'])
    if other is None and reference:
      other = _bare_reference(reference, stem)
    for take in takes:
      name = heading or HEADINGS[generated]
      sides.append(_side(folder, folder, take, file_stem(take['id']), _heading(name, take), other,
                         'video' in generated))
      if take['files'].get('low'):
        sides.append(_low_side(folder, take, f'{file_stem(take["id"])}.low'))
    if other is not None:
      sides.append(_side(folder, pathlib.Path(reference), other, f'{stem}.reference', 'Reference',
                         other, 'video' in generated))
    values = _values(row, per_clip.get(stem, {}))
    sortable += [name for name in values if name not in sortable]
    cards.append(_card(folder, row, sides, per_clip.get(stem, {}), values))
  title = f'{folder.resolve().parent.name}/{folder.resolve().name}'
  page = gallery_page.PAGE.format(
    title=html.escape(title), style=gallery_page.STYLE, script=gallery_page.SCRIPT, count=len(rows),
    overview=overview, skipped=_skipped(folder), tools=gallery_page.TOOLS.format(options=''.join(
        f'<option value="{html.escape(_attribute(name))}">{html.escape(name)}</option>'
        for name in sortable)) if len(cards) > 1 else '',
    legend=gallery_page.LEGEND if rows else
    '<p class="none">No clip has been written here yet.</p>',
    scores=_score_tables(scores, rows) if scores else '', cards='\n'.join(cards))
  write_text(folder / 'index.html', page)
  return folder / 'index.html'


def add_scores(folder, reference, scores) -> None:
  """Writes the gallery that a samples folder has anew, with the result of `evaluate.evaluate`; of
  anybody else's folder, or one that cannot be written to, nothing."""
  folder = pathlib.Path(folder)
  if all((folder / name).is_file() and os.access(folder / name, os.W_OK)
         for name in ('index.html', 'manifest.jsonl')):
    write_gallery(folder, reference, scores)


def _by_clip(rows):
  """Groups of rows that are takes of one clip, those of the highest AV-Align first."""
  groups: dict = {}
  for row in rows:
    groups.setdefault(str(row.get('clip') or row['id']), []).append(row)
  return [sorted(takes, key=lambda row: -_number(row.get('av_align'), -1.0))
          for takes in groups.values()]


def _heading(name, row):
  """Heading of a take, or of the only one."""
  if not isinstance(row.get('take'), int):
    return name
  score = row.get('av_align')
  return f'{name}, take {row["take"]}' + (
      f' (AV-Align {score:.3f})' if isinstance(score, float) else '')


def _number(value, otherwise):
  """A finite number of a manifest, or `otherwise`."""
  good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
  return float(value) if good else otherwise


def _values(row, scores):
  """Mapping {name: number} of what cards can be sorted by."""
  level = row['level'] if isinstance(row.get('level'), dict) else {}
  found = {name: scores.get(name) for name in SORTED_BY} | {
      'AV-Align': scores.get('av_align', row.get('av_align')), 'peak': level.get('peak'),
      'duration': row.get('duration')}
  return {name.replace('_', ' '): value for name, value in found.items()
          if _number(value, None) is not None}


def _attribute(name):
  """Name of a card's data attribute, in a script."""
  first, *words = re.split(r'\W+', name.lower())
  return first + ''.join(word.capitalize() for word in words)


def _skipped(folder):
  """List of the clips in `skipped.json` and why they were left out, as HTML."""
  try:
    rows = [(str(name), str(reason)) for name, reason in json.loads(
        (folder / 'skipped.json').read_text(encoding='utf-8'))]
  except (OSError, ValueError, TypeError):
    return ''
  items = ''.join(f'<li>{html.escape(name)}: {html.escape(reason)}</li>' for name, reason in rows)
  return gallery_page.SKIPPED.format(rows=items) if rows else ''


def _generated(row):
  """Generated modalities of a sample, a key of HEADINGS; () where its row does not name them."""
  made = row.get('made')
  return tuple(kind for kind in ('audio', 'video') if isinstance(made, list) and kind in made)


def _bare_reference(reference, stem):
  """Manifest row for a clip in a folder without a manifest, None where there is no such clip."""
  for suffix in VIDEO_SUFFIXES + AUDIO_SUFFIXES:
    path = pathlib.Path(reference) / f'{stem}{suffix}'
    if path.is_file():
      return {'id': stem, 'files': {'video': path.name}}
  return None


def _side(page_folder, folder, row, figure, name, reference, with_frames):
  """One half of a card: player, then frames and spectrogram on a time axis.

  Returns (seconds shown, html with {scale} to be filled in by the card).
  """
  # Video that was rendered from the audio shows no more than the spectrogram beside it.
  order = ('audio', 'video') if row.get('picture') else ('video', 'audio')
  names = [row['files'][kind] for kind in order if row['files'].get(kind)]
  path = _file_in(folder, names[0] if names else None)
  if path is None:
    return 0.0, gallery_page.BROKEN_SIDE.format(name=name, reason='file missing')
  # A sample's audio is in a file of its own as well, which takes far less memory to decode than the
  # video's compressed one; of that it is enough to see that it plays.
  alone = None if with_frames else _file_in(folder, row['files'].get('audio'))
  try:
    if alone:
      decode(path, duration=POSTER_SECONDS, need_video=False)
    clip = _decode(alone or path, with_frames)
  except MediaError as error:
    return 0.0, gallery_page.BROKEN_SIDE.format(name=name, reason=html.escape(error.reason))
  events = event_times(row if row.get('events') is not None else reference or {})
  events = [] if events is None else events[(events >= 0) & (events < clip.duration)]
  spectrogram, note = _spectrogram(page_folder, figure, clip, events)
  player = 'audio' if path.suffix.lower() in AUDIO_SUFFIXES else 'video'
  return clip.duration, gallery_page.SIDE.format(
    name=name, note=note, player=player, url=_url(path, page_folder),
    poster=_poster(page_folder, figure, path),
    frames=_frame_strip(page_folder, figure, clip),
    spectrogram=spectrogram, duration=f'{clip.duration:.6f}', ticks=_ticks(clip.duration))


def _low_side(folder, row, figure):
  """Low-resolution video: player and frames, as `_side` returns them."""
  path, name = _file_in(folder, row['files']['low']), 'Low resolution'
  if path is None:
    return 0.0, gallery_page.BROKEN_SIDE.format(name=name, reason='file missing')
  try:
    clip = decode(path, height=STRIP_HEIGHT, need_audio=False)
  except MediaError as error:
    return 0.0, gallery_page.BROKEN_SIDE.format(name=name, reason=html.escape(error.reason))
  return clip.duration, gallery_page.SIDE.format(
    name=name, note='before it was enlarged', player='video', url=_url(path, folder),
    poster=_poster(folder, figure, path),
    frames=_frame_strip(folder, figure, clip), spectrogram='', duration=f'{clip.duration:.6f}',
    ticks=_ticks(clip.duration))


def _decode(path, with_frames):
  """Decodes a clip with its audio, and small frames if wanted and possible."""
  if with_frames and path.suffix.lower() not in AUDIO_SUFFIXES:
    try:
      return decode(path, height=STRIP_HEIGHT, sample_rate=onset.DETECTION_RATE,
                    need_audio=False)
    except MediaError:
      pass  # the audio may do without, or the reason is raised below
  return decode(path, sample_rate=onset.DETECTION_RATE, need_video=False, need_audio=False)


def _poster(page_folder, figure, path):
  """Writes the first frame of a video; returns the attribute that shows it, '' without one."""
  if path.suffix.lower() in AUDIO_SUFFIXES:
    return ''
  try:
    frames = decode(path, height=POSTER_HEIGHT, duration=POSTER_SECONDS, need_audio=False).frames
  except MediaError:
    return ''
  image_path = page_folder / FIGURES / f'{figure}.poster.jpg'
  Image.fromarray(frames[0]).save(file := io.BytesIO(), 'JPEG', quality=85)
  write_bytes(image_path, file.getvalue())
  return f' poster="{_url(image_path, page_folder)}"'


def _frame_strip(page_folder, figure, clip):
  """Writes frames in a row, each at its time; returns the html that shows them."""
  if not len(clip.frames):
    return ''
  step = clip.duration / STRIP_FRAMES
  frames, _ = resample_frames(clip, step / 2, STRIP_FRAMES, 1 / step)
  image_path = page_folder / FIGURES / f'{figure}.frames.jpg'
  Image.fromarray(np.concatenate(frames, axis=1)).save(file := io.BytesIO(), 'JPEG', quality=90)
  write_bytes(image_path, file.getvalue())
  return f'<img class="strip" loading="lazy" src="{_url(image_path, page_folder)}" alt="Frames">'


def _spectrogram(page_folder, figure, clip, events):
  """Writes a clip's spectrogram; returns (html that shows it, a note on what it shows)."""
  if not clip.audio.size:
    return '<div class="silent">no sound</div>', 'no sound'
  onsets = onset.suppress(onset.detect_onsets(clip.audio, clip.sample_rate)).times
  image_path = page_folder / FIGURES / f'{figure}.png'
  write_bytes(image_path, spectrogram_png(clip.audio, clip.sample_rate, onsets, events))
  note = f'{len(onsets)} onsets' + (f' · {len(events)} events' if len(events) else '')
  wave_path = page_folder / FIGURES / f'{figure}.wave.png'
  write_bytes(wave_path, waveform_png(clip.audio))
  shown = ''.join(
      f'<img{kind} loading="lazy" src="{_url(path, page_folder)}" alt="{name}, {note}">'
      for kind, path, name in (('', image_path, 'Spectrogram'),
                               (' class="wave"', wave_path, 'Waveform')))
  return shown, note


def _file_in(folder, name):
  """Path of the file that a manifest names, None unless it lies inside that folder."""
  if not name:
    return None
  path = pathlib.Path(folder) / str(name)
  try:
    inside = path.resolve().is_relative_to(pathlib.Path(folder).resolve())
    return path if inside and path.is_file() else None
  except (OSError, RuntimeError, ValueError):  # too long, a circle of links, a zero byte
    return None


def _url(path, page_folder):
  """Relative address, escaped for an attribute."""
  relative = os.path.relpath(path, page_folder).replace(os.sep, '/')
  return html.escape(urllib.parse.quote(relative, errors='surrogateescape'))


def _ticks(duration):
  """Labels of the time axis: at most eleven, at round numbers of seconds."""
  step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60) if duration / s <= 10), 300)
  marks = [k * step for k in range(math.floor(duration / step + 1e-6) + 1)]
  return ''.join(
    f'<i style="left:{100 * mark / duration:.3f}%">{mark:g}</i>' for mark in marks)


def _card(folder, row, sides, scores, values):
  """Card of one clip: its manifest row, its sides on one time scale, its scores; `values` are what
  it can be sorted by."""
  longest = max(seconds for seconds, _ in sides) or 1.0
  body = ''.join(part.replace('{scale}', f'{100 * seconds / longest:.3f}')
                 for seconds, part in sides)
  units = {'duration': ' s'}
  details = [(name, f'{_short(row[name])}{units.get(name, "")}')
             for name in ('task', 'source', 'seed', 'steps', 'guidance', 'duration')
             if row.get(name) is not None]
  shown = ('onset_accuracy', 'onset_f1', 'event_f1') if _audio_generated(row) else ()
  details += [(name.removeprefix('onset_').replace('_', ' '), _short(scores[name]))
              for name in shown + ('av_align', 'motion_event_f1') if scores.get(name) is not None]
  if row.get('video_codec') == 'hevc':
    details.append(('video', 'HEVC, which not every browser plays'))
  chips = ''.join(f'<span><b>{html.escape(name)}</b> {html.escape(value)}</span>'
                  for name, value in details)
  wave = _file_in(folder, row['files'].get('audio'))
  if wave is not None and row['files'].get('video'):
    chips += f'<a href="{_url(wave, folder)}">wav</a>'
  prompt = row.get('prompt')
  caption = f'<p class="prompt">{html.escape(str(prompt))}</p>' if prompt else ''
  data = ' '.join(f'data-{re.sub("[^a-z0-9]+", "-", name.lower())}="{value}"'
                  for name, value in values.items())
  return gallery_page.CARD.format(
    id=html.escape(str(row.get('clip') or row['id'])), caption=caption, chips=chips, body=body,
    values=data, name=html.escape(f'{row["id"]} {prompt or ""}'.lower()))


def _short(value):
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def _audio_generated(row):
  """Tells whether a sample's audio is scored: conditioning audio would match itself."""
  return _generated(row) != ('video',)


def _score_tables(scores, rows):
  """Tables of the means of `evaluate`, a family a row, its control below: audio, then video."""
  audio_rows = (('onset_', 'against the onsets of the reference'),
                ('control_onset_', 'control: against other clips'),
                ('event_', 'against exact times'),
                ('control_event_', 'control: against other clips'),
                ('reference_event_', "the reference's own sound against exact times"))
  video_rows = (('', "the picture's motion against its sound, and against exact times"),
                ('control_', 'control: against other clips'),
                ('reference_', 'the reference against its own sound'))
  motion = ('av_align', *(f'motion_event_{name}' for name in av_align.EVENT_NAMES))
  return ''.join([
    _score_table(scores, audio_rows, onset.NAMES) if any(map(_audio_generated, rows)) else '',
    _score_table(scores, video_rows, motion)])


def _score_table(scores, families, names):
  """One table; '' where none of its values is known."""
  lines = []
  for prefix, label in families:
    values = [scores.get(prefix + name) for name in names]
    if any(value is not None for value in values):
      cells = ''.join(f'<td>{"–" if value is None else f"{value:.3f}"}</td>' for value in values)
      lines.append(f'<tr class="{prefix.split("_")[0]}"><th>{label}</th>{cells}</tr>')
  if not lines:
    return ''
  heads = ''.join(f'<td>{name.replace("_", " ")}</td>' for name in names)
  lines.insert(0, f'<tr><th>mean over {scores["clips"]} clips</th>{heads}</tr>')
  return f'<div class="scores"><table>{"".join(lines)}</table></div>'
