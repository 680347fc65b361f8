"""Gallery of a samples folder, `index.html`: each clip beside its reference.

One page that opens from file:// and fetches nothing: clips are relative paths; spectrograms and,
where video was generated, strips of frames are files in `figures/`; style and script are in the
page. Whatever comes from a manifest is escaped.
"""

import html
import io
import math
import os
import pathlib
import urllib.parse

import numpy as np
from PIL import Image

from avlink_jax.data.clip import resample_frames
from avlink_jax.data.media.decode import decode
from avlink_jax.errors import MediaError
from avlink_jax.metrics import av_align, onset
from avlink_jax.samples.folder import event_times, file_stem, make_folder, read_manifest
from avlink_jax.samples.spectrogram import spectrogram_png
from avlink_jax.storage.atomic import write_bytes, write_text

FIGURES = 'figures'
STRIP_HEIGHT, STRIP_FRAMES = 72, 12  # pixels; frames in a row
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
  cards = []
  for row in rows:
    stem = file_stem(row['id'])
    other = references.get(row['id'])
    if other is None and reference:
      other = _bare_reference(reference, stem)
    generated = _generated(row)
    sides = [_side(folder, folder, row, stem, heading or HEADINGS[generated], other,
                   'video' in generated)]
    if row['files'].get('low'):
      sides.append(_low_side(folder, row, f'{stem}.low'))
    if other is not None:
      sides.append(_side(folder, pathlib.Path(reference), other, f'{stem}.reference', 'Reference',
                         other, 'video' in generated))
    cards.append(_card(folder, row, sides, per_clip.get(stem, {})))
  title = f'{folder.resolve().parent.name}/{folder.resolve().name}'
  page = PAGE.format(
    title=html.escape(title), style=STYLE, script=SCRIPT, count=len(rows),
    overview=overview,
    legend=LEGEND if rows else '<p class="none">No clip has been written here yet.</p>',
    scores=_score_tables(scores, rows) if scores else '', cards='\n'.join(cards))
  write_text(folder / 'index.html', page)
  return folder / 'index.html'


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
    return 0.0, BROKEN_SIDE.format(name=name, reason='file missing')
  try:
    clip = _decode(path, with_frames)
  except MediaError as error:
    return 0.0, BROKEN_SIDE.format(name=name, reason=html.escape(error.reason))
  events = event_times(row if row.get('events') is not None else reference or {})
  events = [] if events is None else events[(events >= 0) & (events < clip.duration)]
  spectrogram, note = _spectrogram(page_folder, figure, clip, events)
  return clip.duration, SIDE.format(
    name=name, note=note, player='audio' if path.suffix.lower() in AUDIO_SUFFIXES else 'video',
    url=_url(path, page_folder), frames=_frame_strip(page_folder, figure, clip),
    spectrogram=spectrogram, duration=f'{clip.duration:.6f}', ticks=_ticks(clip.duration))


def _low_side(folder, row, figure):
  """Low-resolution video: player and frames, as `_side` returns them."""
  path, name = _file_in(folder, row['files']['low']), 'Low resolution'
  if path is None:
    return 0.0, BROKEN_SIDE.format(name=name, reason='file missing')
  try:
    clip = decode(path, height=STRIP_HEIGHT, need_audio=False)
  except MediaError as error:
    return 0.0, BROKEN_SIDE.format(name=name, reason=html.escape(error.reason))
  return clip.duration, SIDE.format(
    name=name, note='before it was enlarged', player='video', url=_url(path, folder),
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
  url = _url(image_path, page_folder)
  return f'<img loading="lazy" src="{url}" alt="Spectrogram, {note}">', note


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


def _card(folder, row, sides, scores):
  """Card of one clip: its manifest row, the two sides on one time scale, its scores."""
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
  chips = ''.join(f'<span><b>{html.escape(name)}</b> {html.escape(value)}</span>'
                  for name, value in details)
  wave = _file_in(folder, row['files'].get('audio'))
  if wave is not None and row['files'].get('video'):
    chips += f'<a href="{_url(wave, folder)}">wav</a>'
  prompt = row.get('prompt')
  caption = f'<p class="prompt">{html.escape(str(prompt))}</p>' if prompt else ''
  return CARD.format(id=html.escape(row['id']), caption=caption, chips=chips, body=body)


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


SIDE = '''<section class="side"><h3>{name} <small>{note}</small></h3>
<{player} controls preload="none" src="{url}"></{player}>
<div class="scale"><div class="track" data-duration="{duration}" style="width:{{scale}}%">
{frames}{spectrogram}<div class="head"></div></div>
<div class="axis" style="width:{{scale}}%">{ticks}</div></div></section>
'''

BROKEN_SIDE = '<section><h3>{name}</h3><p class="none">{reason}</p></section>'

CARD = '''<article><h2>{id}</h2>{caption}<p class="chips">{chips}</p>
<div class="sides">{body}</div></article>'''

LEGEND = '''<p class="legend"><i class="onset"></i> onset found in the sound
<i class="event"></i> exact time of an event
<span>Press play or click on a spectrogram to go there.</span></p>'''

PAGE = '''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><header><h1>{title}</h1><p>{count} clips</p></header>
{scores}{legend}{overview}<main>{cards}</main><script>{script}</script></body></html>
'''

STYLE = '''
:root { color-scheme: light dark; --ink: light-dark(#1c1d21, #e6e6ea);
  --soft: light-dark(#6a6d76, #9a9da8); --page: light-dark(#f5f5f3, #141518);
  --card: light-dark(#fff, #1d1e23); --line: light-dark(#e2e2de, #303138); }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 24px 20px 60px; color: var(--ink);
  background: var(--page); font: 15px/1.45 system-ui, sans-serif; }
header { display: flex; align-items: baseline; gap: 14px; }
h1 { font-size: 22px; margin: 0; } h2 { font-size: 15px; margin: 0; overflow-wrap: anywhere; }
h3 { font-size: 13px; margin: 0; } small, header p, .legend, .axis, .none { color: var(--soft); }
small { font-weight: 400; margin-left: 4px; }
.scores { overflow-x: auto; margin: 14px 0; } .control { color: var(--soft); }
table { border-collapse: collapse; font-size: 14px; }
tr:first-child { color: var(--soft); }
th, td { padding: 3px 0 3px 18px; border-bottom: 1px solid var(--line); }
th { min-width: 150px; padding-left: 0; font-weight: 400; text-align: left; }
td { white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums; }
.legend { font-size: 13px; display: flex; flex-wrap: wrap; align-items: center; gap: 6px 8px; }
.legend i { width: 18px; height: 14px; background: #451077; border-radius: 2px;
  position: relative; }
.legend i::after { content: ""; position: absolute; left: 8px; width: 2px; bottom: 0; }
.legend .onset::after { top: 0; background: rgb(72,224,240); }
.legend .event::after { height: 6px; background: #fff; } .legend span { margin-left: 12px; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; margin: 16px 0; }
.prompt { margin: 4px 0 0; max-height: 6em; overflow: auto; overflow-wrap: anywhere; }
.chips { display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 4px 0 10px; font-size: 13px;
  color: var(--soft); } .chips b { font-weight: 400; } .chips span { color: var(--ink); }
.chips b { color: var(--soft); } .chips a { color: inherit; }
.side { display: grid; grid-template-columns: 264px 1fr; gap: 2px 14px; padding: 6px 0; }
.side h3 { grid-column: 1 / -1; } .side .scale { min-width: 0; }
video { width: 100%; height: 148px; background: #000; border-radius: 6px; object-fit: contain; }
audio { width: 100%; align-self: center; }
.track { position: relative; border-radius: 6px; overflow: hidden; cursor: pointer;
  background: #000004; } .track img { width: 100%; height: 148px; display: block; }
.track .strip { height: 54px; }
.silent { color: #aaa; text-align: center; line-height: 148px; font-size: 13px; }
.head { position: absolute; top: 0; bottom: 0; left: 0; width: 2px; background: #fff;
  box-shadow: 0 0 3px #000; visibility: hidden; }
.axis { position: relative; height: 18px; font-size: 11px; }
.axis i { position: absolute; transform: translateX(-50%); font-style: normal; }
.axis i:first-child { transform: none; } .axis i:last-child { transform: translateX(-80%); }
@media (max-width: 720px) { .side { grid-template-columns: 1fr; }
  video { height: auto; max-height: 240px; } .track img { height: 96px; }
  .track .strip { height: 36px; } }
'''

SCRIPT = '''
const players = [...document.querySelectorAll("video, audio")];
const near = new IntersectionObserver(entries => entries.forEach(entry => {
  if (entry.isIntersecting) entry.target.preload = "metadata";
}), {rootMargin: "800px"});
for (const player of players) {
  const track = player.closest(".side").querySelector(".track");
  const head = track.querySelector(".head");
  near.observe(player);
  const draw = () => {
    head.style.visibility = "visible";
    head.style.left = 100 * player.currentTime / track.dataset.duration + "%";
    if (!player.paused) requestAnimationFrame(draw);
  };
  player.addEventListener("play", () => {
    players.forEach(other => other === player || other.pause());
    draw();
  });
  player.addEventListener("seeked", draw);
  track.addEventListener("click", event => {
    const box = track.getBoundingClientRect();
    player.currentTime = (event.clientX - box.left) / box.width * track.dataset.duration;
  });
}
'''
