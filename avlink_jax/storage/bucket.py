"""A workdir that is a bucket (gs://bucket/run): what an object store does not do, done here.

For who cannot mount one, which takes FUSE and its rights: a notebook, a plain container. The launch
scripts mount their bucket, and none of this is used.

An object appears whole when it is written; it cannot be appended to, renamed or locked. So a run
writes as ever, into a folder of this machine, and a Mirror sends up what changed there: rows of
metrics.jsonl and TensorBoard's events at least once a minute and with each checkpoint, samples
when they are made. A kill loses at most what came after the last sending. Checkpoints alone go
straight to the bucket, as each process writes its share of them (training/checkpoint.py).

Paths are etils.epath's, which Orbax takes too; it reaches gs:// through fsspec and gcsfs, and
needs no TensorFlow. A folder of a disk is its own mirror: nothing is copied.
"""

import contextlib
import pathlib
import posixpath
import shutil
import tempfile
import time

import fsspec
from etils import epath

from avlink_jax.errors import UserError
from avlink_jax.storage.atomic import PARTIAL

BUCKET = 'gs://'
EVERY = 60.0  # seconds between sendings while nothing else asks for one
HERE_ALONE = ('lock', 'hang*.txt', f'.*{PARTIAL}')  # what makes sense on this machine alone
STORES = ('aiohttp', 'gcsfs', 'google', 'requests')  # packages whose errors are a store's

# Listings are asked for anew: Orbax and other hosts write there too, past gcsfs's memory of them.
fsspec.config.conf.setdefault('gcs', {}).setdefault('use_listings_cache', False)


def is_bucket(path) -> bool:
  """Whether a path is an address in a bucket."""
  return str(path).startswith(BUCKET)


def absolute(path) -> epath.Path:
  """An absolute folder of a disk, or an address in a bucket."""
  return epath.Path(path if is_bucket(path) else pathlib.Path(path).absolute())


def files(folder):
  """Names of all files below `folder`, relative to it, in order; [] where there is none.

  Of a bucket this is the way to ask whether something is there: `exists` and `is_dir` of fsspec
  take one that is out of reach for one that holds nothing.
  """
  if is_bucket(folder):
    system, root = fsspec.core.url_to_fs(str(folder))
    found = (path.removeprefix(f'{root}/') for path in system.find(root) if path != root)
    return sorted(name for name in found if not name.endswith('/'))  # nor a console's "folders"
  return sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob('*')
                if path.is_file())


def entries(folder):
  """Names of what lies directly in a folder, in order; [] where there is none."""
  if is_bucket(folder):
    return sorted({name.split('/')[0] for name in files(folder)})
  folder = pathlib.Path(folder)
  return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def remove(folder, missing_ok=False):
  """Removes a folder and all below it; with `missing_ok` as far as it goes."""
  if not is_bucket(folder):
    shutil.rmtree(folder, ignore_errors=missing_ok)
  elif files(folder) or not missing_ok:
    folder.rmtree()


def rename(folder, target):
  """Gives a folder another name; in a bucket object by object, which takes a while."""
  if not is_bucket(folder):
    folder.rename(target)
    return
  system, _ = fsspec.core.url_to_fs(str(folder))
  for name in files(folder):
    system.cp_file(str(folder / name), str(target / name))
  remove(folder)


def refusal(error):
  """What a disk or a store said no to, in words, if that is what `error` is about; else None."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  if isinstance(error, OSError) or type(error).__module__.split('.')[0] in STORES:
    return ' '.join(str(error).split())[:200] or type(error).__name__
  return None


@contextlib.contextmanager
def reached(path):
  """Raises UserError where `path` is in a bucket that cannot be reached, read or written to."""
  if not is_bucket(path):
    yield
    return
  try:
    yield
  except ImportError as error:
    raise UserError(f'{path}: a bucket is reached through gcsfs, which is not installed ({error}): '
                    'pip install gcsfs, or mount the bucket and give its folder') from None
  except Exception as error:
    if not (reason := refusal(error)):
      raise
    raise UserError(f'{path}: cannot be reached or written to ({reason}): see to the name, the '
                    'network and the credentials (gcloud auth application-default login)') from None


def copy(source, target):
  """Copies one file between a disk and a bucket."""
  with epath.Path(source).open('rb') as there, epath.Path(target).open('wb') as here:
    shutil.copyfileobj(there, here, 1 << 20)


class Mirror:
  """`here`: the folder in which to work on `there`, a folder or an address in a bucket.

  Of a bucket it begins empty: `pull` fetches and `push` sends. For use in a `with`, which removes
  it at the end, having sent what was not sent yet. Raises UserError: the bucket is out of reach.
  """

  def __init__(self, there):
    self.there, self._temporary = there, None
    if is_bucket(there):
      self._temporary = tempfile.TemporaryDirectory(prefix='avlink-')
    self.here = pathlib.Path(self._temporary.name if self._temporary else there)
    self._sent, self._when = {}, time.monotonic()

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    if not self._temporary:
      return
    try:
      if kind is None:
        self.push()
      elif issubclass(kind, Exception):  # also what a failed run has to tell
        with contextlib.suppress(UserError):
          self.push()
    finally:
      self._temporary.cleanup()

  def pull(self, *wanted):
    """Fetches files and folders of these names ('': everything), as far as they are there and not
    yet here."""
    if not self._temporary:
      return
    with reached(self.there):
      root = epath.Path(self.there)
      for name in wanted:
        for file in [posixpath.join(name, file) for file in files(root / name)] or [name]:
          path = self.here / file
          if path.exists():
            continue
          path.parent.mkdir(parents=True, exist_ok=True)
          with contextlib.suppress(FileNotFoundError):
            copy(root / file, path)
            self._sent[file] = stamp(path)

  def push(self, every=0.0):
    """Sends what is new here and removes there what was removed here, unless the last sending
    was less than `every` seconds ago."""
    if not self._temporary or time.monotonic() - self._when < every:
      return
    self._when = time.monotonic()
    with reached(self.there):
      here = {name: stamp(self.here / name) for name in files(self.here)
              if not any(pathlib.PurePath(name).match(alone) for alone in HERE_ALONE)}
      for name, seen in here.items():
        if self._sent.get(name) != seen:
          copy(self.here / name, epath.Path(self.there) / name)
      for name in self._sent.keys() - here.keys():
        (epath.Path(self.there) / name).unlink(missing_ok=True)
      self._sent = here


def stamp(path):
  """By which a changed file is known."""
  stat = path.stat()
  return stat.st_size, stat.st_mtime_ns, stat.st_ino
