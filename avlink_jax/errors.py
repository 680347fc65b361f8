"""Errors that are no bugs: a user's mistake, unusable media, preemption, lost processes; and exit
statuses for schedulers."""

MISTAKE = 2  # a one-line message; the same command would fail again
HANG = 70  # no step ended in time (training/resilience/watchdog.py): restart
LOST = HANG  # a process of the run did not join, or is gone: restart
PREEMPTED = 75  # the state is saved (training/resilience/preemption.py): restart
INTERRUPTED = 130  # Ctrl-C where nothing is trained: the same command goes on


class UserError(Exception):
  """Mistake of the user, with a one-line message: what, where, what to do.

  `main` prints it and exits with status MISTAKE; exceptions that are none of the classes here are
  bugs and keep their traceback.
  """


class NoSplit(UserError):
  """Data source without clips of a split."""


class MediaError(Exception):
  """File that cannot be used as a clip. `reason` is short enough for a report's column.

  In training, such a clip is replaced, counted and listed (`data/pipeline.py`); as a user's input
  it ends the command with a one-line message.
  """

  def __init__(self, path, reason: str):
    super().__init__(f'{path}: {reason}')
    self.path = str(path)
    self.reason = reason


class Preempted(Exception):
  """Notice that a run was asked to stop and has saved its state; `main` exits with PREEMPTED."""


class Lost(Exception):
  """Loss of other processes of the run; `main` exits with LOST."""


def out_of_memory(error):
  """Tells whether a JaxRuntimeError means that a device is out of memory."""
  return 'RESOURCE_EXHAUSTED' in str(error)
