"""Clips on disk become rows of numbers, a network at a time; what was done is kept.

What was embedded stands in `OUTPUT.embedded/` until the evaluation is done: a file a clip and
network, known again by the clip's path, size and time of change, the network's weights and how much
of the clip was taken. So an interrupted evaluation goes on where it was.
"""

import io
import pathlib
import shutil
import zipfile

import jax
import numpy as np

from avlink_jax.data.clip import resample_frames
from avlink_jax.data.media import decode as media
from avlink_jax.errors import MediaError
from avlink_jax.metrics.networks import loading
from avlink_jax.storage import digest
from avlink_jax.storage.atomic import write_bytes

FORMAT = 1  # to be raised when the same clip begins to give other rows
BATCH = 8  # rows at a time: always as many, so that it is compiled once


class Embedder:
  """A network with its weights.

  Raises (at once): UserError where its weights are missing or not the public ones.
  """

  def __init__(self, network, folder=None):
    self.network = network
    self.path = loading.find(network, folder)
    self.checksum = loading.checksum(self.path)
    self.weights = jax.device_put(loading.load(network, self.path))
    self._forward = jax.jit(network.forward)

  def __call__(self, rows) -> dict:
    """(R, ...) from `network.prepare` -> {'embedding': float32 (R, D), 'logits': (R, K)}."""
    found = []
    size = BATCH if len(rows) > 1 else 1
    for first in range(0, len(rows), size):
      batch = rows[first:first + size]
      padded = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), 0)])
      given = self._forward(self.weights, padded)
      found.append({name: np.asarray(array)[:len(batch)] for name, array in given.items()})
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

  def clip(self, path, seconds) -> dict:
    """The rows of a clip's first `seconds`.

    Raises:
      MediaError: it cannot be read, has not what the network looks at, is too short for it.
    """
    network = self.network
    if seconds < network.shortest - 1e-6:
      raise MediaError(path, f'shorter than {network.name} needs ({network.shortest:.2f} s)')
    given = read_frames(path, seconds, network.rate) if network.sees else read_audio(
        path, seconds, network.rate)
    return self(network.prepare(given))


def read_audio(path, seconds, rate):
  """float32 (S,) of a clip's first seconds, mono. Raises MediaError: it has none."""
  return media.decode(path, sample_rate=rate, need_video=False, duration=seconds).audio


def read_frames(path, seconds, rate):
  """uint8 (N, H, W, 3): what shows at k / rate seconds, whatever the clip's own frame rate is, in
  its own size. Raises MediaError: it has no picture."""
  clip = media.decode(path, max_fps=rate, need_audio=False, duration=seconds)
  count = max(1, int(min(seconds, clip.duration) * rate + 1e-6))
  return resample_frames(clip, 0.0, count, rate)[0]


class EmbeddingStore:
  """What was embedded so far, beside an output; without one nothing is kept."""

  def __init__(self, output):
    self._folder = None if output is None else pathlib.Path(f'{output}.embedded')

  def get(self, embedder, path, seconds) -> dict:
    """`embedder.clip(path, seconds)`, or what that gave before the evaluation was interrupted."""
    if self._folder is None:
      return embedder.clip(path, seconds)
    file = self._folder / f'{_key(embedder, path, seconds)}.npz'
    try:
      with np.load(file, allow_pickle=False) as known:
        return {name: known[name] for name in known.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError):
      pass  # there is none, or it was torn
    found, content = embedder.clip(path, seconds), io.BytesIO()
    np.savez(content, **found)
    write_bytes(file, content.getvalue())
    return found

  def done(self):
    """The output holds all that is told of them."""
    if self._folder is not None and self._folder.is_dir():
      shutil.rmtree(self._folder)


def _key(embedder, path, seconds):
  status = pathlib.Path(path).stat()
  identity = [FORMAT, embedder.network.name, embedder.checksum, str(path), status.st_size,
          status.st_mtime_ns, round(seconds, 6)]
  return digest.key(identity)
