"""The video autoencoder: 288×512 frames at 24 a second <-> latents on the base model's grid."""

from ml_collections import ConfigDict

from avlink_jax.configs import common


def get_config(scale='paper'):
  c = common.base('video_vae', scale)
  by_scale = common.at_scale(scale)
  common.large_video_codec(c)
  common.high_resolution(c, seconds=by_scale(17, 17, 12) / 24,
                         crop=by_scale((128, 128), (128, 128), (96, 96)))
  c.train.steps = by_scale(400_000, 20_000, 6_000)
  c.train.decay_steps = by_scale(0, 5_000, 3_000)
  c.train.batch_size = by_scale(128, 16, 4)
  c.train.learning_rate = by_scale(1e-4, 3e-4, 2e-3)
  # Two Adams without weight decay, which would change the waiting discriminator.
  c.train.beta1, c.train.beta2, c.train.weight_decay = by_scale(0.0, 0.5, 0.9), 0.99, 0.0
  c.sample.count = by_scale(16, 4, 2)  # of 55 MB each
  c.codec_loss = ConfigDict(dict(  # beside the L1 and the KL
      fixed_encoder=False,  # True: the decoder alone learns, and latents stay what they are
      latent_noise=0.0,  # deviation of noise that is decoded with latents, of theirs; 0: none
      perceptual='none',  # none, or files of VGG16 and LPIPS's heads: path[,path]
      perceptual_weight=1.0,  # weight of the perceptual loss
      frames=by_scale(4, 4, 2),  # frames that the perceptual network uses; 0: all
      adversarial=by_scale(True, True, False),  # False: no discriminator at all
      disc_after=by_scale(20_000, 5_000, 1_500),  # steps before the discriminator begins
      disc_rate=by_scale(1.0, 1.0, 0.1),  # the discriminator's learning rate, times the codec's
      disc_weight=0.1,  # weight of the adversarial loss
      disc_layers=by_scale(4, 3, 3),  # layers of the discriminator that halve
      disc_width=by_scale(64, 32, 8)))  # channels of the discriminator's first layer
  return c
