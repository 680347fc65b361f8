"""AV-Link, audio to video: the same Fusion Blocks, the other direction (Sec. 3.3)."""

from configs import common


def get_config(scale='paper'):
  c = common.base('a2v', scale)
  c.generate = ('video',)
  common.add_fusion(c)
  c.train.steps = {'paper': 50_000, 'small': 10_000, 'nano': 2_000}[scale]
  c.train.decay_steps = {'paper': 0, 'small': 2_000, 'nano': 600}[scale]
  if scale == 'nano':
    c.sample.guidance = 3.0  # as the base model there
  common.add_upsampler(c)
  return c
