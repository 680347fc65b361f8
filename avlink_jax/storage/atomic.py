"""Atomic writes: a file appears under its name complete or not at all."""

import contextlib
import os
import pathlib
import uuid

from avlink_jax.errors import UserError

PARTIAL = '.part'


@contextlib.contextmanager
def replacing(path):
  """Context with a hidden temporary path, which is renamed to `path` if the body succeeds.

  The folder is created if need be. Raises UserError: it cannot be written.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{uuid.uuid4().hex}{PARTIAL}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.touch()
    yield temporary
    with open(temporary, 'rb') as file:
      os.fsync(file.fileno())  # a power cut must not leave the name without the content
    os.replace(temporary, path)
  except OSError as error:
    raise UserError(f'{path}: cannot be written ({error.strerror or error})') from None
  finally:
    with contextlib.suppress(OSError):  # it was renamed or never created
      temporary.unlink()


def write_bytes(path, content: bytes):
  """Writes a file atomically. Raises UserError: it cannot be written."""
  with replacing(path) as temporary:
    temporary.write_bytes(content)


def write_text(path, text: str):
  """Writes a text file, UTF-8, atomically. Raises UserError: it cannot be written."""
  write_bytes(path, text.encode())


def sweep(folder):
  """Removes temporary files of killed writers; only a folder's single writer may call it."""
  for path in pathlib.Path(folder).glob(f'.*{PARTIAL}'):
    path.unlink(missing_ok=True)
