"""AV-Link, audio to video: the same Fusion Blocks, the other direction (Sec. 3.3)."""

from avlink_jax.configs import common, public


def get_config(scale='paper'):
  c = common.base('a2v', scale)
  by_scale = common.at_scale(scale)
  c.generate = ('video',)
  common.add_fusion(c)
  c.train.steps = by_scale(50_000, 10_000, 2_000)
  c.train.decay_steps = by_scale(0, 2_000, 600)
  if scale == 'nano':
    c.sample.guidance = 3.0  # as the base model there
  common.freeze(c, 'upsampler')
  if scale == common.PUBLIC:
    public.use(c)
  return c
