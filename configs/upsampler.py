"""The latent upsampler: the text-to-video base model, fine-tuned on the video autoencoder's latents
to make 512×288 at 24 frames a second of its 64×36 at 6 (Sec. 3.2)."""

from ml_collections import ConfigDict

from configs import common


def get_config(scale='paper'):
  c = common.base('upsampler', scale)
  by_scale = lambda paper, small, nano: dict(paper=paper, small=small, nano=nano)[scale]  # noqa: E731
  c.generate = ('video',)
  common.add_video_codec(c)
  common.high_resolution(c, by_scale(5.16, 5.16, 1.33), by_scale((0, 0), (0, 0), (128, 256)))
  c.frozen = common.frozen(scale, 'video_codec')
  # The base model: 'bundled', a workdir or a file.
  c.train.init_from = 'bundled' if scale == 'nano' else f'runs/t2v-{scale}'
  c.train.steps, c.train.decay_steps = by_scale((25_000, 0), (10_000, 2_000), (2_400, 1_200))
  c.train.batch_size = by_scale(384, 16, 4)
  # Latents fill more numbers than the base's wide patches have room for, but at paper scale.
  c.towers.video.patch = by_scale((1, 2, 2), (1, 4, 4), (1, 4, 4))
  c.towers.video.guide = 3  # channels of the small video
  # A narrow tower's patches have no room for where an edge runs: it begins with the small video
  # enlarged, in latents, from which the true ones deviate by `detail`, and each place looks around.
  c.towers.video.local = by_scale(0, 0, 192)
  if scale == 'nano':
    c.towers.video.prediction = 'residual'
  c.towers.video.detail = by_scale(0.0, 0.0, 0.3)
  # How noisy the small video is, as a flow time (1: not at all): in training at least that, and
  # when something is sampled, where it is the paper's time of a video that conditions (Sec. 4.4).
  c.flow.guide_time = ConfigDict(dict(low=by_scale(0.7, 0.7, 0.9)))
  # Beside the latents' loss: of the pixels that they decode to (UpsamplerTask.shown_loss).
  c.flow.pixel_weight = by_scale(0.0, 0.0, 10.0)
  c.sample.guide_time = by_scale(0.96, 0.96, 1.0)
  # Grey levels, of 255, of a residual that are taken for noise (tasks/upsampler.quieted).
  # On held-out clips that are not the benchmark's, 3 to 6 look alike, and all better than 0.
  c.sample.residual_noise = by_scale(0.0, 0.0, 4.0)
  c.sample.guidance = 1.0  # what is to be seen the small video says
  c.sample.overlap = by_scale(1.16, 1.16, 0.33)
  c.sample.batch_size = by_scale(8, 8, 8)
  if scale == 'nano':
    # Most of a latent is decided by the small video, before much of it can be seen in the noise.
    c.flow.location.video = c.sample.shift.video = -2.0
    # One Euler step: the mean of what the small video leaves open. Four bring nothing at this scale
    # (4 clips: 26.92 dB, flicker 2.54; one: 26.90, 2.49; tests/benchmarks/upsampling.py).
    c.sample.steps, c.sample.count = 1, 4
  return c
