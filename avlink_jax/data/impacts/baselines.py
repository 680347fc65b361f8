"""python -m avlink_jax.data.impacts.baselines BENCH OUT [NAME ...]

Writes sounds of known quality for the benchmark of timing in BENCH (benchmark.py), a folder each,
scores them and prints one table. Folders in OUT that others filled, such as your system, are scored
with them; what is there already is kept.

    truth        the true sounds
    luck         those of another clip: right in kind, and timed by chance
    motion       a click at each peak of motion of the silent video (metrics/av_align.py)
    griffin_lim  the true sounds as log-mels and back by Griffin-Lim: what is lost without a vocoder
"""

import argparse
import pathlib
import sys

import numpy as np

from avlink_jax.data.impacts.benchmark import RATE, SILENT
from avlink_jax.data.media import mux
from avlink_jax.data.media.decode import decode
from avlink_jax.errors import MISTAKE, UserError
from avlink_jax.evaluate import evaluate
from avlink_jax.metrics import av_align
from avlink_jax.samples.folder import make_folder, read_manifest
from avlink_jax.storage.console import Progress

# Frames a second that motion is looked for in: F1 of its peaks is 0.338 at 6, 0.464 at 8, 0.575 at
# 12 and 0.529 at 24 (the benchmark's first 32 clips), where a contact has two, before and after.
MOTION_FPS = 12.0
COLUMNS = {'event_f1_25ms': 'F1 ±25 ms', 'event_f1_50ms': '±50 ms', 'event_f1': '±100 ms',
           'event_lateness': 'late, s', 'event_spread': 'spread, s',
           'event_strength': 'strength', 'event_material': 'material'}


def wave_of(bench: pathlib.Path, id: str, sample_rate: int = RATE) -> np.ndarray:
  """True sound of a clip, float32 (S,)."""
  return decode(bench / f'{id}.mp4', sample_rate=sample_rate, need_video=False).audio


def truth(bench, ids, k):
  return wave_of(bench, ids[k]), RATE


def luck(bench, ids, k):
  return wave_of(bench, ids[(k + len(ids) // 2) % len(ids)]), RATE


def motion(bench, ids, k):
  clip = decode(bench / SILENT / f'{ids[k]}.mp4', height=av_align.HEIGHT, max_fps=MOTION_FPS,
                need_audio=False)
  peaks = av_align.motion(clip.frames, clip.frame_times, clip.duration).peaks
  return clicks(peaks, clip.duration), RATE


def griffin_lim(bench, ids, k):
  from avlink_jax.codecs.griffin_lim import griffin_lim
  from avlink_jax.codecs.mel import MelSpec, log_mel
  spec = MelSpec()
  wave = wave_of(bench, ids[k], spec.sample_rate)
  return griffin_lim(log_mel(wave, spec), spec), spec.sample_rate


BASELINES = {'truth': truth, 'luck': luck, 'motion': motion, 'griffin_lim': griffin_lim}


def clicks(times, seconds: float) -> np.ndarray:
  """Short bursts of noise at `times` in silence: float32 (S,) at RATE."""
  chance = np.random.default_rng(0)
  burst = np.exp(-np.arange(RATE // 20) / (0.01 * RATE)) * chance.uniform(-0.7, 0.7, RATE // 20)
  wave = np.zeros(round(seconds * RATE) + len(burst), np.float32)
  for time in times:
    first = round(time * RATE)
    wave[first:first + len(burst)] += burst
  return np.clip(wave[:round(seconds * RATE)], -1, 1)


def write(bench: pathlib.Path, folder: pathlib.Path, name: str, ids: list[str]) -> None:
  """Writes a baseline's ID.wav into a folder of its name, those that are not there."""
  make_folder(folder / name)
  progress = Progress(f'{name}:', len(ids))
  for k, id in enumerate(ids):
    path = folder / name / f'{id}.wav'
    if not path.exists():
      mux.write_wav(path, *BASELINES[name](bench, ids, k))
    progress.add()


def table(results: dict[str, dict]) -> str:
  """Markdown table of {name: result of `evaluate`}, each score with its 95 % interval."""
  lines = ['| | ' + ' | '.join(COLUMNS.values()) + ' |', '|---' * (len(COLUMNS) + 1) + '|']
  for name, result in results.items():
    cells = []
    for column in COLUMNS:
      value, bounds = result.get(column), result['intervals'].get(column)
      span = f' [{bounds[0]:.3f}, {bounds[1]:.3f}]' if bounds else ''
      cells.append('–' if value is None else f'{value:.3f}{span}')
    lines.append(f'| {name}, {result["clips"]} clips | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def main(argv=None) -> int:
  """Runs the command; exit status 0, or 2 for a user's mistake, reported in one line."""
  parser = argparse.ArgumentParser(
      prog='python -m avlink_jax.data.impacts.baselines', description=__doc__.split('\n\n')[1],
      epilog=__doc__.split('\n\n')[2], formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('bench', metavar='BENCH', type=pathlib.Path)
  parser.add_argument('folder', metavar='OUT', type=pathlib.Path)
  parser.add_argument('names', metavar='NAME', nargs='*', help=f'default: {" ".join(BASELINES)}')
  options = parser.parse_args(argv)
  try:
    names = options.names or list(BASELINES)
    if unknown := [name for name in names if name not in BASELINES]:
      raise UserError(f'{unknown[0]}: no such baseline; there are {", ".join(BASELINES)}')
    ids = [row['id'] for row in read_manifest(options.bench) if row.get('task') == 'benchmark']
    if not ids:
      raise UserError(f'{options.bench}: no benchmark: python -m avlink_jax.data.impacts.benchmark '
                      f'{options.bench} writes it')
    for name in names:
      write(options.bench, options.folder, name, ids)
    others = sorted(path.name for path in options.folder.iterdir()
                    if path.is_dir() and path.name not in BASELINES)
    results = {name: evaluate(str(options.folder / name), str(options.bench),
                              str(options.folder / f'{name}.json')) for name in [*names, *others]}
  except UserError as error:
    print(f'avlink_jax: {error}', file=sys.stderr)
    return MISTAKE
  print(table(results))
  return 0


if __name__ == '__main__':
  sys.exit(main())
