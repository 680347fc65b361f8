"""Features from outside (CLIP, CAVP, …) in a modality's place: vectors, given as they are."""

import dataclasses

import numpy as np

from avlink_jax.codecs.codec import Codec


def build(name, config, context):
  """Vectors of `towers.NAME.features` numbers, at the frame rate of `config.data`."""
  del context
  return FeatureCodec(name, config.towers[name].features, config.data.fps)


@dataclasses.dataclass(frozen=True)
class FeatureCodec(Codec):
  """Vectors (F, C) that condition: there is no noise in them, and nothing is decoded."""
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
