"""AV-Link, video to audio: Fusion Blocks between the frozen towers (Sec. 3.3)."""

from configs import common


def get_config(scale='paper'):
  c = common.base('v2a', scale)
  c.generate = ('audio',)
  common.add_fusion(c)
  c.train.steps = {'paper': 50_000, 'small': 10_000, 'nano': 1_000}[scale]
  c.train.decay_steps = {'paper': 0, 'small': 2_000, 'nano': 300}[scale]
  # Where the video decides about timing depends on the latents: the nano codec's show most
  # onsets by themselves from t = 0.2 on (tests/benchmarks/timing_in_noise.py), so its examples
  # and its Euler steps lie below; paper scale keeps the paper's law and even steps.
  c.flow.location = {'paper': -1.0, 'small': -1.0, 'nano': -2.5}[scale]
  c.sample.shift = {'paper': 0.0, 'small': 0.0, 'nano': -2.5}[scale]
  return c
