"""What is nobody's bug: a user's mistake, a broken piece of media, a notice to leave; and the exit
statuses that a scheduler reads."""

MISTAKE = 2  # told in one line; the same command would fail again
HANG = 70  # no step ended in time (training/resilience/watchdog.py): start again
LOST = HANG  # a process of the run never came, or is gone: start again
PREEMPTED = 75  # everything is saved (training/resilience/preemption.py): start again


class UserError(Exception):
  """A mistake of the person at the keyboard, told in one line: what, where, what to do.

  `main` prints it and exits with status 2; everything else that is raised is a bug
  and keeps its traceback.
  """


class MediaError(Exception):
  """A file that cannot be used as a clip. `reason` is short enough for a report's column.

  While training, such a clip is replaced, counted and listed (`data/pipeline.py`);
  as the user's own input it ends in one line.
  """

  def __init__(self, path, reason: str):
    super().__init__(f'{path}: {reason}')
    self.path = str(path)
    self.reason = reason


class Preempted(Exception):
  """The run was asked to leave and has saved itself; `main` exits with status PREEMPTED."""


class Lost(Exception):
  """Others of the run's processes did not come; `main` exits with status LOST."""


def out_of_memory(error):
  """Whether a JaxRuntimeError says that a device's memory does not hold a program."""
  return 'RESOURCE_EXHAUSTED' in str(error)
