"""What becomes of damaged clips and of wild captions, in numbers: tried, survived, lost.

    python -m tests.benchmarks.damaged --clips=FOLDER [--files=500] [--captions=10000]

Each damaged file is decoded in a process of its own kind, which is given a hard limit of time and
of memory and is replaced where it dies: a crash or a hang, which no exception would tell, is
counted as lost, and so is whatever is raised but a MediaError. Captions go the whole way: through
captions.csv, cleaning and the words encoder into a gallery's page, which is read back.
"""

import argparse
import collections
import csv
import html.parser
import json
import pathlib
import resource
import selectors
import subprocess
import sys
import tempfile
import time

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from avlink_jax.codecs.text import WordEncoder
from avlink_jax.data.media import decode as media
from avlink_jax.data.sources.captions import LONGEST_CAPTION
from avlink_jax.data.sources.folder import Folder
from avlink_jax.errors import MediaError
from avlink_jax.samples.folder import MANIFEST
from avlink_jax.samples.gallery import write_gallery
from tests.damage import caption, damaged, damages

GIVEN_UP, KILLED = 30.0, 120.0  # seconds: the limit that decode is to keep, and the hard one
MEMORY = 6 << 30  # bytes of address space
SUFFIXES = ('.mp4', '.mkv', '.webm', '.mov', '.avi', '.ts', '.flv', '.wav', '.flac',
            '.mp3', '.ogg')


def work():
  """The process that may die: paths on stdin, a line of JSON for each on stdout."""
  resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
  for line in sys.stdin:
    began, outcome = time.monotonic(), {}
    for name, options in (('picture', {'height': 36, 'width': 64, 'max_fps': 30.0}),
                          ('sound', {'need_video': False})):
      try:
        clip = media.decode(line.rstrip('\n'), decode_seconds=GIVEN_UP, **options)
        good = np.isfinite(clip.audio).all() and len(clip.frames) == len(clip.frame_times)
        outcome[name] = 'a clip' if good else 'LOST: not a clip'
      except MediaError as error:
        outcome[name] = error.reason
      except Exception as error:  # which is what this looks for
        outcome[name] = f'LOST: {type(error).__name__}: {error}'
    outcome['seconds'] = time.monotonic() - began
    outcome['mib'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps(outcome), flush=True)


class Worker:
  """That process, started anew where it died."""

  def __init__(self):
    self._process = None

  def __call__(self, path):
    if self._process is None:
      self._process = subprocess.Popen(
          [sys.executable, '-m', 'tests.benchmarks.damaged', '--worker'],
          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    self._process.stdin.write(f'{path}\n')
    self._process.stdin.flush()
    with selectors.DefaultSelector() as selector:
      selector.register(self._process.stdout, selectors.EVENT_READ)
      line = self._process.stdout.readline() if selector.select(KILLED) else None
    if line:
      return json.loads(line)
    self.close()
    died = 'LOST: a crash' if line == '' else f'LOST: a hang of {KILLED:g} s'
    return {'picture': died, 'sound': died, 'seconds': KILLED, 'mib': 0}

  def close(self):
    if self._process is not None:
      self._process.kill()
      self._process.wait()
      self._process = None


def files(folder, count, first_seed):
  """Decodes `count` damaged files and prints what came of it. Returns how many were lost."""
  sources = [path for path in sorted(pathlib.Path(folder).iterdir())
             if path.suffix.lower() in SUFFIXES]
  contents = [path.read_bytes() for path in sources]
  reasons, slowest, largest, lost, worker = collections.Counter(), 0.0, 0, [], Worker()
  with tempfile.TemporaryDirectory() as scratch:
    @seed(first_seed)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(sources) - 1), damages())
    def attempt(which, ways):
      nonlocal slowest, largest
      path = pathlib.Path(scratch) / f'clip{sources[which].suffix}'
      path.write_bytes(damaged(contents[which], contents, ways))
      outcome = worker(path)
      slowest, largest = max(slowest, outcome['seconds']), max(largest, outcome['mib'])
      reasons[outcome['picture'].split(':')[0].split(' of ')[0]] += 1
      if any(str(value).startswith('LOST') for value in outcome.values()):
        lost.append((sources[which].name, ways, outcome))
        print(f'lost: {lost[-1]}', flush=True)

    attempt()
  worker.close()
  tried = sum(reasons.values())
  print(f'{tried} damaged files tried, {tried - len(lost)} survived, {len(lost)} lost; the slowest '
        f'{slowest:.1f} s, the largest process {largest:,} MiB')
  print('  ' + ', '.join(f'{reason}: {n}' for reason, n in reasons.most_common()))
  return len(lost)


class Page(html.parser.HTMLParser):
  """The text of each clip's heading and prompt in a page, and how often each tag stands in it."""

  def __init__(self):
    super().__init__()
    self.tags, self.prompts, self._inside = collections.Counter(), [], False

  def handle_starttag(self, tag, attrs):
    self.tags[tag] += 1
    self._inside = tag == 'p' and dict(attrs).get('class') == 'prompt'
    self.prompts += [''] if self._inside else []

  def handle_endtag(self, tag):
    self._inside = False

  def handle_data(self, data):
    if self._inside:
      self.prompts[-1] += data


def captions(count, seed):
  """Takes `count` captions all the way and prints what came of it. Returns how many were lost."""
  rng, began = np.random.default_rng(seed), time.monotonic()
  said = [caption(rng) for _ in range(count)]
  said[:2] = ['<b>\u0430\u0301 ' * (1 << 20), '\u0301\u0316' * (4 << 20)]  # megabytes, one of marks
  with tempfile.TemporaryDirectory() as scratch:
    folder, out = pathlib.Path(scratch, 'clips'), pathlib.Path(scratch, 'out')
    folder.mkdir()
    out.mkdir()
    for i in range(count):
      (folder / f'{i:06d}.mp4').touch()
    with open(folder / 'captions.csv', 'w', encoding='utf-8', newline='') as file:
      csv.writer(file).writerows(
          [('file', 'caption'), *((f'{i:06d}.mp4', text) for i, text in enumerate(said))])
    read = Folder(folder, height=8, width=8, sample_rate=16000)
    clean = [read.caption(i) for i in range(len(read))]
    encoder = WordEncoder()
    tokens = np.concatenate([encoder.prepare(clean[i:i + 64]) for i in range(0, count, 64)])
    (out / MANIFEST).write_text(''.join(
        json.dumps({'id': f'{i:06d}', 'files': {}, 'prompt': text}) + '\n'
        for i, text in enumerate(clean)))
    page = Page()
    page.feed(write_gallery(out).read_text(encoding='utf-8'))
  shown = iter(page.prompts)
  lost = sum(1 for text in clean if text and next(shown, None) != text)
  lost += sum(len(text) > LONGEST_CAPTION for text in clean) + (tokens.shape[0] != count)
  lost += abs(page.tags['article'] - count) + sum(
      page.tags[tag] for tag in ('img', 'svg', 'b')) + (page.tags['script'] != 1)
  print(f'{count} captions tried, {count - lost} survived, {lost} lost; '
        f'{time.monotonic() - began:.1f} s')
  return lost


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--clips', help='a folder of whole media files')
  parser.add_argument('--files', type=int, default=500)
  parser.add_argument('--captions', type=int, default=10_000)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--worker', action='store_true', help=argparse.SUPPRESS)
  flags = parser.parse_args()
  if flags.worker:
    work()
    return 0
  lost = captions(flags.captions, flags.seed) if flags.captions else 0
  if flags.clips and flags.files:
    lost += files(flags.clips, flags.files, flags.seed)
  return min(lost, 1)


if __name__ == '__main__':
  sys.exit(main())
