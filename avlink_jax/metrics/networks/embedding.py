"""Embeds clips on disk with a network, and stores the rows until the evaluation is done.

`OUTPUT.embedded/` holds a file for each clip and network, recognised by the clip's path, size and
modification time, the network's weights and the seconds used. So an interrupted evaluation
continues where it was.
"""

import io
import pathlib
import shutil
import zipfile

import jax
import numpy as np

from avlink_jax.data.clip import resample_frames
from avlink_jax.data.media.decode import decode
from avlink_jax.errors import MediaError
from avlink_jax.metrics.networks import loading, windowed_sinc
from avlink_jax.storage import digest
from avlink_jax.storage.atomic import write_bytes

FORMAT = 2  # to be raised when the same clip begins to give other rows
MARGIN = 0.1  # seconds that the filter sees beyond a cut
JUST_BEFORE = 1e-4  # seconds; a frame that comes at the middle belongs to the next period
BATCH = 8  # rows at a time, always as many, so that it is compiled once


def exact(forward):
  """`forward` with products in float32: accelerators take bfloat16 or TF32 by default, and public
  figures are of float32."""
  def in_float32(*arguments):
    with jax.default_matmul_precision('highest'):
      return forward(*arguments)
  return in_float32


class Embedder:
  """A network with its weights. Raises UserError where they are missing or not the public ones.
  """

  def __init__(self, network, folder=None):
    self.network = network
    self.path = loading.find(network, folder)
    self.checksum = loading.checksum(self.path)
    self.weights = jax.device_put(loading.load(network, self.path))
    self._forward = jax.jit(exact(network.forward))

  def __call__(self, rows) -> dict:
    """Embeds `network.prepare`'s rows (R, ...): {'embedding': float32 (R, D), 'logits': (R, K)}."""
    outputs = []
    size = BATCH if len(rows) > 1 else 1
    for first in range(0, len(rows), size):
      batch = rows[first:first + size]
      padded = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), 0)])
      output = self._forward(self.weights, padded)
      outputs.append({name: np.asarray(array)[:len(batch)] for name, array in output.items()})
    return {name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}

  def clip(self, path, seconds, view=None) -> dict:
    """Rows of a clip's first `seconds`; `view` as in `read_frames`.

    Raises:
      MediaError: it cannot be read, lacks the network's modality, or is too short for it.
    """
    network = self.network
    inputs = read_frames(path, seconds, network.rate, view, network.middle) if network.sees else (
        read_audio(path, seconds, network.rate, network.windowed, network.centred))
    if len(inputs) < round(network.shortest * network.rate):
      raise MediaError(path, f'shorter than {network.name} needs ({network.shortest:.2f} s)')
    return self(network.prepare(inputs))


def read_audio(path, seconds, rate, windowed=False, centred=False):
  """Audio float32 (S,), mono, of a clip's first seconds; `windowed`: resampled by windowed_sinc.py,
  and, `centred`, after the mean of all of the file's audio is removed.

  Raises MediaError: it has none."""
  clip = decode(path, sample_rate=rate, need_video=False, duration=seconds)
  if not windowed:
    return clip.audio
  own = decode(path, sample_rate=clip.source_rate, need_video=False).audio
  mean = own.mean() if centred and len(own) else np.float32(0)
  kept = own[:round((seconds + MARGIN) * clip.source_rate)]
  return windowed_sinc.resample(kept - mean, clip.source_rate, rate)[:len(clip.audio)]


def read_frames(path, seconds, rate, view=None, middle=False):
  """Frames uint8 (N, H, W, 3) of a clip at `rate` a second, in its own size, whatever its own frame
  rate is; with a `view` (evaluation/common.View) in that size, and held where its rate is lower.

  They are those on at k / rate seconds, or, `middle`, just before the middle of each period, as
  FFmpeg's filter `fps` takes them. Raises MediaError: it has no video.
  """
  height, width, fps = view or (None, None, 0.0)
  shown = min(fps, rate) if fps else rate  # frames a second
  late = 0.5 / rate - JUST_BEFORE if middle else 0.0
  start = late if shown == rate else 0.0
  clip = decode(path, height=height, width=width, max_fps=shown, need_audio=False, start=start,
                duration=seconds - start)
  count = max(1, int(min(seconds, start + clip.duration) * rate + 1e-6))
  held = ((np.arange(count) / rate + late - start) * shown + 1e-6).astype(int)
  return resample_frames(clip, 0.0, held[-1] + 1, shown)[0][held]


class EmbeddingStore:
  """Embedded rows, stored beside an output; without one none are stored."""

  def __init__(self, output):
    self._folder = None if output is None else pathlib.Path(f'{output}.embedded')

  def get(self, embedder, path, seconds, view=None) -> dict:
    """Result of `embedder.clip` of the same arguments, stored or computed."""
    if self._folder is None:
      return embedder.clip(path, seconds, view)
    file = self._folder / f'{_key(embedder, path, seconds, view)}.npz'
    try:
      with np.load(file, allow_pickle=False) as known:
        return {name: known[name] for name in known.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError):
      pass  # there is none, or it is damaged
    outputs, content = embedder.clip(path, seconds, view), io.BytesIO()
    np.savez(content, **outputs)
    write_bytes(file, content.getvalue())
    return outputs

  def done(self):
    """Removes the store, once the output holds all figures."""
    if self._folder is not None and self._folder.is_dir():
      shutil.rmtree(self._folder)


def _key(embedder, path, seconds, view):
  status = pathlib.Path(path).stat()
  identity = [FORMAT, embedder.network.name, embedder.checksum, str(path), status.st_size,
          status.st_mtime_ns, round(seconds, 6), view]
  return digest.key(identity)
