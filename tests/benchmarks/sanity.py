"""Do metrics get worse as clips do? Real clips, spoilt step by step, against themselves.

    python -m tests.benchmarks.sanity --clips=FOLDER [--count=16] [--seconds=2] [--fps=12]
                                      [--acts=drum,hammer] [--ways=late,quieter] [--output=DIR]

Of each clip the first seconds, 144 pixels high, are written anew, and then once more with noise,
blur, a time shift, another loudness or another clip's sound or picture, at rising strengths. Prints
a line a way of spoiling and metric: its value at each strength, by how much it changed to the last
one (95 % of it, bootstrap over clips, where a clip by itself has a value), and whether it went the
way it should: worse at every step, or, where only loudness changed, nowhere. With an output,
`sanity.svg` there shows the same as curves. `--ways`: only those whose names begin so.

AV-Align is looked at on other clips: all of those in which one may see what makes the sound, which
is where the caption in FOLDER/captions.csv has one of the words of `--acts` (or all, where there
are no captions), up to 10 s of each, at the 6 frames a second of the paper's base model. What it
tells on others, and of less, stands in avlink_jax/metrics/av_align.py.
"""

import argparse
import csv
import functools
import html
import pathlib
import tempfile

import cv2
import numpy as np
import scipy.signal

from avlink_jax.data.clip import resample_frames
from avlink_jax.data.media import decode as media
from avlink_jax.data.media import mux
from avlink_jax.errors import MediaError
from avlink_jax.evaluate import evaluate
from avlink_jax.metrics import bootstrap, network_metrics

RATE, HEIGHT, WIDTH = 22050, 144, 256
SHORTEST = 2.0  # seconds
TURNS = 4  # exchanges that are averaged: one alone is a matter of luck
ACTS = ('bang', 'bass', 'bongo', 'clicking', 'conga', 'cough', 'crumpled', 'dog', 'drum',
        'fireworks', 'gun', 'hammer', 'harp', 'moved', 'opened', 'paper', 'trotting')
HEARD = ('fad_yamnet', 'fad_aisfx', 'fd_soundnet', 'kl_yamnet', 'is_yamnet')
SEEN = ('fid_efficientnet_lite0', 'fvd_i3d')
RISING = ('fad_', 'fd_', 'kl_', 'fid_', 'fvd_')  # the larger, the worse
STILL = 0.05  # by how much of itself a figure may change where it should not


def noisy(clip, decibels):
  """White noise at -decibels of signal to noise."""
  sound, chance = clip['sound'], np.random.default_rng(0)
  level = np.sqrt(np.mean(sound ** 2)) * 10 ** (decibels / 20)
  return {'sound': np.clip(sound + level * chance.standard_normal(len(sound)), -1, 1)}


def muffled(clip, hertz):
  """Nothing above `hertz`."""
  low = scipy.signal.butter(6, hertz, fs=RATE, output='sos')
  return {'sound': scipy.signal.sosfiltfilt(low, clip['sound'])}


def louder(clip, decibels):
  return {'sound': clip['sound'] * 10 ** (decibels / 20)}


def late(clip, seconds):
  """What sounds, sounds so much later; the end comes first."""
  return {'sound': np.roll(clip['sound'], round(seconds * RATE))}


def grainy(clip, deviation):
  chance = np.random.default_rng(0)
  frames = clip['frames'] + deviation * chance.standard_normal(clip['frames'].shape)
  return {'frames': np.clip(frames, 0, 255).astype(np.uint8)}


def blurred(clip, deviation):
  """Gaussian, in pixels of 144."""
  return {'frames': np.stack([cv2.GaussianBlur(frame, (0, 0), deviation)
                              for frame in clip['frames']])}


def jumbled(clip, share):
  """Frames in another order: that share of them changes places."""
  chance, count = np.random.default_rng(0), len(clip['frames'])
  chosen = np.sort(chance.choice(count, round(share * count), replace=False))
  order = np.arange(count)
  order[chosen] = chance.permutation(chosen)
  return {'frames': clip['frames'][order]}


# name: (what it does, strengths, metrics that get worse, metrics that stay as they are, clips)
WAYS = {
    'noise, dB of the sound': (noisy, (-20, 0, 20), (*HEARD, 'onset_f1'), (), 'first'),
    'low-pass, Hz': (muffled, (4000, 1000, 250), HEARD[:4], (), 'first'),
    # Up to twice what onset accuracy forgives, and a frame, which is what AV-Align does: beyond it
    # both are what luck makes of them.
    'late sound, s': (late, (0.05, 0.1, 0.2), ('onset_accuracy', 'onset_f1'), (), 'first'),
    'late sound of acts, s': (late, (0.05, 0.1, 0.2), ('av_align',), (), 'acts'),
    'quieter, dB': (louder, (-3, -6, -12), (), ('onset_accuracy', 'onset_f1'), 'first'),
    'quieter acts, dB': (louder, (-3, -6, -12), (), ('av_align',), 'acts'),
    'sounds exchanged, share': ('sound', (0.25, 0.5, 1.0),
                                ('kl_yamnet', 'onset_accuracy', 'onset_f1'), (), 'first'),
    'grain, of 255': (grainy, (8, 24, 72), SEEN, (), 'first'),
    'blur, px': (blurred, (1, 3, 9), SEEN, (), 'first'),
    'frames jumbled, share': (jumbled, (0.25, 0.5, 1.0), ('fvd_i3d',), (), 'first'),
    'pictures of acts exchanged, share': ('frames', (0.25, 0.5, 1.0), ('av_align',), (), 'acts'),
}


def read(folder, count, seconds, fps=12, words=()):
  """{name: {'sound': (S,), 'frames': (N, 144, 256, 3)}} of the first clips that are long enough."""
  clips, told = {}, captions(folder) if words else None
  for path in sorted(pathlib.Path(folder).iterdir()):
    if len(clips) == count:
      break
    if told is not None and not any(word in told.get(path.name, '') for word in words):
      continue
    try:
      clip = media.decode(path, height=HEIGHT, width=WIDTH, sample_rate=RATE, max_fps=fps,
                          duration=seconds)
    except MediaError:
      continue
    if clip.duration >= min(seconds, SHORTEST) - 1 / fps and np.abs(clip.audio).max() > 0.02:
      kept = min(clip.duration, seconds)
      frames, _ = resample_frames(clip, 0.0, round(kept * fps), fps)
      clips[path.stem] = {'sound': clip.audio[:round(kept * RATE)], 'frames': frames, 'fps': fps}
  return clips


def captions(folder):
  """{file: caption, in small letters}; None where there are none."""
  path = pathlib.Path(folder, 'captions.csv')
  if not path.is_file():
    return None
  with path.open(newline='') as file:
    return {row['file']: row['caption'].lower() for row in csv.DictReader(file)}


def spoilt(clips, way, strength, turn=0):
  """The clips after one of the WAYS. Where they are exchanged each `turn` is another exchange."""
  if callable(way):
    return {name: {**clip, **way(clip, strength)} for name, clip in clips.items()}
  names = list(clips)
  first = turn * len(names) // TURNS
  names = names[first:] + names[:first]
  moved = names[:round(strength * len(names))]
  step = turn % max(1, len(moved) - 1) + 1  # each of them gets that of the one so far on
  turned = dict(zip(moved, moved[step:] + moved[:step], strict=True))
  return {name: {**clip, way: clips[turned.get(name, name)][way]} for name, clip in clips.items()}


def write(folder, clips):
  for name, clip in clips.items():
    mux.write_mp4(folder / f'{name}.mp4', frames=clip['frames'], fps=clip['fps'])
    mux.write_wav(folder / f'{name}.wav', clip['sound'].astype(np.float32), RATE)


def remember():
  """Networks are loaded once and the reference is looked at once, over all evaluations."""
  network_metrics.Embedder.clip = functools.cache(network_metrics.Embedder.clip)
  network_metrics.Embedder = functools.cache(network_metrics.Embedder)


def score(clips, reference, metrics, networks):
  """`evaluate` of spoilt clips against the reference."""
  with tempfile.TemporaryDirectory() as folder:
    write(pathlib.Path(folder), clips)
    return evaluate(folder, str(reference), metrics=metrics, networks=networks)


def mean(results, names):
  """The figures of several exchanges as one; also clip by clip."""
  def of(values):
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None

  rows = [{row['id']: row for row in result['per_clip']} for result in results]
  return {**{name: of([result.get(name) for result in results]) for name in names},
          'per_clip': [{'id': clip, **{name: of([each[clip].get(name) for each in rows])
                                       for name in names}} for clip in rows[0]]}


def verdict(name, values, still):
  if any(value is None for value in values):
    return 'undefined'
  if still:
    return 'stays' if np.ptp(values) <= STILL * max(values) else 'CHANGES'
  steps = np.diff(values) * (1 if name.startswith(RISING) else -1)
  return 'worse' if (steps > 0).all() else 'NOT WORSE'


def change(before, after, name):
  """[low, high]: 95 % of what a metric changed by, paired by clip; None for a set's figure."""
  rows = [{row['id']: row.get(name) for row in result['per_clip']} for result in (before, after)]
  both = [(rows[0][clip], rows[1][clip]) for clip in rows[0]]
  differences = [None if None in pair else pair[1] - pair[0] for pair in both]
  return bootstrap.intervals({name: differences})[name]


def table(sets, networks, ways):
  """[(way, strengths, metric, values, verdict)] of {name: clips}; each printed as it comes."""
  rows = []
  print(f'| {" or ".join(str(len(clips)) for clips in sets.values())} clips spoilt by | metric '
        f'| as they are | with {"rising strength":24} | changed by | |')
  print('|---|---|---|---|---|---|')
  with tempfile.TemporaryDirectory() as folder:
    references = {name: pathlib.Path(folder, name) for name in sets}
    for name, clips in sets.items():
      write(references[name], clips)
    for way, (function, strengths, worse, still, chosen) in WAYS.items():
      if not way.startswith(ways):
        continue
      clips, reference = sets[chosen], references[chosen]
      metrics = tuple(name for name in worse if name in network_metrics.METRICS)
      found = [evaluate(str(reference), str(reference), metrics=metrics, networks=networks)]
      for strength in strengths:
        turns = range(1 if callable(function) else TURNS)
        found.append(mean([score(spoilt(clips, function, strength, turn), reference, metrics,
                                 networks) for turn in turns], (*worse, *still)))
      for name in (*worse, *still):
        values = [result.get(name) for result in found]
        rows.append((way, strengths, name, values, verdict(name, values, name in still)))
        shown = [number(value) for value in values]
        told = ', '.join(f'{value} ({strength})'
                         for value, strength in zip(shown[1:], strengths, strict=True))
        changed = change(found[0], found[-1], name)
        changed = '[{:+.3f}, {:+.3f}]'.format(*changed) if changed else '–'
        print(f'| {way} | {name} | {shown[0]} | {told} | {changed} | {rows[-1][-1]} |', flush=True)
  return rows


def number(value):
  if value is None:
    return '–'
  return f'{value:.0f}' if value >= 100 else f'{value:.3f}'


def drawing(rows):
  """SVG: a small curve a row, each on its own scale from 0."""
  width, height, columns = 250, 160, 4
  parts = []
  for k, (way, strengths, name, values, said) in enumerate(rows):
    x, y = k % columns * width, k // columns * height
    top = max([value for value in values if value is not None], default=1) or 1
    points = [(x + 25 + 62 * n, y + 125 - 65 * value / top)
              for n, value in enumerate(values) if value is not None]
    colour = '#c22' if said.isupper() else '#27a'
    parts += [f'<text x="{x + 12}" y="{y + 18}" font-weight="bold">{html.escape(name)}</text>',
              f'<text x="{x + 12}" y="{y + 32}">{html.escape(way)}</text>',
              f'<line x1="{x + 12}" y1="{y + 125}" x2="{x + 225}" y2="{y + 125}" stroke="#999"/>',
              f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="'
              + ' '.join(f'{a:.1f},{b:.1f}' for a, b in points) + '"/>',
              '<g text-anchor="middle">']
    parts += [f'<text x="{x + 25 + 62 * n}" y="{y + 140}">{strength}</text>'
              for n, strength in enumerate(('–', *strengths))]
    parts += [f'<text x="{a:.1f}" y="{b - 6:.1f}" fill="{colour}">{number(value)}</text>'
              for (a, b), value in zip(points, [v for v in values if v is not None], strict=True)]
    parts.append('</g>')
  rows_of = -(-len(rows) // columns)
  return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{columns * width}" '
          f'height="{rows_of * height}" font-family="sans-serif" font-size="11">'
          '<rect width="100%" height="100%" fill="white"/>' + ''.join(parts) + '</svg>\n')


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--clips', required=True, help='folder of real clips with sound')
  parser.add_argument('--count', type=int, default=16)
  parser.add_argument('--seconds', type=float, default=2.0)
  parser.add_argument('--fps', type=int, default=12, help='of the pictures')
  parser.add_argument('--networks', help='folder with weights')
  parser.add_argument('--output', help='folder for sanity.svg')
  parser.add_argument('--ways', default='', help='what their names begin with, with commas')
  parser.add_argument('--acts', default=','.join(ACTS), help='words of captions, with commas')
  flags = parser.parse_args()
  remember()
  words = tuple(filter(None, flags.acts.lower().split(',')))
  rows = table({'first': read(flags.clips, flags.count, flags.seconds, flags.fps),
                'acts': read(flags.clips, 1000, 10.0, 6, words)},
               flags.networks, tuple(flags.ways.split(',')))
  good = sum(not row[-1].isupper() for row in rows)
  print(f'{good} of {len(rows)} as they should be')
  if flags.output:
    path = pathlib.Path(flags.output, 'sanity.svg')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(drawing(rows))


if __name__ == '__main__':
  main()
