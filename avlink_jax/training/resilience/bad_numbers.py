"""Steps that were skipped because a loss or a gradient was not finite: they are listed, and too
many in a row end the run."""

import json
import pathlib
import sys

from avlink_jax.errors import UserError
from avlink_jax.training.log import rewind


class BadNumbers:
  """List of such steps with the ids of their examples, in `workdir/bad_steps.jsonl`; process P > 0
  lists its own examples in `bad_steps.P.jsonl`."""

  def __init__(self, workdir, first_step, limit, process=0):
    self._path, self._limit = pathlib.Path(workdir) / file_name(process), limit
    self._first = process == 0
    rewind(self._path, first_step)

  def check(self, step, in_a_row, ids):
    """Lists `step` if it was skipped; `in_a_row`: number of skipped steps up to it, or 0.

    Raises UserError when `limit` is reached.
    """
    if not in_a_row:
      return
    with self._path.open('a') as file:
      file.write(json.dumps({'step': step, 'in_a_row': in_a_row, 'ids': list(ids)}) + '\n')
    if self._first:
      print(f'step {step}: loss or gradients are not finite; nothing was changed '
            f'({in_a_row} in a row)', file=sys.stderr, flush=True)
    if in_a_row >= self._limit:
      raise UserError(f'{in_a_row} steps in a row had losses or gradients that are not finite, up '
                      f'to step {step}: {self._path.name} in the workdir lists their clips; if '
                      'those are as they should be, the learning rate may be too high')


def file_name(process):
  """File name of a process's list."""
  return 'bad_steps.jsonl' if process == 0 else f'bad_steps.{process}.jsonl'
