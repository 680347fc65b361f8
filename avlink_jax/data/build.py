"""python -m avlink_jax.data.build NAME --manual_dir=FOLDER --data_dir=FOLDER [...]

Builds a public data set (data/datasets/) from the official lists and media in --manual_dir.
A mistake of the user ends in one line and exit status 2. Nothing is downloaded.
"""

import argparse
import contextlib
import importlib
import inspect
import os
import pathlib
import sys

from avlink_jax.cli.arguments import Parser
from avlink_jax.errors import MISTAKE, UserError
from avlink_jax.storage.console import say

DATASETS = {'vggsound': 'Vggsound', 'audioset_strong': 'AudiosetStrong', 'autorecap': 'Autorecap',
            'fma': 'Fma', 'magnatagatune': 'Magnatagatune', 'mtg_jamendo': 'MtgJamendo',
            'song_describer': 'SongDescriber', 'movie_gen_bench': 'MovieGenBench'}


def dataset(name: str):
  """Class of a data set's builder. Raises UserError: unknown name."""
  if name not in DATASETS:
    raise UserError(f'no data set is called {name!r}: one of {", ".join(DATASETS)}')
  return getattr(importlib.import_module(f'avlink_jax.data.datasets.{name}'), DATASETS[name])


def build(name, manual_dir, data_dir, *, config=None, options, overwrite=False):
  """Builds a data set and returns its builder, whose `report` lists what was left out.

  Raises UserError: a mistake of the user's, or a full disk.
  """
  import tensorflow_datasets as tfds
  cls = dataset(name)
  if config is not None and config not in cls.builder_configs:
    raise UserError(f'{name} has no config {config!r}: '
                    + (f'one of {", ".join(cls.builder_configs)}' if cls.builder_configs
                       else 'leave --config out'))
  if '{label}' not in (options.caption or '{label}'):
    raise UserError(f'--caption={options.caption!r} must have {{label}} in it')
  manual_dir = pathlib.Path(os.path.expanduser(manual_dir))
  if not manual_dir.is_dir():
    raise UserError(f'{manual_dir}: no such folder; give --manual_dir the folder with the lists '
                    f'and media of {name}')
  if '://' in str(data_dir):
    raise UserError(f'{data_dir}: build on a disk, then copy the folder to the bucket')
  try:
    builder = cls(config=config, data_dir=data_dir, options=options)
    if builder.data_path.exists() and not overwrite:
      raise UserError(f'{builder.data_path}: there is a data set already; build it anew with '
                      '--overwrite')
    # tfds builds under such a name; another build may be writing there, so it is only reported.
    for unfinished in builder.data_path.parent.glob(f'incomplete.*_{builder.version}'):
      say(f'{unfinished}: a build that runs, or was killed; if none runs, remove it')
    mode = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS if overwrite else None
    with contextlib.redirect_stdout(sys.stderr):  # tfds prints as it goes
      builder.download_and_prepare(download_config=tfds.download.DownloadConfig(
        manual_dir=manual_dir, **({'download_mode': mode} if mode else {})))
  except OSError as error:
    raise UserError(f'{data_dir}: cannot be written ({error.strerror or error})') from None
  return builder


def parse(argv):
  """Parses the flags. Raises UserError."""
  parser = Parser(
    prog='python -m avlink_jax.data.build', description=__doc__.splitlines()[2],
    formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_expected_files())
  parser.add_argument('name', metavar='NAME', help=', '.join(DATASETS))
  parser.add_argument('--manual_dir', required=True, help='folder with its lists and media')
  parser.add_argument('--data_dir', required=True, help='folder of all built data sets')
  parser.add_argument('--config', help='of the data set: fma small, mtg_jamendo split-0, …')
  parser.add_argument('--caption', default='', help='template where there are labels alone, '
                      "such as 'the sound of {label}'")
  parser.add_argument('--min_seconds', type=float, default=1.0, help='shorter clips are left out')
  parser.add_argument('--nocheck', action='store_true', help='look at headers only: faster, but '
                      'silent and damaged files are not found')
  parser.add_argument('--processes', type=int, default=os.cpu_count(), help='that check files')
  parser.add_argument('--overwrite', action='store_true', help='remove what is there first')
  return parser.parse_args(argv)


def _expected_files():
  """Files that each data set needs in manual_dir, for --help."""
  if not {'-h', '--help'} & set(sys.argv):
    return ''
  return '\n'.join(f'{name}: {inspect.cleandoc(dataset(name).MANUAL_DOWNLOAD_INSTRUCTIONS)}\n'
                   for name in DATASETS)


def main(argv=None) -> int:
  """Runs the command; exit status 0, or 2 for a user's mistake, reported in one line."""
  try:
    flags = parse(argv)
    from avlink_jax.data.datasets.builder import Options
    builder = build(flags.name, flags.manual_dir, flags.data_dir, config=flags.config,
                    overwrite=flags.overwrite,
                    options=Options(flags.caption, flags.min_seconds, not flags.nocheck,
                                    max(flags.processes, 0)))
  except UserError as error:
    print(f'avlink_jax: {error}', file=sys.stderr)
    return MISTAKE
  print(f'{builder.info.full_name}: {builder.report}')
  print(f'{builder.data_path}: report.json says why, left_out.csv which')
  return 0


if __name__ == '__main__':
  sys.exit(main())
