"""Preparing records: clips a second of one core, beside ffmpeg, and where the time goes.

    python -m tests.benchmarks.prepare --clips=FOLDER [--codec=bundled] [--count=N]

Seconds are of the processor, over all threads, so that what else runs beside it counts little. The
ffmpeg on PATH does the same conversion of the same files (pictures at 6 fps, scaled by area and
cropped; mono sound at 16 kHz), into raw files, one process a clip; without shots, windows, latents.
"""

import argparse
import collections
import contextlib
import pathlib
import resource
import shutil
import subprocess
import tempfile
import time

from avlink_jax.data.batch import Layout
from avlink_jax.data.media import audio, scaler
from avlink_jax.data.media import decode as media
from avlink_jax.data.prepare import convert, shots
from avlink_jax.data.sources import records, shards
from avlink_jax.data.sources.folder import Folder
from avlink_jax.errors import MediaError
from avlink_jax.sampling.inputs import blank_clip

FILTER = 'fps=6,scale=64:36:force_original_aspect_ratio=increase:flags=area,crop=64:36'


class Spent:
  """Processor seconds inside functions that are wrapped, each less what is wrapped within it."""

  def __init__(self):
    self.seconds, self._within = collections.Counter(), [0.0]

  @contextlib.contextmanager
  def within(self, name):
    began = time.process_time()
    self._within.append(0.0)
    try:
      yield
    finally:
      whole = time.process_time() - began
      self.seconds[name] += whole - self._within.pop()
      self._within[-1] += whole

  def wrap(self, owner, function, name):
    """Makes `owner.function` count as `name`."""
    inner = getattr(owner, function)

    def outer(*args, **named):
      with self.within(name):
        return inner(*args, **named)

    setattr(owner, function, outer)


def ours(folder, count, codec, output):
  """(clips, clips that gave no record, windows, seconds by what they were spent on)."""
  layout, spent = Layout(5.16, 6.0, 36, 64), Spent()
  spent.wrap(media, '_decode', 'demux, decode')
  spent.wrap(scaler.Scaler, '__call__', 'scale, crop, to RGB')
  spent.wrap(audio.AudioTrack, 'waveform', 'resample the audio')
  spent.wrap(shots, 'cuts', 'find shots')
  spent.wrap(convert.Codec, 'encode', 'mel to latents')
  spent.wrap(convert.batches, 'read', 'mel')
  spent.wrap(convert.jax, 'jit', 'compile')
  spent.wrap(shards.Journal, 'put', 'write')
  spent.wrap(shards.Journal, 'finish', 'write')
  spent.wrap(records, 'of_clip', 'write')
  source = Folder(folder, height=36, width=64, sample_rate=16_000, max_fps=6.0)
  converter = convert.Converter(
      layout, codecs={'audio': convert.load_codec(codec)} if codec else {}, keep_media=not codec)
  if codec:  # compiled once a process, however many clips follow
    converter.codec.encode(blank_clip(0, '', layout), layout)
    spent.seconds.clear()
  journal, clips = shards.Journal(output, 'train-00000-of-00001'), min(count, len(source))
  with spent.within('the rest'):
    for i in range(clips):
      journal.put(i, *converter(source, i))
    report = journal.finish()
  return clips, len(report['skipped']), report['records'], spent.seconds


def ffmpeg(files, output):
  """(processor seconds, files that it refused)."""
  before, refused = resource.getrusage(resource.RUSAGE_CHILDREN), 0
  for file in files:
    command = ['ffmpeg', '-v', 'error', '-y', '-i', file, '-vf', FILTER, '-pix_fmt', 'rgb24', '-f',
               'rawvideo', output / 'out.rgb', '-ac', '1', '-ar', '16000', '-f', 's16le',
               output / 'out.pcm']
    done = subprocess.run(list(map(str, command)), stderr=subprocess.DEVNULL, check=False)
    refused += done.returncode != 0
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, refused


def usable(folder, count):
  """The files of the first `count` clips that can be decoded, for ffmpeg to have the same ones."""
  source = Folder(folder, height=36, width=64, sample_rate=16_000, max_fps=6.0)
  for i in range(min(count, len(source))):
    with contextlib.suppress(MediaError):
      yield source.load(i).source


if __name__ == '__main__':
  parser = argparse.ArgumentParser()
  parser.add_argument('--clips', required=True)
  parser.add_argument('--codec', default='')
  parser.add_argument('--count', type=int, default=10_000)
  given = parser.parse_args()
  with tempfile.TemporaryDirectory() as output:
    output = pathlib.Path(output)
    files = list(usable(given.clips, given.count))
    if shutil.which('ffmpeg'):
      seconds, refused = ffmpeg(files, output)
      print(f'ffmpeg: {len(files)} clips, {refused} refused, {len(files) / seconds:.2f} clips a '
            'second of a core', flush=True)
    else:
      print('ffmpeg: not on PATH, not measured', flush=True)
    clips, broken, made, spent = ours(given.clips, given.count, given.codec, output)
    total = sum(spent.values())
    print(f'prepare: {clips} clips, {broken} of them unusable, {made} records, '
          f'{clips / total:.2f} clips a second of a core')
    for name, seconds in spent.most_common():
      print(f'  {name:24} {1000 * seconds / clips:7.1f} ms a clip  {100 * seconds / total:5.1f} %')
