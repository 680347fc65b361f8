"""Steps that changed nothing because a loss or a gradient was not finite: listed, and enough is
enough."""

import json
import pathlib
import sys

from avlink_jax.errors import UserError
from avlink_jax.training.log import rewind


class BadNumbers:
  """Lists such steps with the ids of their examples in `workdir/bad_steps.jsonl`; each process
  those of its own rows, process P > 0 in `bad_steps.P.jsonl`."""

  def __init__(self, workdir, first_step, most, process=0):
    self._path, self._most = pathlib.Path(workdir) / file_name(process), most
    self._first = process == 0
    rewind(self._path, first_step)

  def check(self, step, in_a_row, ids):
    """Takes note of `step`, at which so many steps `in_a_row` had bad numbers (0: it was sound).

    Raises UserError at `most` of them.
    """
    if not in_a_row:
      return
    with self._path.open('a') as file:
      file.write(json.dumps({'step': step, 'in_a_row': in_a_row, 'ids': list(ids)}) + '\n')
    if self._first:
      print(f'step {step}: loss or gradients are not finite; nothing was changed '
            f'({in_a_row} in a row)', file=sys.stderr, flush=True)
    if in_a_row >= self._most:
      raise UserError(f'{in_a_row} steps in a row had losses or gradients that are not finite, up '
                      f'to step {step}: {self._path.name} in the workdir lists their clips; if '
                      'those are as they should be, the learning rate may be too high')


def file_name(process):
  """Of the file in which a process lists them."""
  return 'bad_steps.jsonl' if process == 0 else f'bad_steps.{process}.jsonl'
