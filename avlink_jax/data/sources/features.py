"""Reads external features: vectors in an .npz beside a clip (CLIP, CAVP, ...; Sec. 4.4)."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from avlink_jax.data.media.limits import MAX_BYTES
from avlink_jax.errors import MediaError

# What NumPy, zipfile and zlib raise for damaged files (RuntimeError: encrypted, or compressed in
# a way they do not know).
UNREADABLE = (OSError, EOFError, KeyError, MemoryError, TypeError, ValueError, RuntimeError,
              zipfile.BadZipFile, zlib.error)


def read(clip: Path, width: int, default_rate: float):
  """Feature vectors of `clip` (dog.mp4 -> dog.npz), float32 (N, width), and their rate in Hz.

  The .npz holds `features` (N, width) and, where they are not one a frame of the model's rate,
  `fps`; nothing in it is unpickled. Raises MediaError: missing, unreadable, too large, or of
  another width.
  """
  path = clip.with_suffix('.npz')
  try:
    with np.load(path, allow_pickle=False) as file:
      if sum(member.file_size for member in file.zip.infolist()) > MAX_BYTES:
        raise ValueError(f'more than {MAX_BYTES / 2**30:g} GiB')
      vectors = np.asarray(file['features'], np.float32)
      rate = float(file['fps']) if 'fps' in file else default_rate
  except FileNotFoundError:
    raise MediaError(clip, f'no features beside it ({path.name})') from None
  except UNREADABLE as error:
    reason = str(error) or type(error).__name__
    raise MediaError(clip, f'{path.name} cannot be read ({reason})') from None
  if vectors.ndim != 2 or vectors.shape[1] != width or not len(vectors):
    raise MediaError(clip, f'{path.name} holds features {vectors.shape}, not (N, {width})')
  if not (np.isfinite(vectors).all() and 0 < rate < np.inf):
    raise MediaError(clip, f'{path.name} holds numbers that are not finite, or no fps above 0')
  return vectors, rate
