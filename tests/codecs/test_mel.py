"""Log-mel spectrograms as the recipe says, and back to sound without a network."""

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avlink_jax.codecs.griffin_lim import griffin_lim
from avlink_jax.codecs.mel import MelSpec, log_mel, normalise

SPEC = MelSpec()
RATE = SPEC.sample_rate


def struck(seconds=1.0, times=(0.1, 0.45, 0.7), seed=0):
  """Decaying partials struck at `times`, on a little noise."""
  rng, t = np.random.default_rng(seed), np.arange(int(seconds * RATE)) / RATE
  wave = 0.002 * rng.standard_normal(len(t))
  for start in times:
    since = np.maximum(t - start, 0)
    for partial in (440, 1130, 2710):
      wave += (t >= start) * np.exp(-12 * since) * np.sin(2 * np.pi * partial * since)
  return normalise(wave.astype(np.float32))


def by_librosa(wave):
  mel = librosa.feature.melspectrogram(
      y=np.pad(wave, (1024 - 160) // 2, mode='reflect'), sr=16_000, n_fft=1024, win_length=1024,
      hop_length=160, window='hann', center=False, power=1.0, n_mels=64, fmin=0.0, fmax=8000.0)
  return np.log(np.maximum(mel, 1e-5)).T


@pytest.mark.parametrize('samples', [16_000, 82_560, 5_003])
def test_log_mel_is_librosas(samples):
  wave = np.resize(struck(), samples)
  np.testing.assert_allclose(log_mel(wave, SPEC), by_librosa(wave), atol=1e-4)


@given(st.integers(512, 20_000))
@settings(max_examples=20)
def test_there_is_a_frame_for_every_hop(samples):
  mel = log_mel(np.zeros(samples, np.float32), SPEC)
  assert mel.shape == (samples // 160, 64) and mel.dtype == np.float32


def test_the_papers_clip_is_516_frames():
  assert log_mel(np.zeros(82_560, np.float32), SPEC).shape == (516, 64)
  assert SPEC.rate == 100


def test_silence_is_the_floor_and_nothing_is_below_it():
  assert SPEC.silence == pytest.approx(np.log(1e-5))
  np.testing.assert_allclose(log_mel(np.zeros(RATE, np.float32), SPEC), np.log(1e-5), rtol=1e-6)
  assert log_mel(1e-9 * struck(), SPEC).min() >= np.float32(SPEC.silence)


@given(st.integers(600, 15_000))
@settings(max_examples=30)
def test_a_click_is_loudest_in_the_frame_it_falls_into(sample):
  """Frame n is centred on sample (n + 1/2)·hop; on a border two frames are as near."""
  wave = np.zeros(RATE, np.float32)
  wave[sample] = 1.0
  frame = np.argmax(log_mel(wave, SPEC).sum(1))
  assert abs((frame + 0.5) * SPEC.hop - sample) <= SPEC.hop / 2 + 1


@given(st.floats(-6, 6), st.floats(-0.5, 0.5), st.integers(0, 99))
@settings(max_examples=20)
def test_normalising_takes_out_mean_and_loudness(log_gain, offset, seed):
  wave = np.random.default_rng(seed).standard_normal(999).astype(np.float32)
  made = normalise(np.float32(np.exp(log_gain)) * wave + np.float32(offset))
  assert made.dtype == np.float32
  assert np.abs(made).max() == pytest.approx(0.5, rel=1e-3)
  np.testing.assert_allclose(
      made, 0.5 * (wave - wave.mean()) / np.abs(wave - wave.mean()).max(), atol=1e-3)


@pytest.mark.parametrize('samples', [0, 1, 1000])
def test_normalised_silence_stays_silence(samples):
  np.testing.assert_array_equal(normalise(np.full(samples, 0.25, np.float32)), np.zeros(samples))


# Back to sound

def test_griffin_lim_gives_back_what_the_mel_says():
  wave = struck()
  mel = log_mel(wave, SPEC)
  made = griffin_lim(mel, SPEC)
  assert made.shape == wave.shape and made.dtype == np.float32 and np.abs(made).max() <= 1
  again = log_mel(made, SPEC)
  loud = mel > mel.max() - 7  # where there is sound: down to −60 dB
  assert np.abs(again - mel)[loud].mean() < 0.5  # 0.4; a hop late it is 0.8, other strikes 2.7
  strikes, heard = (np.flatnonzero(np.diff(m.sum(1)) > 40) for m in (mel, again))
  assert len(strikes) >= 3
  np.testing.assert_allclose(heard, strikes, atol=1)


def test_griffin_lim_of_the_same_mel_is_the_same_sound():
  mel = log_mel(struck(), SPEC)
  np.testing.assert_array_equal(griffin_lim(mel, SPEC), griffin_lim(mel, SPEC))
  assert not np.array_equal(griffin_lim(mel, SPEC), griffin_lim(mel, SPEC, seed=1))


@pytest.mark.parametrize('frames', [4, 31, 516])
def test_silence_in_is_silence_out_and_as_long(frames):
  made = griffin_lim(np.full((frames, 64), SPEC.silence, np.float32), SPEC)
  assert made.shape == (frames * SPEC.hop,)
  assert np.abs(made).max() < 1e-4


def test_a_mel_that_is_too_loud_is_brought_down_to_one():
  made = griffin_lim(log_mel(struck(), SPEC) + 5, SPEC)
  assert np.abs(made).max() == pytest.approx(1.0)
