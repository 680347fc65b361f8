"""HiFi-GAN, the vocoder from log-mel spectrograms to waves (Kong et al. 2020)."""

from ml_collections import ConfigDict

from avlink_jax.codecs.hifigan_losses import PAPER_SCALE_LAYERS
from avlink_jax.configs import common

SMALL_SCALE_LAYERS = ((32, 15, 1, 1), (32, 41, 2, 4), (64, 41, 2, 8), (128, 41, 4, 8),
                      (256, 41, 4, 8), (256, 5, 1, 1))
# No groups: on a CPU they cost more than they save.
NANO_SCALE_LAYERS = ((8, 15, 2, 1), (16, 15, 4, 1), (32, 15, 4, 1), (64, 15, 4, 1), (64, 5, 1, 1))


def get_config(scale='paper'):
  c = common.base('vocoder', scale)
  by_scale = common.at_scale(scale)
  c.vocoder = ConfigDict(dict(  # small: in size as the original's V2 and V3
      rates=by_scale((5, 4, 2, 2, 2), (5, 4, 2, 2, 2), (8, 5, 4)),  # of each upsampling
      kernels=by_scale((16, 16, 8, 4, 4), (16, 16, 8, 4, 4), (12, 10, 8)),  # kernels of upsampling
      channels=by_scale(1024, 256, 128),  # before the first upsampling; each halves them
      block=by_scale(1, 1, 2),  # kind of residual block, the original's 1 or 2
      residual_kernels=by_scale((3, 7, 11), (3, 7, 11), (3, 5, 7)),  # of the residual blocks
      dilations=by_scale(((1, 3, 5),) * 3, ((1, 3, 5),) * 3, ((1, 2), (2, 6), (3, 12))),  # too
      # channels of the layers of a period discriminator
      period_widths=by_scale(
          (32, 128, 512, 1024, 1024), (16, 32, 128, 256, 256), (8, 16, 32, 64, 64)),
      # channels, kernel, stride, groups of the layers of a scale discriminator
      scale_layers=by_scale(PAPER_SCALE_LAYERS, SMALL_SCALE_LAYERS, NANO_SCALE_LAYERS),
      periods=(2, 3, 5, 7, 11),  # of the period discriminators, samples
      scales=3,  # how many scale discriminators
      segment=by_scale(8160, 8160, 8000),  # samples of an example
      mel_weight=45.0,  # weight of the mel's L1 in the loss
      feature_weight=2.0,  # weight of feature matching in the loss
      adversarial_after=by_scale(0, 2_000, 2_000),  # steps before the discriminators begin
      augment=scale != 'paper'))  # whether examples are varied: speed, sign, level, mixtures, noise
  c.train.steps = by_scale(1_000_000, 40_000, 4_000)
  c.train.decay_steps = by_scale(0, 10_000, 1_000)
  c.train.batch_size = by_scale(16, 16, 4)
  c.train.learning_rate = by_scale(2e-4, 4e-4, 2e-3)
  c.train.beta1, c.train.beta2 = 0.8, 0.99
  c.train.warmup_steps = by_scale(1, 500, 100)
  c.train.clip_norm = 1_000.0  # the original does not clip; this catches accidents
  return c
