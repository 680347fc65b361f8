"""Reading V2A's examples straight from a folder of clips: how many a second, and where time goes.

    python -m tests.benchmarks.reading_clips FOLDER [--threads=1,2,4] [--seconds=20] [--rounds=3]
        [--minutes=0]

Examples are of paper scale: 5.16 s at a random place of a clip, 31 frames of 36 × 64, a log-mel.
Nothing is kept in memory (data.cache_bytes=0), as of a folder that is too large for it; a last row
is of a folder that fits into it. Numbers of threads (data.threads) take turns. With --minutes=N
long files are read as well, which repeat four of the clips: whole, and in parts as they are
(data/examples.py), in turns.

Where time goes is measured with one thread, in the processor's milliseconds an example. `ffmpeg` is
`ffmpeg -threads 1` decoding the same files to nothing.
"""

import argparse
import collections
import contextlib
import functools
import itertools
import pathlib
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from unittest import mock

import numpy as np
from ml_collections import ConfigDict

from avlink_jax.codecs import mel_codec
from avlink_jax.data import pipeline
from avlink_jax.data.batch import Layout
from avlink_jax.data.media import audio, decode
from tests.benchmarks.reading import readers

LAYOUT = Layout(5.16, 6.0, 36, 64)
READS = ('audio', 'video')
STAGES = {  # what is timed: name -> (object, attribute)
    'demultiplexing': (decode, 'packets_of'), 'decoding': (decode, 'frames_of'),
    'scaling frames': (decode._Scaler, '__call__'), 'mixing audio': (audio.AudioTrack, 'add'),
    'resampling audio': (audio.AudioTrack, 'waveform'), 'log-mel': (mel_codec, 'log_mel')}


def examples(folder, cache_bytes=0):
  """Examples of a folder's clips, all splits."""
  data = ConfigDict(dict(cache_bytes=cache_bytes, min_seconds=0.5, max_broken=0.5,
                         drop_silent=False))
  source = pipeline.Folder(folder, height=LAYOUT.height, width=LAYOUT.width, max_fps=30.0,
                           part_fps=LAYOUT.fps, sample_rate=LAYOUT.sample_rate)
  return pipeline.make_examples(source, LAYOUT, readers(READS), data)


def batches(of, threads):
  """Batches of one without end."""
  prepare = dict.fromkeys(READS, lambda prompts: np.zeros(len(prompts)))
  return pipeline.train_batches(of, prepare, seed=0, batch_size=1, first_step=0,
                                last_step=10 ** 9, threads=threads)


class Reader:
  """Examples a second of one number of threads; each turn has an iterator of its own, so that none
  reads ahead in another's."""

  def __init__(self, of, threads):
    self._of, self._threads = of, threads

  def __call__(self, seconds):
    """(examples a second of the clock, of a processor)."""
    every = batches(self._of, self._threads)
    next(every)
    began, processor, count = time.monotonic(), time.process_time(), 0
    while time.monotonic() < began + seconds:
      next(every)
      count += 1
    spent = time.monotonic() - began, time.process_time() - processor
    every.close()
    return tuple(count / part for part in spent)


@contextlib.contextmanager
def timed(spent):
  """Adds the processor's seconds of each of STAGES to the Counter `spent`."""
  def wrapped(name, function):
    @functools.wraps(function)
    def call(*args, **kwargs):
      before = time.process_time()
      result = function(*args, **kwargs)
      spent[name] += time.process_time() - before
      return metered(result) if name == 'demultiplexing' else result

    def metered(items):
      while True:
        before = time.process_time()
        item = next(items, items)
        spent[name] += time.process_time() - before
        if item is items:
          return
        yield item

    return call

  with contextlib.ExitStack() as stack:
    for name, (owner, attribute) in STAGES.items():
      stack.enter_context(mock.patch.object(
          owner, attribute, wrapped(name, getattr(owner, attribute))))
    yield


def stages(of, count):
  """{stage: the processor's milliseconds an example}, of `count` examples of different clips."""
  of(0, (0, 0))  # what is made once
  spent, total = collections.Counter(), time.process_time()
  with timed(spent):
    for i in range(count):
      of(i % len(of.source), (0, i))
  spent['adding up to'] = time.process_time() - total
  spent['audio, without decoding'] = spent.pop('mixing audio') + spent.pop('resampling audio')
  return {name: 1e3 * seconds / count for name, seconds in spent.most_common()}


def ffmpeg(folder, count):
  """The processor's milliseconds of decoding a clip, video and audio, by the program ffmpeg."""
  paths = itertools.islice(sorted(pathlib.Path(folder).glob('*.mp4')), count)
  before, done = resource.getrusage(resource.RUSAGE_CHILDREN), 0
  for path in paths:
    subprocess.run(['ffmpeg', '-v', 'error', '-threads', '1', '-i', path, '-f', 'null', '-'],
                   stdin=subprocess.DEVNULL, check=True)
    done += 1
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  return 1e3 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / done


def long_clips(folder, minutes, out):
  """Writes files into `out` that repeat four of the folder's clips for so many minutes."""
  for path in itertools.islice(sorted(pathlib.Path(folder).glob('*.mp4')), 4):
    subprocess.run(['ffmpeg', '-v', 'error', '-stream_loop', '-1', '-i', path, '-c', 'copy', '-t',
                    str(60 * minutes), out / path.name], stdin=subprocess.DEVNULL, check=True)


def turns(contenders, rounds, seconds):
  """Prints the median rates of {name: Reader}, which take turns."""
  rates = collections.defaultdict(list)
  for _ in range(rounds):
    for name, reader in contenders.items():
      rates[name].append(reader(seconds))
  for name, found in rates.items():
    clock, processor = (statistics.median(column) for column in zip(*found, strict=True))
    print(f'{name}: {clock:.2f} examples a second, {processor:.2f} a second of a core', flush=True)
  return rates


def whole(of):
  """Examples that decode clips whole, always, as before there were parts."""
  of._shows_part = lambda index, seed: False
  return of


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('folder')
  parser.add_argument('--threads', default='1,2,4')
  parser.add_argument('--seconds', type=float, default=20)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--minutes', type=float, default=0)
  given = parser.parse_args()
  of = examples(given.folder)
  count = min(len(of.source), 24)
  print(f'{len(of.source)} clips; processor milliseconds an example:')
  for name, milliseconds in stages(of, count).items():
    print(f'  {name:24} {milliseconds:7.1f}')
  if shutil.which('ffmpeg'):
    print(f'  {"ffmpeg, whole clips":24} {ffmpeg(given.folder, count):7.1f}')
  contenders = {f'{threads} threads': Reader(of, int(threads))
                for threads in given.threads.split(',')}
  kept = examples(given.folder, 2 << 30)
  for i in range(len(kept.source)):
    kept(i, (0, i))
  contenders['kept in memory, 2 threads'] = Reader(kept, 2)
  turns(contenders, given.rounds, given.seconds)
  if given.minutes:
    with tempfile.TemporaryDirectory() as folder:
      long_clips(given.folder, given.minutes, pathlib.Path(folder))
      contenders = {'whole': Reader(whole(examples(folder)), 2),
                    'parts': Reader(examples(folder), 2)}
      print(f'files of {given.minutes:g} minutes, 2 threads:')
      rates = turns(contenders, given.rounds, given.seconds)
    ratios = [b[1] / a[1] for a, b in zip(rates['whole'], rates['parts'], strict=True)]
    print(f'parts for whole files: {statistics.median(ratios):.1f} times as many examples a second '
          f'of a core [{min(ratios):.1f}, {max(ratios):.1f}]')


if __name__ == '__main__':
  main()
