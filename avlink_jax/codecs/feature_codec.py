"""External features (CLIP, CAVP, …) in place of a modality: vectors, passed through unchanged."""

import dataclasses

import numpy as np

from avlink_jax.codecs.codec import Codec


def build(name, config, context):
  """Codec of `towers.NAME.features`-dimensional vectors at the frame rate of `config.data`."""
  del context
  return FeatureCodec(name, config.towers[name].features, config.data.fps)


@dataclasses.dataclass(frozen=True)
class FeatureCodec(Codec):
  """Conditioning vectors (F, C): never noised, never decoded."""
  name: str
  channels: int
  rate: float
  medium = 'features'
  noise = None

  @property
  def reads(self):
    return f'{self.name}_features'

  def shape(self, layout):
    return layout.frames, self.channels

  def arrays(self, layout):
    return {self.reads: (np.float32, (layout.frames, self.channels)),
            self.mask_name: (np.bool_, (layout.frames,))}

  def read(self, media, mask, layout):
    del layout
    return {self.reads: media, self.mask_name: mask}

  def encode(self, weights, batch):
    del weights
    return batch[self.reads]
