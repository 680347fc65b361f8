"""The seam of a codec: media of one modality to the data that its tower models, and back.

A codec is all that a modality's numbers hang on: which medium it reads, how that is laid out in a
batch, how many data frames a second there are and when each of them is, and how data become
media again. Pixels (`pixels.py`), the mel with its 1D-VAE and vocoder (`mel_codec.py`), latents of
video (`video_latents.py`) and features from outside (`feature_codec.py`) are codecs alike. A new
one is a file with a `build` and a line in KINDS.
"""

import dataclasses
import importlib

import jax
import numpy as np

from avlink_jax.errors import UserError

KINDS = {  # towers.NAME.codec -> where its `build(name, config, context)` stands
    'mel_vae': 'avlink_jax.codecs.mel_codec:build',
    'pixels': 'avlink_jax.codecs.pixels:build',
    'video_vae': 'avlink_jax.codecs.video_latents:build',
    'features': 'avlink_jax.codecs.feature_codec:build',
}


@dataclasses.dataclass(frozen=True)
class Context:
  """What a codec computes in and on.

  Attributes:
    dtype: of activations.
    platform: 'cpu', 'gpu' or 'tpu'; None: this process's.
    remat: recompute activations for the gradient, where the codec itself is trained.
  """
  dtype: object
  platform: str | None = None
  remat: bool = False


class Codec:
  """What every codec has; a subclass says the rest. Shapes are without the batch unless B is named.

  Attributes:
    name: of the modality, which begins the names of its arrays in a batch.
    medium: which medium of a clip it reads: 'audio', 'video' or 'features' (data/batch.py).
    reads: what a data source has to provide for it (data/batch.py).
    part: key of its weights in `config.frozen` and in the frozen tree; '' where it has none.
    noise: stream that a sample's X_0 is drawn from; None: its data are conditions alone, and
      never noised.
    channels: of its data, the last axis.
    rate: data frames a second, on which windows of a long clip are placed.
    decoded_rate: frames a second of what `decode` gives.
    sample_rate: Hz of the wave it reads and makes; None where it reads none.
  """
  name: str
  medium: str
  part = ''
  channels: int
  rate: float
  sample_rate = None

  @property
  def reads(self):
    return self.name

  @property
  def noise(self):
    return self.name

  @property
  def decoded_rate(self):
    return self.rate

  @property
  def mask_name(self):
    """Name in a batch of the mask of what is real: of the medium's frames, not of the data's."""
    return f'{self.name}_mask'

  @property
  def decoder_weights(self):
    """Arrays besides its `part` that its media are made with."""
    return []

  def seconds(self, count):
    """When each of the first `count` data frames is, from the clip's start: float64 (count,)."""
    return np.arange(count) / self.rate

  def shape(self, layout):
    """Shape of an example's data (T, …, channels)."""
    raise TypeError(f'{type(self).__name__} has no shape')

  def arrays(self, layout):
    """{name: (dtype, shape)} of what `read` gives for an example."""
    raise TypeError(f'{type(self).__name__} lists no arrays')

  def read(self, media, mask, layout):
    """An example's media and which of it exist, as data/batch.py crops them -> {name: array}, the
    mask among them."""
    raise TypeError(f'{type(self).__name__} reads nothing')

  def blank(self, seconds, layout):
    """What a batch holds of an example that is to be generated, of which `seconds` are wanted: the
    mask alone, {mask_name: bool (T,)}."""
    raise TypeError(f'{type(self).__name__} has no mask')

  def mask(self, batch):
    """Which data frames are real, not padding: bool (B, T)."""
    return batch[self.mask_name]

  def encode(self, weights, batch):
    """Data (B, T, …, channels) of a batch; `weights` {'params', 'std'}, None without a `part`."""
    raise TypeError(f'{type(self).__name__} encodes nothing')

  def decode(self, weights, data):
    """What of decoding is a program of the device: data (B, T, …) -> (B, T', …) at
    `decoded_rate`, of windows that are then blended."""
    del weights
    return data

  def finish(self, weights, decoded, seconds, layout):
    """A whole clip's `decoded` (T', …) on the host -> its media, as long as the clip: float32 (S,)
    or uint8 (N, H, W, 3)."""
    raise TypeError(f'{type(self).__name__} makes no media')

  def init(self, key):
    """{'params', 'std'} of a codec with a `part`, for its shapes."""
    raise TypeError(f'{type(self).__name__} has no weights')

  def check(self):
    """Raises UserError where something that decoding needs is not there."""


def make(kind, name, config, context):
  """The codec of the modality `name` that `towers.NAME.codec` calls `kind`, from the whole config.

  Raises UserError for a kind that there is not.
  """
  if kind not in KINDS:
    raise UserError(f'towers.{name}.codec={kind!r}: use one of {", ".join(KINDS)}')
  build = KINDS[kind]
  if isinstance(build, str):
    module, _, function = build.partition(':')
    build = getattr(importlib.import_module(module), function)
  return build(name, config, context)


def weights_shapes(codec):
  """Shapes of a codec's weights {'params', 'std'}."""
  return jax.eval_shape(codec.init, jax.random.key(0))
