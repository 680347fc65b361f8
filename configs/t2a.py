"""The text-to-audio base model: a DiT on the 1D-VAE's latents."""

from configs import common


def get_config(scale='paper'):
  c = common.base('t2a', scale)
  c.generate = ('audio',)
  c.frozen = common.frozen(scale, 'codec')
  common.early(c, 'audio')
  c.train.steps = {'paper': 100_000, 'small': 20_000, 'nano': 3_000}[scale]
  c.train.decay_steps = {'paper': 0, 'small': 5_000, 'nano': 1_000}[scale]
  if scale == 'paper':
    c.train.batch_size = 1024
  return c
