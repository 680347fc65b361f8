"""AV-Link, video to audio: Fusion Blocks between the frozen towers (Sec. 3.3)."""

from configs import common


def get_config(scale='paper'):
  c = common.base('v2a', scale)
  c.generate = ('audio',)
  common.add_fusion(c)
  c.train.steps = {'paper': 50_000, 'small': 10_000, 'nano': 1_200}[scale]
  # Which t decide about timing depends on the latents: see DESIGN in README's 'law of t'.
  c.flow.location = {'paper': -1.0, 'small': -1.0, 'nano': -3.0}[scale]
  c.sample.shift = {'paper': 0.0, 'small': 0.0, 'nano': -3.0}[scale]
  return c
