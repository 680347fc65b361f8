"""Which vocoder makes the sound: no default that nobody would want, and each run says it."""

import pytest

import avlink_jax
from avlink_jax.codecs import mel_codec, vocoder
from avlink_jax.codecs.mel import MelSpec
from avlink_jax.errors import UserError
from configs import t2a


@pytest.mark.parametrize('scale', ['small', 'paper'])
def test_above_nano_sampling_asks_for_a_vocoder_and_training_says_what_it_does_without(
    scale, capsys):
  config = t2a.get_config(scale)
  codec = mel_codec.build('audio', config, None)
  with pytest.raises(UserError, match='which vocoder.*sample.vocoder=.*griffin_lim'):
    codec.check_samples()
  codec.check()  # of training
  assert 'vocoder: Griffin-Lim, which sounds metallic' in capsys.readouterr().err
  config.sample.vocoder = vocoder.GRIFFIN_LIM
  mel_codec.build('audio', config, None).check_samples()


def test_at_nano_it_is_the_bundled_one_and_the_run_says_so(capsys):
  config = t2a.get_config('nano')
  mel_codec.build('audio', config, None).check_samples()
  assert isinstance(vocoder.load(config, MelSpec()), vocoder.HiFiGANVocoder)
  assert capsys.readouterr().err == 'vocoder: bundled\n'


def test_whoever_loads_a_model_is_asked_before_its_weights_are_read():
  with pytest.raises(UserError, match='which vocoder'):
    avlink_jax.load('v2a:small')
  avlink_jax.load('a2v:small')  # which makes no sound
