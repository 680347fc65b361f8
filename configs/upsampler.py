"""The latent upsampler, from 64×36 at 6 frames a second to 512×288 at 24 (Sec. 3.2): the
text-to-video base model, fine-tuned on the video autoencoder's latents."""

from ml_collections import ConfigDict

from avlink_jax.configs import common


def get_config(scale='paper'):
  c = common.base('upsampler', scale)
  by_scale = common.at_scale(scale)
  c.generate = ('video',)
  common.large_video_codec(c)
  common.high_resolution(c, by_scale(5.16, 5.16, 1.33), by_scale((0, 0), (0, 0), (128, 256)))
  common.freeze_video_codec(c, 'video_vae')
  # The base model: bundled, a workdir or a file
  c.train.init_from = by_scale('runs/t2v-paper', 'runs/t2v-small', 'bundled:t2v_pixels')
  c.train.steps, c.train.decay_steps = by_scale((25_000, 0), (10_000, 2_000), (2_400, 1_200))
  c.train.batch_size = by_scale(384, 16, 4)
  # At smaller scales the base's patches would have too many values with latents
  c.towers.video.patch = by_scale((1, 2, 2), (1, 4, 4), (1, 4, 4))
  c.towers.video.guide = 3  # channels of the low-resolution video
  # A narrow tower cannot represent where an edge runs: it starts from the latents of the enlarged
  # low-resolution video, from which the true ones deviate by `detail`, and its head uses
  # neighbouring pixels.
  c.towers.video.local = by_scale(0, 0, 192)
  if scale == 'nano':
    c.towers.video.prediction = 'residual'
  c.towers.video.detail = by_scale(0.0, 0.0, 0.3)
  c.flow.guide_time = ConfigDict(dict(
      # how clean the low-resolution video is in training, at least, as a flow time (1: no noise)
      low=by_scale(0.7, 0.7, 0.9)))
  # weight of the loss of the pixels that latents decode to, beside the latents' own
  c.flow.pixel_weight = by_scale(0.0, 0.0, 10.0)
  # how clean the low-resolution video is in sampling, as a flow time; paper scale: that of a video
  # that conditions (Sec. 4.4)
  c.sample.guide_time = by_scale(0.96, 0.96, 1.0)
  # noise deviation of a residual, of 255 grey levels (tasks/upsampler.py); on held-out clips that
  # are not the benchmark's, 3 to 6 look alike, and all better than 0
  c.sample.residual_noise = by_scale(0.0, 0.0, 4.0)
  # The paper's; at smaller scales none, since the content is defined by the low-resolution video
  c.sample.guidance = by_scale(5.0, 1.0, 1.0)
  c.sample.overlap = by_scale(1.16, 1.16, 0.33)
  c.sample.batch_size = 8
  c.sample.upsample = False  # it is the upsampler
  if scale == 'nano':
    # The low-resolution video determines most of a latent, before it emerges from the noise.
    c.flow.location.video = c.sample.shift.video = -2.0
    # One Euler step: the mean over what the low-resolution video leaves open. Four bring nothing at
    # this scale (4 clips: 26.92 dB, flicker 2.54; one: 26.90, 2.49;
    # tests/benchmarks/upsampling.py).
    c.sample.steps, c.sample.count = 1, 4
  return c
