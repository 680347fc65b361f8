"""AV-Link, both directions by one set of Fusion Blocks, drawn for each example (Sec. 4.4)."""

from avlink_jax.configs import common, public


def get_config(scale='paper'):
  c = common.base('joint', scale)
  by_scale = common.at_scale(scale)
  c.generate = ('audio', 'video')
  common.add_fusion(c)
  c.train.steps = by_scale(50_000, 10_000, 4_000)
  c.train.decay_steps = by_scale(0, 2_000, 1_200)
  if scale == 'nano':
    c.sample.guidance = 3.0  # as the base models there
  common.freeze(c, 'upsampler')
  if scale == common.PUBLIC:
    public.use(c)
  return c
