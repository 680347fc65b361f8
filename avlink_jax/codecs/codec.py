"""Interface of a codec, which turns media of one modality into the data its tower models, and back.

A codec defines which medium is read, its arrays in a batch, the rate and the times of data frames,
and how data become media again. Pixels (`pixels.py`), the mel with its 1D-VAE and vocoder
(`mel_codec.py`), latents of video (`video_latents.py`) and external features (`feature_codec.py`)
are all codecs, and so are those of published models (`wan_codec.py`, `dac_codec.py`). To add one,
write a file with a function `build` and add a line to KINDS.
"""

import dataclasses
import functools
import hashlib
import importlib

import jax
import numpy as np

from avlink_jax.errors import UserError
from avlink_jax.storage import weights as weights_files
from avlink_jax.storage.digest import add_tree

KINDS = {  # towers.NAME.codec -> module:function of its build(name, config, context)
    'mel_vae': 'avlink_jax.codecs.mel_codec:build',
    'pixels': 'avlink_jax.codecs.pixels:build',
    'video_vae': 'avlink_jax.codecs.video_latents:build',
    'wan_vae': 'avlink_jax.codecs.wan_codec:build',
    'dac': 'avlink_jax.codecs.dac_codec:build',
    'features': 'avlink_jax.codecs.feature_codec:build',
}


@dataclasses.dataclass(frozen=True)
class Context:
  """Precision and platform that a codec computes with.

  Attributes:
    dtype: activations' type.
    platform: 'cpu', 'gpu' or 'tpu'; None: this process's.
    remat: recompute activations for the gradient when the codec itself is trained.
  """
  dtype: object
  platform: str | None = None
  remat: bool = False


class Codec:
  """Base class of codecs. Shapes are without the batch axis unless B is named.

  Attributes:
    name: modality's name, the prefix of its arrays in a batch.
    medium: medium of a clip that is read: 'audio', 'video' or 'features' (data/batch.py).
    reads: what a data source must provide (data/batch.py).
    part: key of its weights in `config.frozen` and in the frozen tree; '' without weights.
    noise: name of the random stream for a sample's X_0; None: the data only condition and never
      get noise.
    channels: size of the data's last axis.
    rate: data frames a second; windows of a long clip start on this grid.
    decoded_rate: frames a second of `decode`'s output.
    sample_rate: Hz of the wave that is read and decoded; None without audio.
    sizes: of a codec with a `part`: what its latents depend on besides weights and media.
    short_first: whether the first data frame of a window covers less than the others, so that it
      counts only where no other window has that frame.
  """
  name: str
  medium: str
  part = ''
  channels: int
  rate: float
  sample_rate = None
  sizes: object
  short_first = False

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
    """Name in a batch of the mask over the medium's (not the data's) frames; False is padding."""
    return f'{self.name}_mask'

  @property
  def latents_name(self):
    """Name in a batch of data that were prepared, in place of the media."""
    return f'{self.name}_latents'

  @property
  def decoder_weights(self):
    """Arrays, besides those of `part`, that decoded media depend on."""
    return []

  def seconds(self, count):
    """Times of the first `count` data frames, seconds from the clip's start: float64 (count,)."""
    return np.arange(count) / self.rate

  def covered(self, layout):
    """Seconds of media that an example's data give."""
    return layout.seconds

  def shape(self, layout):
    """Shape of an example's data (T, …, channels)."""
    raise TypeError(f'{type(self).__name__} has no shape')

  def arrays(self, layout):
    """Mapping {name: (dtype, shape)} of the arrays that `read` returns for an example."""
    raise TypeError(f'{type(self).__name__} lists no arrays')

  def read(self, media, mask, layout):
    """Converts an example's media and its mask, as cropped by data/batch.py, to {name: array},
    including the mask."""
    raise TypeError(f'{type(self).__name__} reads nothing')

  def read_latents(self, latents, seconds, layout):
    """Reads prepared latents of a window with `seconds` of media: {name: array}, with the mask.

    Raises ValueError: they have another shape than this layout's data."""
    if latents.shape != self.shape(layout):
      raise ValueError(f'latents of {latents.shape}, not {self.shape(layout)}')
    return {self.latents_name: latents, **self.blank(seconds, layout)}

  def normalise(self, wave):
    """Wave (S,) at the level that this codec's waves have; here it stays."""
    return wave

  @property
  def keeping_level(self):
    """This codec, which reads parts of a wave that `normalise` brought to its level as a whole."""
    return self

  def blank(self, seconds, layout):
    """Batch arrays of an example whose first `seconds` are to be generated: only the mask,
    {mask_name: bool (T,)}."""
    raise TypeError(f'{type(self).__name__} has no mask')

  def mask(self, batch):
    """Mask of data frames that are not padding: bool (B, T)."""
    return batch[self.mask_name]

  def encode(self, weights, batch):
    """Data (B, T, …, channels) of a batch; `weights` {'params', 'std'}, None without a `part`."""
    raise TypeError(f'{type(self).__name__} encodes nothing')

  def encode_window(self, weights, arrays):
    """Data (T, …, channels) of an example's `arrays` alone, float32 on the host."""
    batch = jax.tree.map(lambda x: x[None], arrays)
    return np.asarray(_encode(self, weights, batch))[0]

  def decode(self, weights, data):
    """Decodes windows on the device, before they are blended: data (B, T, …) -> (B, T', …) at
    `decoded_rate`."""
    del weights
    return data

  def padded(self, weights, data, mask):
    """Generated data (B, T, …) as `decode` was trained on them: what lies past a clip's end, where
    the mask (B, T) is False, was never part of a flow model's loss. Here it stays."""
    del weights, mask
    return data

  def finish(self, weights, decoded, seconds, layout):
    """Converts a complete clip's `decoded` (T', …) on the host to media of the clip's length:
    float32 (S,) or uint8 (N, H, W, 3)."""
    raise TypeError(f'{type(self).__name__} makes no media')

  def init(self, key):
    """Fresh {'params', 'std'} of a codec with a `part`."""
    raise TypeError(f'{type(self).__name__} has no weights')

  def load(self, path):
    """Weights {'params', 'std'}, numpy arrays, from a file of a run of ours. Raises UserError."""
    tree = {'params': {}, **weights_files.read(path)[0]}  # another program's may lack 'params'
    params = weights_files.fit(tree['params'], weights_shapes(self)['params'], path)
    return {'params': params, 'std': tree['stats']['std']}

  def fingerprint(self, weights):
    """Hash of everything besides the media that latents depend on: sizes and weights."""
    digest = hashlib.sha256(repr(self.sizes).encode())
    add_tree(digest, [weights['params'], weights['std']], np.float32)
    return digest.hexdigest()

  def check(self):
    """Raises UserError if something needed for decoding is missing."""

  def check_samples(self):
    """Raises UserError if something was left open that whoever asks for samples has to decide."""


@functools.partial(jax.jit, static_argnums=0)
def _encode(codec, weights, batch):
  return codec.encode(weights, batch)


def make(kind, name, config, context):
  """Codec of the modality `name`, of the `kind` in `towers.NAME.codec`, from the complete config.

  Raises UserError: unknown kind.
  """
  if kind not in KINDS:
    raise UserError(f'towers.{name}.codec={kind!r}: use one of {", ".join(KINDS)}')
  build = KINDS[kind]
  if isinstance(build, str):
    module, _, function = build.partition(':')
    build = getattr(importlib.import_module(module), function)
  return build(name, config, context)


@dataclasses.dataclass(frozen=True)
class Seconds:
  """`codec.seconds` as a value: equal for equal codecs, as methods of two objects never are."""
  codec: Codec

  def __call__(self, count):
    return self.codec.seconds(count)


@functools.lru_cache(maxsize=16)
def weights_shapes(codec):
  """Shapes of a codec's weights {'params', 'std'}; equal codecs are traced once."""
  return jax.eval_shape(codec.init, jax.random.key(0))
