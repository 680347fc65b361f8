"""A file appears under its name whole or not at all, whatever interrupts its writing."""

import contextlib
import os
import pathlib
import uuid

from avlink_jax.errors import UserError

PARTIAL = '.part'


@contextlib.contextmanager
def replacing(path):
  """A hidden temporary path beside `path` that takes its name if the body succeeds.

  The folder is made if need be. Raises UserError: it cannot be written.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{uuid.uuid4().hex}{PARTIAL}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.touch()
    yield temporary
    with open(temporary, 'rb') as file:
      os.fsync(file.fileno())  # or a power cut could leave the name without the content
    os.replace(temporary, path)
  except OSError as error:
    raise UserError(f'{path}: cannot be written ({error.strerror or error})') from None
  finally:
    with contextlib.suppress(OSError):  # it was renamed, or never made
      temporary.unlink()


def write_bytes(path, content: bytes):
  """Writes a file at once. Raises UserError: it cannot be written."""
  with replacing(path) as temporary:
    temporary.write_bytes(content)


def write_text(path, text: str):
  """Writes a text file, UTF-8, at once. Raises UserError: it cannot be written."""
  write_bytes(path, text.encode())


def sweep(folder):
  """Removes what writers that were killed have left in a folder; for its only writer to call."""
  for path in pathlib.Path(folder).glob(f'.*{PARTIAL}'):
    path.unlink(missing_ok=True)
