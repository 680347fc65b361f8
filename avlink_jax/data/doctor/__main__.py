"""python -m avlink_jax.data.doctor FOLDER [--output=report.html] [--jobs=N]

Looks at every media file of a folder (or one file) as training would, before it trains: where sound
and picture begin and end, holes, uneven frames, silence, level, clipping, channels that cancel,
rotation, HDR, interlacing, what cannot be used at all; and says what is done with each. Prints a
line a finding, the worst first. With --output also writes a page with thumbnails and spectrograms,
and report.json beside it, for scripts. Neither JAX nor an accelerator is used.

Exit status: 0 nothing needs a hand, 1 something does, 2 a mistake, 130 interrupted (Ctrl-C). With
--output the same command goes on where it was interrupted.
"""

import argparse
import functools
import json
import os
import pathlib
import sys

from avlink_jax.cli.arguments import Parser
from avlink_jax.data.doctor import report
from avlink_jax.data.doctor.examine import HAND, UNUSABLE
from avlink_jax.data.sources import listing
from avlink_jax.data.sources.listing import AUDIO_EXTENSIONS, EXTENSIONS
from avlink_jax.data.sturdy_pool import SturdyPool
from avlink_jax.errors import INTERRUPTED, MISTAKE, UserError
from avlink_jax.samples.folder import make_folder
from avlink_jax.storage.atomic import write_text
from avlink_jax.storage.console import Progress, say


def files_in(root: pathlib.Path) -> tuple[list, dict]:
  """Media files under a folder, or the one file; and how many others there are, by ending.

  Raises UserError: no such folder, or nothing in it."""
  if root.is_file():
    return [root], {}
  if not root.is_dir():
    raise UserError(f'{root}: no such folder; give a folder of clips or a media file')
  found = listing.under(root, EXTENSIONS | AUDIO_EXTENSIONS, pictures=True)
  return sorted(found.media + found.low), {
      ending: len(paths) for ending, paths in found.by_ending().items()}


def identity(path):
  """What tells whether a file is the one that was examined."""
  status = path.stat()
  return [str(path), status.st_size, status.st_mtime_ns]


def known_rows(journal) -> dict:
  """Rows of an earlier, interrupted look: {identity as JSON: row}."""
  rows = {}
  if journal is not None and journal.exists():
    for line in journal.read_text(encoding='utf-8').splitlines():
      try:
        key, row = json.loads(line)
        rows[json.dumps(key)] = row
      except (ValueError, TypeError):
        continue  # cut off
  return rows


def look(root, files, journal, jobs) -> list:
  """Rows of all files, in order; with a journal each is kept there as soon as it is known."""
  known = known_rows(journal)
  keys = {path: json.dumps(identity(path)) for path in files}
  rows = {path: known[key] for path, key in keys.items() if key in known}
  missing = [path for path in files if path not in rows]
  if rows:
    say(f'{len(rows)} of {len(files)} files are known from before')
  progress = Progress('examined', len(missing), 'files')
  pool = SturdyPool(jobs, *(functools.partial(function, root)
                            for function in (report.examined, report.crashed)))
  try:
    for path, row in zip(missing, pool(missing), strict=True):
      rows[path] = row
      if journal is not None:
        with journal.open('a', encoding='utf-8') as file:
          file.write(json.dumps([json.loads(keys[path]), row]) + '\n')
      progress.add()
  finally:
    pool.close()
  return [rows[path] for path in files]


def run(argv) -> int:
  """Runs the command; exit status. Raises UserError."""
  parser = Parser(
      prog='python -m avlink_jax.data.doctor', description=__doc__.split('\n\n', 1)[1],
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--output', type=pathlib.Path, help='page to write, such as report.html')
  parser.add_argument('--jobs', type=int, default=os.cpu_count(), help='processes')
  options = parser.parse_args(argv)
  if options.jobs < 1:
    raise UserError(f'--jobs={options.jobs}: give at least 1')
  if options.output is not None and options.output.suffix.lower() not in ('.html', '.htm'):
    raise UserError(f'--output={options.output}: give the name of a page, such as report.html')
  files, others = files_in(options.folder)
  journal = None
  if options.output is not None:
    make_folder(options.output.parent)
    journal = options.output.with_suffix('.jsonl')
  root = options.folder if options.folder.is_dir() else options.folder.parent
  rows = look(root, files, journal, options.jobs)
  print(report.table(rows))
  if others:
    print('not media, and not looked at: ' + ', '.join(
        f'{count} {ending}' for ending, count in sorted(others.items())))
  if options.output is not None:
    write_text(options.output, report.page(rows, options.folder))
    write_text(options.output.with_suffix('.json'), json.dumps({
        'folder': str(options.folder), 'not_media': others,
        'files': [{k: v for k, v in row.items() if k != 'pictures'} for row in rows]}, indent=1))
    journal.unlink(missing_ok=True)
    say(f'the page: {options.output}')
  return int(any(row['severity'] in (UNUSABLE, HAND) for row in rows))


def main(argv=None) -> int:
  """Exit status 2 for a user's mistake and 130 for an interruption, each told in one line."""
  try:
    return run(argv)
  except UserError as error:
    print(f'avlink_jax: {error}', file=sys.stderr)
    return MISTAKE
  except KeyboardInterrupt:
    print('avlink_jax: interrupted: with --output the same command goes on', file=sys.stderr)
    return INTERRUPTED


if __name__ == '__main__':
  sys.exit(main())
