"""The two kinds of failure that are nobody's bug: a user's mistake and a broken piece of media."""


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
