"""AV-Link, both directions by one set of Fusion Blocks, drawn for each example (Sec. 4.4)."""

from configs import common


def get_config(scale='paper'):
  c = common.base('joint', scale)
  c.generate = ('audio', 'video')
  common.add_fusion(c)
  c.train.steps = {'paper': 50_000, 'small': 10_000, 'nano': 4_000}[scale]
  c.train.decay_steps = {'paper': 0, 'small': 2_000, 'nano': 1_200}[scale]
  if scale == 'nano':
    c.sample.guidance = 3.0  # as the base models there
  common.add_upsampler(c)
  return c
