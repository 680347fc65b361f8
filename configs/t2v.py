"""The text-to-video base model: a DiT on 36×64 pictures at 6 a second."""

from configs import common


def get_config(scale='paper'):
  c = common.base('t2v', scale)
  c.generate = ('video',)
  c.train.steps = {'paper': 250_000, 'small': 20_000, 'nano': 8_000}[scale]
  c.train.decay_steps = {'paper': 0, 'small': 5_000, 'nano': 2_500}[scale]
  if scale == 'nano':
    # Over large patches the eye averages noise away early: what is where is decided below t = 0.3.
    c.flow.location.video = c.sample.shift.video = -1.0
  if scale == 'paper':
    c.train.batch_size = 512
  return c
