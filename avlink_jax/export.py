"""python -m avlink_jax.export WORKDIR [--step=N] [--raw] [--output=FILE]

Writes the weights of a checkpoint, of a run that goes on or has ended, as a file like a finished
run's weights.safetensors: for the next stage (--config.frozen.PART=FILE) or for
--config.train.init_from=FILE.

Without --step, of the newest checkpoint that is intact. They are the moving average, which samples
are made with; --raw writes the parameters themselves. FILE is by default
WORKDIR/weights_N.safetensors (weights_N_raw.safetensors). A mistake ends in one line and exit
status 2.
"""

import argparse
import json
import os
import pathlib
import sys

from avlink_jax.cli.arguments import Parser
from avlink_jax.errors import MISTAKE, UserError
from avlink_jax.storage import bucket, weights
from avlink_jax.training import saved_weights


def export(workdir, step=None, raw=False, output=None):
  """Writes a checkpoint's weights; returns (path, header). Raises UserError."""
  if not bucket.is_bucket(workdir) and not os.path.isdir(workdir):
    raise UserError(f'{workdir}: no such folder: give the workdir of a run')
  if bucket.is_bucket(workdir) and not output:
    raise UserError(f'{workdir}: say with --output=FILE where the weights go on this machine')
  tree, header = saved_weights.read(workdir, step, raw)
  name = f'weights_{header["steps"]}{"_raw" if raw else ""}.safetensors'
  path = pathlib.Path(output or pathlib.Path(workdir) / name)
  weights.save(path, tree, header)
  return path, header


def parse(argv):
  """Parses the command line. Raises UserError."""
  parser = Parser(
      prog='python -m avlink_jax.export', description=__doc__.split('\n\n', 1)[1],
      formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
  parser.add_argument('workdir', metavar='WORKDIR', help='folder of a run, or gs://BUCKET/FOLDER')
  parser.add_argument('--step', type=int, help='of the checkpoint; default: the newest intact one')
  parser.add_argument('--raw', action='store_true', help='no moving average')
  parser.add_argument('--output', metavar='FILE', help='file to write')
  return parser.parse_args(argv)


def main(argv=None) -> int:
  """Runs the command; returns the exit status. Prints a line of JSON: path, task, scale, step."""
  try:
    flags = parse(argv)
    path, header = export(flags.workdir, flags.step, flags.raw, flags.output)
  except UserError as error:
    print(f'avlink_jax: {error}', file=sys.stderr)
    return MISTAKE
  print(json.dumps({'path': str(path), 'task': header['task'], 'scale': header['scale'],
                    'step': header['steps'], 'raw': flags.raw}))
  return 0


if __name__ == '__main__':
  sys.exit(main())
