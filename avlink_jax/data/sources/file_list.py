"""A text file that lists clips, one a line: paths, or addresses such as gs://bucket/dog.mp4.

Addresses are read through fsspec and its protocol packages (gcsfs for gs://, s3fs for s3://, …). A
file is copied here before it is decoded, and then removed.
"""

import contextlib
import pathlib
import shutil
import tempfile

import fsspec

from avlink_jax.errors import MediaError, UserError

SCHEME = '://'


class Address(pathlib.PurePosixPath):
  """A remote file, with a path's name parts. `url` is the address as it was written."""

  __slots__ = ('url',)

  def __fspath__(self):
    raise TypeError(f'{self.url} is not a file here')

  def __str__(self):
    return self.url


def is_list(path) -> bool:
  """Tells whether a path names a list of files, not a folder or one clip."""
  return pathlib.Path(path).suffix.lower() == '.txt' and pathlib.Path(path).is_file()


def read(path, extensions, notes) -> list:
  """Paths and Addresses of a list, in its order; '#' begins a comment.

  Relative paths start at the list's folder. Lines that repeat, or name no media file, are left out
  and counted in `notes`. Raises UserError: unreadable, or nothing is left.
  """
  path = pathlib.Path(path)
  try:
    lines = [line.strip() for line in path.read_text(encoding='utf-8-sig').splitlines()]
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'{path}: cannot be read as a list of files ({error})') from None
  lines = [line for line in lines if line and not line.startswith('#')]
  files = {line: address(line) if SCHEME in line else path.parent / line for line in lines}
  other = [line for line, file in files.items() if file.suffix.lower() not in extensions]
  for count, what in ((len(lines) - len(files), 'repeat a line (they count once)'),
                      (len(other), 'name no media file (they are left out): '
                       + ', '.join(other[:3])[:200] + (', …' if len(other) > 3 else ''))):
    if count:
      notes.append(f'{path}: {count} of {len(lines)} lines {what}')
  kept = [file for line, file in files.items() if line not in set(other)]
  if not kept:
    raise UserError(f'{path}: names no media files')
  return kept


def address(url: str) -> Address:
  result = Address(url.split(SCHEME, 1)[1])
  result.url = url
  return result


@contextlib.contextmanager
def local(file):
  """Yields a local Path for a Path (itself) or an Address (a copy, removed at the end).

  Raises MediaError where it cannot be fetched.
  """
  if not isinstance(file, Address):
    yield file
    return
  with tempfile.TemporaryDirectory(prefix='avlink-') as folder:
    path = pathlib.Path(folder) / file.name
    try:
      with fsspec.open(file.url, 'rb') as there, open(path, 'wb') as here:
        shutil.copyfileobj(there, here, 1 << 20)
    except FileNotFoundError:
      raise MediaError(file.url, 'no such file') from None
    except ImportError as error:  # the protocol's package is not installed
      raise UserError(f'{file.url}: {error}') from None
    except Exception as error:  # each store raises its own
      raise MediaError(file.url, f'cannot be fetched ({str(error)[:100]})') from None
    yield path
