"""AV-Link, sound and picture generated at once, both flow times running (Sec. 4.4)."""

from configs import common


def get_config(scale='paper'):
  c = common.base('av', scale)
  c.generate = ('audio+video',)
  common.add_fusion(c)
  c.flow.drop_condition = 0.0  # nothing conditions
  c.train.steps = {'paper': 50_000, 'small': 10_000, 'nano': 2_000}[scale]
  c.train.decay_steps = {'paper': 0, 'small': 2_000, 'nano': 600}[scale]
  common.add_upsampler(c)
  return c
