"""The text-to-video base model: a DiT on 36×64 pictures at 6 a second."""

from configs import common


def get_config(scale='paper'):
  c = common.base('t2v', scale)
  c.generate = ('video',)
  c.train.steps = {'paper': 250_000, 'small': 20_000, 'nano': 8_000}[scale]
  c.train.decay_steps = {'paper': 0, 'small': 5_000, 'nano': 2_500}[scale]
  common.early(c, 'video')
  if scale == 'paper':
    c.train.batch_size = 512
  return c
