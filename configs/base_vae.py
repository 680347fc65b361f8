"""The video autoencoder of the base size: 36×64 frames at 6 a second <-> latents of 9×16 each."""

from avlink_jax.configs import common, video_vae


def get_config(scale='paper'):
  c = video_vae.get_config(scale)
  base = common.base('video_vae', scale)
  by_scale = common.at_scale(scale)
  c.name = 'base_vae'
  c.data = base.data
  c.data.seconds, c.data.clip_seconds = by_scale(17 / 6, 17 / 6, 2 / 6), 5.16
  c.video_codec = base.video_codec
  c.train.steps, c.train.decay_steps, c.train.batch_size = by_scale(
      (100_000, 20_000, 128), (20_000, 5_000, 16), (4_000, 2_000, 16))
  c.sample.count = by_scale(16, 16, 8)
  return c
