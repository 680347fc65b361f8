"""python -m avlink_jax.data.prepare --source=SOURCE --output=FOLDER [--codec=…] [--t5=…] ...

Turns a source (a folder of clips, a text file that lists files or gs:// addresses, tfds:NAME,
impacts) into prepared records (records.py), which train quicker and from any file system.

What a shard holds depends on the clips' numbers alone, so several hosts (--host, --hosts) share the
work without communication. The same command, started again after an interruption, continues with
the next clip (shards.py).
"""

import argparse
import json
import os
import sys
from pathlib import Path

from avlink_jax.cli.arguments import Parser
from avlink_jax.data.prepare import embeddings, report, shots
from avlink_jax.data.prepare.job import Job, begin, describe
from avlink_jax.data.prepare.workers import make_shards
from avlink_jax.data.sources import records, shards
from avlink_jax.errors import MISTAKE, UserError
from avlink_jax.samples.folder import make_folder
from avlink_jax.storage.atomic import sweep, write_text
from avlink_jax.storage.console import say

SKIPPED = 'skipped.jsonl'


def parser():
  p = Parser(prog='python -m avlink_jax.data.prepare', description=__doc__,
             formatter_class=argparse.RawDescriptionHelpFormatter)
  p.add_argument('--source', required=True, help='folder, list of files (.txt), tfds:NAME, impacts')
  p.add_argument('--output', required=True, help='folder of the records')
  p.add_argument('--splits', default='', help='with commas between; by default all that there are')
  p.add_argument('--reads', default='audio,video', help='audio, video or audio,video')
  p.add_argument('--limit', type=int, default=0, help='at most so many clips of each split; 0: all')
  p.add_argument('--data_dir', default='', help='where tfds keeps its data sets')
  of = p.add_argument_group('captions')
  of.add_argument('--captions', default=None, help="table (file,caption); '' for none")
  of.add_argument('--template', default=None,
                  help="what captions are made of, such as 'the sound of {label}'")
  of = p.add_argument_group('what a record holds')
  of.add_argument('--seconds', type=float, default=5.16, help='of a window')
  of.add_argument('--fps', type=float, default=6.0)
  of.add_argument('--height', type=int, default=36)
  of.add_argument('--width', type=int, default=64)
  of.add_argument('--high', action='store_true', help='512×288 at 24 frames a second too')
  of.add_argument('--sample_rate', type=int, default=0,
                  help="Hz of sound; 0: the codec's, or 16000 without one")
  of.add_argument('--codec', default='', help='latents for sound: a workdir or file of '
                  'configs/mel_vae.py, bundled, or a published model with a DAC')
  of.add_argument('--video_codec', default='', help='latents for pictures: a workdir or file of '
                  'configs/video_vae.py, or a published model with the VAE of Wan')
  of.add_argument('--t5', default='', help='embed captions by it: a folder, or a name on the hub')
  of.add_argument('--audio_text', default='', metavar='FOLDER',
                  help='embed audio captions by the encoder in it: T5, umT5, or Qwen3, or a '
                  'pipeline with one, such as MOSS-SoundEffect; a folder or hub name')
  of.add_argument('--video_text', default='', metavar='FOLDER',
                  help="embed video captions by the encoder in it, such as Wan's")
  of.add_argument('--max_tokens', type=int, default=0,
                  help='of a caption; 0: 128 of T5, 512 of a pipeline\'s encoder')
  of = p.add_argument_group('where long clips are cut')
  of.add_argument('--shots', type=float, default=shots.THRESHOLD,
                  help='threshold of the shot detector, 0 to 1; 0: cut nowhere')
  of.add_argument('--shortest', type=float, default=1.0, help='seconds of the shortest window')
  p.add_argument('--drop_silent', action='store_true', help='leave out windows of silence, or with '
                 'sound in less than a tenth of them, which are only counted otherwise')
  of = p.add_argument_group('work')
  of.add_argument('--processes', type=int, default=os.cpu_count() or 1)
  of.add_argument('--host', type=int, default=int(os.environ.get('JAX_PROCESS_ID', 0)))
  of.add_argument('--hosts', type=int, default=int(os.environ.get('JAX_NUM_PROCESSES', 1)))
  of.add_argument('--shard_clips', type=int, default=256, help='clips of a shard, at most')
  return p


def finish(job, about):
  """Completes the folder once every host's shards are there: embeddings, counts, summary.

  Returns the reports by shard; None where shards of other hosts are missing yet.
  """
  folder = Path(job.flags.output)
  names = [records.shard_name(split, shard, count) for split, count in about['shards'].items()
           for shard in range(count)]
  missing = [name for name in names if not shards.is_finished(folder, name)]
  if missing:
    say(f'prepare: {len(missing)} of {len(names)} shards are still to come, such as {missing[0]}: '
        'when every host is through, run the same command once more on each')
    return None
  reports = {name: shards.read_report(folder, name) for name in names}
  for table, text in embeddings.tables(about['text']).items():
    captions = embeddings.captions_by_file(
        caption for of_shard in reports.values() for caption in of_shard['captions'])
    text['files'] = len(captions)
    embed(job, folder, table, captions)
    if not all(embeddings.paths(folder, n, len(captions), table)[1].is_file()
               for n in range(len(captions))):
      say('prepare: captions of other hosts are still to be embedded: run the same command once '
          'more')
      return None
  counts = {split: {name: {key: of_shard[key] for key in ('clips', 'records', 'bytes')}
                    for name, of_shard in reports.items() if name.startswith(f'{split}-')}
            for split in about['shards']}
  rows = report.skipped(reports)
  write_text(folder / SKIPPED, ''.join(json.dumps(row) + '\n' for row in rows))
  write_text(folder / records.ABOUT, json.dumps({**about, 'counts': counts}, indent=1))
  return reports


def embed(job, folder, table, captions):
  """Embeds this host's part of the captions for one table (embeddings.tables)."""
  encoder = None
  for n in range(job.flags.host, len(captions), job.flags.hosts):
    if embeddings.paths(folder, n, len(captions), table)[1].is_file():
      continue
    encoder = encoder or job.text_encoder(table)
    encoder.cut.clear()
    embeddings.write(folder, n, len(captions), captions[n], encoder, table)
    cut = f', {len(encoder.cut)} captions of it cut to {encoder.max_tokens} tokens'
    of = table.removeprefix('text').replace('_', ' of ')
    say(f'prepare: captions{of}: {n + 1} of {len(captions)} files are embedded'
        f'{cut if encoder.cut else ""}')


def prepare(argv):
  """Runs the command. Returns the reports by shard, None where other hosts have work left."""
  job = Job(parser().parse_args(argv))
  folder = make_folder(job.flags.output)
  sources = job.sources()
  for note in dict.fromkeys(note for source in sources.values()
                            for note in getattr(source, 'notes', ())):
    say(f'prepare: {note}')
  about = describe(job, sources)
  begin(folder, about)
  for split, source in sources.items():
    if hasattr(source, 'coverage'):
      say(f'prepare: {split}: {source.coverage}')
  if job.flags.hosts == 1:
    sweep(folder)
  make_shards(job, about)
  reports = finish(job, about)
  if reports is not None:
    print(report.summary(reports))
    if report.skipped(reports):
      say(f'prepare: {folder / SKIPPED} lists what was skipped, with reasons')
    if not any(of_shard['records'] for of_shard in reports.values()):
      raise UserError(f'{job.flags.source}: no clip became a record, and {folder} is of no use')
  return reports


def main(argv=None):
  """Runs the command; exit status 0, or 2 for a user's mistake, reported in one line."""
  try:
    prepare(argv)
  except UserError as error:
    print(f'avlink_jax: {error}', file=sys.stderr)
    return MISTAKE
  return 0
