"""AV-Link, audio and video generated at once, both flow times running (Sec. 4.4)."""

from avlink_jax.configs import common, public


def get_config(scale='paper'):
  c = common.base('av', scale)
  by_scale = common.at_scale(scale)
  c.generate = ('audio+video',)
  common.add_fusion(c)
  c.flow.drop_condition = 0.0  # nothing conditions
  c.train.steps = by_scale(50_000, 10_000, 2_000)
  c.train.decay_steps = by_scale(0, 2_000, 600)
  common.freeze(c, 'upsampler')
  if scale == common.PUBLIC:
    public.use(c)
  return c
