"""The 1D-VAE that makes latents of log-mel spectrograms (L1 + KL)."""

from configs import common


def get_config(scale='paper'):
  c = common.base('mel_vae', scale)
  c.train.steps = {'paper': 400_000, 'small': 20_000, 'nano': 4_000}[scale]
  c.train.decay_steps = {'paper': 0, 'small': 5_000, 'nano': 1_000}[scale]
  if scale == 'nano':
    c.train.batch_size, c.train.learning_rate = 8, 2e-3
  if scale == 'paper':  # two Adams in the full recipe; these are its numbers (ref. 27)
    c.train.batch_size, c.train.learning_rate = 4, 8e-6
    c.train.beta1, c.train.beta2, c.train.weight_decay = 0.5, 0.9, 0.0
  return c
