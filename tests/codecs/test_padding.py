"""What lies past a clip's end in a window is silence to the 1D-VAE's decoder, not what a flow model
happens to leave there."""

import dataclasses

import jax
import numpy as np
from micro import random_params

from avlink_jax.codecs.codec import Codec
from avlink_jax.codecs.mel import MelSpec
from avlink_jax.codecs.mel_codec import MelCodec
from avlink_jax.codecs.mel_vae import MelVAE
from avlink_jax.sampling.sampler import decoder

SPEC = dataclasses.replace(MelSpec(), n_mels=6)
VAE = MelVAE(width=8, multipliers=(1, 2), blocks=1, latent_channels=3, n_mels=6)


def test_decoded_sound_does_not_depend_on_what_a_flow_model_left_past_its_end():
  codec = MelCodec('audio', VAE, SPEC, lambda: None)
  weights = {'params': random_params(VAE), 'std': np.float32(0.7)}
  decode = jax.jit(decoder(codec))
  data = np.random.default_rng(0).standard_normal((2, 8, 3), np.float32)
  other = data.copy()
  other[0, 5:] += 3
  mask = np.ones((2, 8), bool)
  mask[0, 5:] = False
  one, same = (np.asarray(decode(weights, x, mask)) for x in (data, other))
  assert np.array_equal(one, same)
  # It would, without: the decoder normalises over time.
  plain = [np.asarray(decode(weights, x, np.ones((2, 8), bool))) for x in (data, other)]
  assert np.abs(plain[0][0, :6] - plain[1][0, :6]).max() > 1e-3
  assert np.array_equal(plain[0][1], one[1])  # nothing is padded there


def test_other_codecs_keep_what_is_generated():
  data = np.ones((1, 2, 3))
  assert Codec().padded(None, data, np.zeros((1, 2), bool)) is data
