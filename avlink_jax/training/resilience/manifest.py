"""Checksums of a folder's files, in the form of sha256sum: what makes damage visible.

`sha256sum -c manifest.sha256` inside the folder checks the same by hand.
"""

import hashlib
import os

from avlink_jax.storage import bucket as storage

NAME = 'manifest.sha256'


def files(folder):
  """Paths of all files below `folder` but the manifest, relative to it, in order."""
  return [name for name in storage.files(folder) if name != NAME]


def digest(path):
  """Hexadecimal SHA-256 of a file."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def write(folder):
  """Vouches for what stands in `folder`, once it is on the disk and not merely on its way; an
  object in a bucket is there once it can be read."""
  folder = storage.absolute(folder)
  lines = []
  for name in files(folder):
    sync(folder / name)
    lines.append(f'{digest(folder / name)}  {name}\n')
  (folder / NAME).write_text(''.join(lines))
  sync(folder / NAME)


def damage(folder):
  """What is wrong with the folder, in words; None where every byte is as it was written."""
  folder = storage.absolute(folder)
  try:
    lines = (folder / NAME).read_bytes().decode('ascii').splitlines(keepends=True)
    wanted = {line[66:-1]: line[:64] for line in lines}
    if ''.join(f'{value}  {name}\n' for name, value in wanted.items()) != ''.join(lines):
      return f'{NAME} is damaged'
    there = files(folder)
    for name in sorted(wanted.keys() | set(there)):
      if name not in there:
        return f'{name} is missing'
      if name not in wanted:
        return f'{name} does not belong there'
      if digest(folder / name) != wanted[name]:
        return f'{name} is not what was written'
  except FileNotFoundError:
    return f'{NAME} is missing'
  except UnicodeDecodeError:
    return f'{NAME} is damaged'
  except OSError as error:
    if storage.is_bucket(folder):
      raise  # out of reach for now, which says nothing of what lies there
    return f'cannot be read ({storage.refusal(error)})'
  return None if wanted else f'{NAME} is empty'


def sync(path):
  """Waits until a file, or a folder's list of names, is on the disk; a bucket has none."""
  if storage.is_bucket(path):
    return
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)
