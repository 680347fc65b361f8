"""python -m avlink_jax.data.prepare --source=SOURCE --output=FOLDER [--codec=…] [--t5=…] ...

Turns a source (a folder of clips, a text file that lists files or gs:// addresses, tfds:NAME,
impacts) into prepared records (records.py), which train quicker and from any file system.

What a shard holds is settled by the clips' numbers alone, so that several hosts (--host, --hosts)
share the work without a word between them. The same command, started again after whatever ended it,
goes on with the next clip (shards.py).
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import math
import multiprocessing
import os
import sys
import threading
from pathlib import Path

from avlink_jax.codecs import t5_text
from avlink_jax.codecs.mel import MelSpec
from avlink_jax.data.batch import Layout
from avlink_jax.data.impacts import Impacts
from avlink_jax.data.prepare import convert, embeddings, report, shots
from avlink_jax.data.sources import records, shards
from avlink_jax.data.sources.folder import SPLITS, Folder
from avlink_jax.data.sources.tfds import TfdsSource
from avlink_jax.errors import MISTAKE, UserError
from avlink_jax.samples.folder import make_folder
from avlink_jax.storage.atomic import sweep, write_text
from avlink_jax.storage.console import Progress, say

SKIPPED = 'skipped.jsonl'


def parser():
  p = argparse.ArgumentParser(prog='python -m avlink_jax.data.prepare', description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
  p.add_argument('--source', required=True, help='folder, list of files (.txt), tfds:NAME, impacts')
  p.add_argument('--output', required=True, help='folder of the records')
  p.add_argument('--splits', default='', help='with commas between; by default all that there are')
  p.add_argument('--reads', default='audio,video', help='audio, video or audio,video')
  p.add_argument('--limit', type=int, default=0, help='at most so many clips of each split; 0: all')
  p.add_argument('--data_dir', default='', help='where tfds keeps its data sets')
  of = p.add_argument_group('captions')
  of.add_argument('--captions', default=None, help="csv (file,caption); '' for none")
  of.add_argument('--template', default=None,
                  help="what captions are made of, such as 'the sound of {label}'")
  of = p.add_argument_group('what a record holds')
  of.add_argument('--seconds', type=float, default=5.16, help='of a window')
  of.add_argument('--fps', type=float, default=6.0)
  of.add_argument('--height', type=int, default=36)
  of.add_argument('--width', type=int, default=64)
  of.add_argument('--high', action='store_true', help='512×288 at 24 frames a second too')
  of.add_argument('--codec', default='',
                  help='latents for sound: a workdir or file of configs/mel_vae.py, or bundled')
  of.add_argument('--t5', default='', help='embed captions by it: a folder, or a name on the hub')
  of.add_argument('--max_tokens', type=int, default=128, help='of a caption, for T5')
  of = p.add_argument_group('where long clips are cut')
  of.add_argument('--shots', type=float, default=shots.THRESHOLD,
                  help='threshold of the shot detector, 0 to 1; 0: cut nowhere')
  of.add_argument('--shortest', type=float, default=1.0, help='seconds of the shortest window')
  of = p.add_argument_group('work')
  of.add_argument('--processes', type=int, default=os.cpu_count() or 1)
  of.add_argument('--host', type=int, default=int(os.environ.get('JAX_PROCESS_ID', 0)))
  of.add_argument('--hosts', type=int, default=int(os.environ.get('JAX_NUM_PROCESSES', 1)))
  of.add_argument('--shard_clips', type=int, default=256, help='clips of a shard, at most')
  return p


@dataclasses.dataclass(frozen=True)
class Job:
  """What is made of what: the command's flags, checked."""
  given: argparse.Namespace

  def __post_init__(self):
    g = self.given
    if not set(self.reads) <= {'audio', 'video'} or not self.reads:
      raise UserError(f'--reads={g.reads}: audio, video or audio,video')
    if not set(self.splits) <= set(SPLITS):
      raise UserError(f'--splits={g.splits}: some of {",".join(SPLITS)}')
    if not 0 <= g.host < g.hosts:
      raise UserError(f'--host={g.host} --hosts={g.hosts}: hosts count from 0')
    if min(g.processes, g.shard_clips, g.height, g.width) < 1 or min(g.seconds, g.fps) <= 0:
      raise UserError('--processes, --shard_clips, --height, --width, --seconds and --fps must be '
                      'above 0')
    if g.codec and 'audio' not in self.reads:
      raise UserError('--codec makes latents of sound, and --reads leaves sound out')
    if self.high:
      convert.check_high(self.high, self.layout)

  @property
  def splits(self):
    return tuple(self.given.splits.split(',')) if self.given.splits else SPLITS

  def sources(self):
    """{split: source}; without --splits, of those that there are."""
    found, lacking = {}, []
    for split in self.splits:
      try:
        found[split] = self.source(split)
      except UserError as error:
        if self.given.splits:
          raise
        lacking.append(error)
    if not found:
      raise lacking[0]
    for error in lacking:
      say(f'prepare: {error}: left out')
    return found

  @property
  def reads(self):
    return tuple(sorted(filter(None, self.given.reads.split(','))))

  @property
  def layout(self):
    g = self.given
    return Layout(g.seconds, g.fps, g.height, g.width, MelSpec())

  @property
  def high(self):
    return convert.High() if self.given.high else None

  def source(self, split):
    """One split of the source, decoded as it is needed. UserError: not there, or no such split."""
    g, layout, large = self.given, self.layout, self.high or self.layout
    size = dict(height=large.height, width=large.width)
    if g.source == 'impacts':
      return Impacts(split, size=g.limit or None, duration=layout.seconds, fps=large.fps,
                     sample_rate=layout.mel.sample_rate, **size)
    needs = dict(sample_rate=layout.mel.sample_rate, max_fps=large.fps,
                 need_video='video' in self.reads, need_audio='audio' in self.reads, **size)
    if g.source.startswith('tfds:'):
      return TfdsSource(g.source.removeprefix('tfds:'), split, g.data_dir or None, **needs)
    return Folder(g.source, split=split, captions=g.captions, template=g.template, **needs)

  def converter(self, split):
    """What makes records of its clips. Beside latents, sound is kept where samples are compared
    with it: in validation and test."""
    g = self.given
    return convert.Converter(
        self.layout, self.reads, convert.load_codec(g.codec, self.layout) if g.codec else None,
        split != 'train', self.high, g.shots, g.shortest)

  def text_encoder(self):
    return t5_text.load(self.given.t5, max_tokens=self.given.max_tokens)


def plan(job, sources) -> dict:
  """What records.json says before there are counts: all that the records depend on."""
  g, layout = job.given, job.layout
  codec = convert.load_codec(g.codec, layout) if g.codec else None
  encoder = job.text_encoder() if g.t5 else None
  clips = {split: min(len(source), g.limit or len(source)) for split, source in sources.items()}
  return {
      'version': records.VERSION, 'source': g.source, 'layout': records.layout_of(layout),
      'audio': 'audio' in job.reads, 'video': 'video' in job.reads,
      'high': dataclasses.asdict(job.high) if job.high else None,
      'codec': codec and {'given': g.codec, 'fingerprint': codec.fingerprint,
                          'rate': layout.mel.rate / codec.model.stride,
                          'channels': codec.model.latent_channels},
      'text': encoder and {'given': g.t5, 'fingerprint': encoder.fingerprint,
                           'max_tokens': g.max_tokens, 'width': encoder.width},
      'shots': g.shots, 'shortest': g.shortest, 'clips': clips,
      'listing': {split: listing(source) for split, source in sources.items()},
      'shards': {split: shard_count(count, g.shard_clips) for split, count in clips.items()}}


def shard_count(clips, most) -> int:
  """Shards of `most` clips; of a small source some more, smaller ones, so that many processes have
  work. Of nothing that a host could differ in."""
  return max(1, min(64, clips // 16), math.ceil(clips / most))


def listing(source) -> str:
  """A hash of which clips a source has, and what is said of them, as far as it is cheap to know."""
  told = ([f'{source.name(i)}\t{source.caption(i)}' for i in range(len(source))]
          if isinstance(source, Folder) else [str(len(source))])
  return hashlib.sha256('\n'.join(told).encode(errors='surrogateescape')).hexdigest()[:16]


def begin(folder, about):
  """Writes records.json, or finds that the one there is of the same job; UserError where it is of
  another one."""
  if not records.is_records(folder):
    write_text(folder / records.ABOUT, json.dumps(about, indent=1))
    return
  there = records.read_about(folder)
  differing = [name for name in about if json.loads(json.dumps(about[name])) != without_files(
      there.get(name))]
  if differing:
    raise UserError(f'{folder} was begun with another {" and ".join(differing)}: give what was '
                    'given then, or another --output')


def without_files(told):
  return {k: v for k, v in told.items() if k != 'files'} if isinstance(told, dict) else told


def make_shard(job, split, shard, count, done) -> str:
  """Makes one shard, from where its journal ends; `done()` is told of every clip."""
  folder, name = Path(job.given.output), records.shard_name(split, shard, count['shards'])
  if shards.is_finished(folder, name):
    return name
  source, converter = opened(tuple(vars(job.given).items()), split)
  journal = shards.Journal(folder, name)
  try:
    for i in range(shard, count['clips'], count['shards']):
      if i in journal.done:
        continue
      if journal.begin(i):
        journal.put(i, *converter(source, i))
      else:
        journal.put(i, [], {'ids': [], 'captions': [], 'seconds': 0.0, 'left': 0.0,
                            'skipped': [(source.name(i), shards.DEADLY)]})
      done()
    journal.finish()
  finally:
    journal.close()
  return name


@functools.lru_cache(maxsize=1)
def opened(flags, split):
  """(source, converter) of a split: made once for many shards in a row."""
  job = Job(argparse.Namespace(**dict(flags)))
  return job.source(split), job.converter(split)


_counter = None  # of clips done, shared by the processes


def _share(counter):
  global _counter
  _counter = counter
  if parent := multiprocessing.parent_process():
    # Whatever ends the command ends its processes too: they hold their shards' journals.
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _work(job, split, shard, count):
  def done():
    with _counter.get_lock():
      _counter.value += 1
  return make_shard(job, split, shard, count, done)


def make_shards(job, about):
  """All shards of this host that are not there yet, in several processes, with progress."""
  g, work = job.given, []
  for split in about['clips']:
    count = {'clips': about['clips'][split], 'shards': about['shards'][split]}
    work += [(split, shard, count) for shard in range(count['shards'])]
  mine = [each for n, each in enumerate(work) if n % g.hosts == g.host]
  left = [each for each in mine if not shards.is_finished(
      g.output, records.shard_name(each[0], each[1], each[2]['shards']))]
  clips = sum(len(range(shard, count['clips'], count['shards'])) for _, shard, count in left)
  if len(left) < len(mine):
    say(f'prepare: {len(mine) - len(left)} of {len(mine)} shards are there already: kept')
  progress = Progress('prepare:', clips)
  context = multiprocessing.get_context('spawn')  # JAX does not survive a fork
  _share(context.Value('q', 0))
  if g.processes == 1:
    def done():
      _counter.value += 1
      progress.at(_counter.value)
    for each in left:
      make_shard(job, *each, done)
    return progress.at(_counter.value, last=True)
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # many processes do not fit on one accelerator
  with concurrent.futures.ProcessPoolExecutor(
      min(g.processes, max(1, len(left))), context, _share, (_counter,)) as pool:
    futures = [pool.submit(_work, job, *each) for each in left]
    try:
      while not all(future.done() for future in futures):
        failed = concurrent.futures.wait(futures, 1.0, concurrent.futures.FIRST_EXCEPTION).done
        for future in failed:
          future.result()
        progress.at(_counter.value)
      for future in futures:
        future.result()
    except concurrent.futures.process.BrokenProcessPool:
      raise UserError('a process was killed, perhaps for want of memory: run the same command '
                      'again, with fewer --processes; what is done is kept') from None
    finally:
      pool.shutdown(cancel_futures=True)
  progress.at(_counter.value, last=True)


def finish(job, about):
  """What can be done once every host's shards are there: captions' embeddings, counts, summary.

  Returns the reports by shard; None where shards of other hosts are missing yet.
  """
  folder = Path(job.given.output)
  names = [records.shard_name(split, shard, count) for split, count in about['shards'].items()
           for shard in range(count)]
  missing = [name for name in names if not shards.is_finished(folder, name)]
  if missing:
    say(f'prepare: {len(missing)} of {len(names)} shards are still to come, such as {missing[0]}: '
        'when every host is through, run the same command once more on each')
    return None
  reports = {name: shards.read_report(folder, name) for name in names}
  if about['text']:
    captions = embeddings.plan(text for made in reports.values() for text in made['captions'])
    about['text']['files'] = len(captions)
    embed(job, folder, captions)
    if not all(embeddings.paths(folder, n, len(captions))[1].is_file()
               for n in range(len(captions))):
      say('prepare: captions of other hosts are still to be embedded: run the same command once '
          'more')
      return None
  counts = {split: {name: {key: made[key] for key in ('clips', 'records', 'bytes')}
                    for name, made in reports.items() if name.startswith(f'{split}-')}
            for split in about['shards']}
  rows = report.skipped(reports)
  write_text(folder / SKIPPED, ''.join(json.dumps(row) + '\n' for row in rows))
  write_text(folder / records.ABOUT, json.dumps({**about, 'counts': counts}, indent=1))
  return reports


def embed(job, folder, captions):
  """This host's part of the captions' embeddings."""
  encoder = None
  for n in range(job.given.host, len(captions), job.given.hosts):
    if not embeddings.paths(folder, n, len(captions))[1].is_file():
      encoder = encoder or job.text_encoder()
      embeddings.write(folder, n, len(captions), captions[n], encoder)
      say(f'prepare: captions: {n + 1} of {len(captions)} files are embedded')


def prepare(argv):
  """The whole command. Returns the reports by shard, None where other hosts have work left."""
  job = Job(parser().parse_args(argv))
  folder = make_folder(job.given.output)
  sources = job.sources()
  for note in dict.fromkeys(note for source in sources.values()
                            for note in getattr(source, 'notes', ())):
    say(f'prepare: {note}')
  about = plan(job, sources)
  begin(folder, about)
  if job.given.hosts == 1:
    sweep(folder)
  make_shards(job, about)
  reports = finish(job, about)
  if reports is not None:
    print(report.summary(reports))
    if report.skipped(reports):
      say(f'prepare: {folder / SKIPPED} lists what was skipped, with reasons')
  return reports


def main(argv=None):
  """Exit status 0, or 2 for a user's mistake, told in one line."""
  try:
    prepare(argv)
  except UserError as error:
    print(f'avlink_jax: {error}', file=sys.stderr)
    return MISTAKE
  return 0


if __name__ == '__main__':
  sys.exit(main())
