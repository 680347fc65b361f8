"""Figures of a run in Weights & Biases, beside those in its workdir (`log.wandb`).

It is optional (the extra [wandb]) and never stops a run: whatever goes wrong with it is said once,
and nothing more is sent.
"""

import pathlib
import threading
import uuid

from avlink_jax.storage.atomic import write_text
from avlink_jax.storage.console import say

FINISH_SECONDS = 60.0  # for the last figures to be sent


class WandbRun:
  """A run in `project`, which goes on where the workdir's run does: `workdir/wandb.id` names it."""

  def __init__(self, project, workdir, config):
    self._run = None
    try:
      import wandb
      self._run = wandb.init(project=project, id=identity(workdir), resume='allow',
                             dir=str(workdir), config=config)
    except Exception as error:  # of whatever kind: it must not stop the run
      self._end(error)

  def log(self, step, figures):
    """Sends the figures {name: value} of a step."""
    if self._run is None:
      return
    try:
      self._run.log(figures, step=step)
    except Exception as error:  # as above
      self._end(error)

  def close(self):
    """Sends what is left, and waits for it for a while."""
    if self._run is not None:
      thread = threading.Thread(target=self._finish, daemon=True)
      thread.start()
      thread.join(FINISH_SECONDS)

  def _finish(self):
    try:
      self._run.finish()
    except Exception as error:  # as above
      self._end(error)

  def _end(self, error):
    self._run = None
    what = 'it is not installed: pip install wandb' if isinstance(error, ImportError) else (
        ' '.join(f'{type(error).__name__}: {error}'.split())[:200])
    say(f'log.wandb: nothing is sent to Weights & Biases ({what}); the run goes on without')


def identity(workdir):
  """Name of the workdir's run there, made once."""
  path = pathlib.Path(workdir) / 'wandb.id'
  if not path.exists():
    write_text(path, uuid.uuid4().hex[:12])
  return path.read_text()


def start(config, workdir):
  """WandbRun of a config, or None without `log.wandb`."""
  project = config.log.wandb
  return WandbRun(project, workdir, config.to_dict()) if project else None
