"""The 1D-VAE of log-mel spectrograms: L1, perceptual, KL and adversarial losses."""

from ml_collections import ConfigDict

from avlink_jax.configs import common


def get_config(scale='paper'):
  c = common.base('mel_vae', scale)
  by_scale = common.at_scale(scale)
  c.train.steps = by_scale(400_000, 20_000, 5_000)
  c.train.decay_steps = by_scale(0, 5_000, 1_500)
  # Two Adams without weight decay, which would change the waiting discriminator (ref. 27).
  c.train.beta1, c.train.beta2, c.train.weight_decay = 0.5, 0.9, 0.0
  c.codec_loss = ConfigDict(dict(  # beside the L1 and the KL
      fixed_encoder=False,  # True: the decoder alone learns, and latents stay what they are
      latent_noise=0.0,  # deviation of noise that is decoded with latents, of theirs; 0: none
      # network of the perceptual loss: none, bundled (this project's), or files of VGG16 and
      # LPIPS's heads: path[,path]
      perceptual='bundled',
      perceptual_weight=1.0,  # weight of the perceptual loss
      adversarial=True,  # False: no discriminator at all
      # steps before the discriminator begins; ref. 27 says 20,001, and its framework counts the
      # updates of both networks
      disc_after=by_scale(10_000, 10_000, 2_500),
      disc_rate=by_scale(1.0, 1.0, 0.1),  # the discriminator's learning rate, times the codec's
      disc_weight=0.5,  # weight of the adversarial loss
      disc_layers=3,  # layers of the discriminator that halve
      disc_width=by_scale(64, 32, 16),  # channels of the discriminator's first layer
      frames=by_scale(0, 256, 128)))  # frames of a mel that both networks use; 0: all
  if scale == 'nano':
    c.train.batch_size, c.train.learning_rate = 4, 2e-3
  if scale == 'paper':  # ref. 27
    c.train.batch_size, c.train.learning_rate = 4, 8e-6
  return c
