"""python -m avlink_jax.data.impacts.benchmark OUT [--clips=512] [--seconds=5.16] [--jobs=2]

Writes a benchmark of timing: videos whose sounds have exact times, for any system to be scored on.

    OUT/ID.mp4           512×288, 24 frames a second, with the true sound: the references
    OUT/silent/ID.mp4    the same without sound: what a system is given, with manifest.jsonl of
                         prompts alone
    OUT/manifest.jsonl   a row a clip: prompts, exact times and strengths of its sounds, materials
    OUT/benchmark.json   version, settings, and a checksum of the truth

A system makes a sound for each file of OUT/silent (prompts are optional) and puts it, as ID.wav or
in ID.mp4, into a folder of its own, which is scored on any machine (nothing of JAX is used):

    python -m avlink_jax.main --mode=evaluate --generated=FOLDER --reference=OUT \\
        --output=scores.json

The same command goes on where it was interrupted. Truth and pictures are a function of the version;
encoders may differ in bits.
"""

import argparse
import concurrent.futures
import hashlib
import json
import multiprocessing
import pathlib
import sys

from avlink_jax.cli.arguments import Parser
from avlink_jax.data.batch import all_frames
from avlink_jax.data.impacts import Impacts
from avlink_jax.data.media import mux
from avlink_jax.errors import MISTAKE, UserError
from avlink_jax.samples.folder import MANIFEST, make_folder
from avlink_jax.storage.atomic import write_text
from avlink_jax.storage.console import Progress

VERSION = 1  # to be raised when the clips change
HEIGHT, WIDTH, FPS, RATE = 288, 512, 24.0, 48_000
SEED = 7  # of the world: nothing was ever trained on it
SILENT, ABOUT = 'silent', 'benchmark.json'
GIVEN = ('id', 'prompt', 'prompts', 'duration', 'files')  # of a row, to a system


def source(clips: int, seconds: float) -> Impacts:
  """The benchmark's clips. Raises UserError: none, too many, or too short."""
  return Impacts('test', seed=SEED, size=clips, duration=seconds, height=HEIGHT, width=WIDTH,
                 fps=FPS, sample_rate=RATE)


def truth(clips: Impacts, i: int) -> dict:
  """Manifest row of clip i: what is exactly known of it."""
  scene, name = clips.scene(i), clips.name(i)
  return {'id': name, 'task': 'benchmark', 'kind': scene.kind, 'prompt': scene.audio_caption,
          'prompts': {'audio': scene.audio_caption, 'video': scene.video_caption},
          'duration': clips.duration, 'events': [round(float(t), 6) for t in scene.events],
          'strengths': [round(float(s), 6) for s in scene.strengths],
          'materials': [list(scene.pairs[k]) for k in scene.pair],
          'files': {'video': f'{name}.mp4'}}


def write_clip(folder: pathlib.Path, clips: Impacts, i: int) -> None:
  """Writes clip i, with its sound and silent, unless both are there."""
  name = clips.name(i)
  silent, loud = folder / SILENT / f'{name}.mp4', folder / f'{name}.mp4'
  if silent.exists() and loud.exists():
    return
  clip = clips.load(i)
  frames = all_frames(clip, FPS)
  mux.write_mp4(silent, frames=frames, fps=FPS)
  mux.write_mp4(loud, frames=frames, fps=FPS, audio=clip.audio, sample_rate=RATE)


def write(folder, count: int, seconds: float, jobs: int) -> dict:
  """Writes the benchmark, and returns what benchmark.json says. Raises UserError: the folder cannot
  be written, or holds one of other settings."""
  folder, clips = make_folder(folder), source(count, seconds)
  rows = [truth(clips, i) for i in range(count)]
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  about = {'version': VERSION, 'seed': SEED, 'clips': count, 'seconds': seconds,
           'truth_sha256': hashlib.sha256(text.encode()).hexdigest()}
  if (folder / ABOUT).exists() and json.loads((folder / ABOUT).read_text()) != about:
    raise UserError(f'{folder} holds a benchmark of other settings: give another folder')
  write_text(folder / MANIFEST, text)
  write_text(folder / ABOUT, json.dumps(about, indent=1) + '\n')
  write_text(make_folder(folder / SILENT) / MANIFEST, ''.join(json.dumps(
      {name: row[name] for name in GIVEN}) + '\n' for row in rows))
  progress = Progress('written', count, 'clips')
  with concurrent.futures.ProcessPoolExecutor(
      max(1, min(jobs, count)), multiprocessing.get_context('spawn')) as pool:
    for _ in pool.map(write_clip, *zip(*((folder, clips, i) for i in range(count)), strict=True)):
      progress.add()
  return about


def main(argv=None) -> int:
  """Runs the command; exit status 0, or 2 for a user's mistake, reported in one line."""
  parser = Parser(
      prog='python -m avlink_jax.data.impacts.benchmark', description=__doc__.split('\n\n')[1],
      epilog='\n\n'.join(__doc__.split('\n\n')[2:]),
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('folder', metavar='OUT')
  parser.add_argument('--clips', type=int, default=512)
  parser.add_argument('--seconds', type=float, default=5.16, help='of a clip')
  parser.add_argument('--jobs', type=int, default=2, help='processes')
  try:
    options = parser.parse_args(argv)
    if options.jobs < 1:
      raise UserError(f'--jobs={options.jobs}: give at least 1')
    about = write(options.folder, options.clips, options.seconds, options.jobs)
  except UserError as error:
    print(f'avlink_jax: {error}', file=sys.stderr)
    return MISTAKE
  print(json.dumps(about))
  return 0


if __name__ == '__main__':
  # What is spawned must not stand in `__main__`, which it does not import.
  from avlink_jax.data.impacts import benchmark
  sys.exit(benchmark.main())
