"""Record, in a workdir, of config values that its run was allowed to change (`--allow_drift`)."""

import json
import pathlib

from avlink_jax.training.log import rewind

FILE = 'drift.jsonl'  # a row for each change: {'step', 'changed': {key: [old value, new value]}}


def write(workdir, step, accepted):
  """Adds what was accepted when the run went on from `step`, once: {key: [old value, new value]}.
  Rows of later steps are removed, since those are taken again."""
  path, row = pathlib.Path(workdir) / FILE, {'step': step, 'changed': accepted}
  if accepted and row not in rewind(path, step):
    with path.open('a') as file:
      file.write(json.dumps(row) + '\n')
