"""HiFi-GAN, which makes sound of log-mel spectrograms (Kong et al. 2020)."""

from ml_collections import ConfigDict

from avlink_jax.codecs.hifigan_losses import PAPER_SCALE_LAYERS
from configs import common

GENERATOR = {
    'paper': dict(rates=(5, 4, 2, 2, 2), kernels=(16, 16, 8, 4, 4), channels=1024, block=1,
                  residual_kernels=(3, 7, 11), dilations=((1, 3, 5),) * 3),
    # The paper's V2 and V3 in size, at this hop.
    'small': dict(rates=(5, 4, 2, 2, 2), kernels=(16, 16, 8, 4, 4), channels=256, block=1,
                  residual_kernels=(3, 7, 11), dilations=((1, 3, 5),) * 3),
    'nano': dict(rates=(8, 5, 4), kernels=(12, 10, 8), channels=128, block=2,
                 residual_kernels=(3, 5, 7), dilations=((1, 2), (2, 6), (3, 12))),
}
DISCRIMINATORS = {
    'paper': dict(period_widths=(32, 128, 512, 1024, 1024), scale_layers=PAPER_SCALE_LAYERS),
    'small': dict(period_widths=(16, 32, 128, 256, 256),
                  scale_layers=((32, 15, 1, 1), (32, 41, 2, 4), (64, 41, 2, 8), (128, 41, 4, 8),
                                (256, 41, 4, 8), (256, 5, 1, 1))),
    # No groups: on a CPU they cost more than they save.
    'nano': dict(period_widths=(8, 16, 32, 64, 64),
                 scale_layers=((8, 15, 2, 1), (16, 15, 4, 1), (32, 15, 4, 1), (64, 15, 4, 1),
                               (64, 5, 1, 1))),
}


def get_config(scale='paper'):
  c = common.base('vocoder', scale)
  c.vocoder = ConfigDict(dict(
      **GENERATOR[scale], **DISCRIMINATORS[scale], periods=(2, 3, 5, 7, 11), scales=3,
      segment={'paper': 8160, 'small': 8160, 'nano': 8000}[scale],  # samples
      mel_weight=45.0, feature_weight=2.0,
      adversarial_after={'paper': 0, 'small': 2_000, 'nano': 2_000}[scale],  # steps
      augment=scale != 'paper'))
  c.train.steps = {'paper': 1_000_000, 'small': 40_000, 'nano': 4_000}[scale]
  c.train.decay_steps = {'paper': 0, 'small': 10_000, 'nano': 1_000}[scale]
  c.train.batch_size = {'paper': 16, 'small': 16, 'nano': 4}[scale]
  c.train.learning_rate = {'paper': 2e-4, 'small': 4e-4, 'nano': 2e-3}[scale]
  c.train.beta1, c.train.beta2 = 0.8, 0.99
  c.train.warmup_steps = {'paper': 1, 'small': 500, 'nano': 100}[scale]
  c.train.clip_norm = 1_000.0  # the original does not clip; this catches accidents
  return c
