"""AV-Link, video to audio: Fusion Blocks between the frozen towers (Sec. 3.3)."""

from configs import common


def get_config(scale='paper'):
  c = common.base('v2a', scale)
  c.generate = ('audio',)
  common.add_fusion(c)
  c.train.steps = {'paper': 50_000, 'small': 10_000, 'nano': 1_600}[scale]
  c.train.decay_steps = {'paper': 0, 'small': 2_000, 'nano': 400}[scale]
  return c
