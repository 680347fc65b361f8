"""Audio of networks is resampled by the windowed sinc that public evaluations take."""

import numpy as np
import pytest
import soundfile
from test_networks import noise, off

from avlink_jax.metrics.networks import embedding, windowed_sinc


@pytest.mark.parametrize('old, new', [(16000, 32000), (44100, 16000), (48000, 32000),
                                      (8000, 44100)])
def test_it_is_the_sum_over_all_samples(old, new):
  wave = noise(400)
  cutoff = 0.99 * min(old, new)
  times = np.arange(-(-400 * new // old)) / new
  phase = np.clip((times[:, None] - np.arange(400) / old) * cutoff, -6, 6)
  weight = np.where(phase == 0, 1.0, np.sin(np.pi * phase) / np.where(phase == 0, 1, np.pi * phase))
  expected = (weight * np.cos(np.pi * phase / 12) ** 2) @ wave * cutoff / old
  found = windowed_sinc.resample(wave, old, new)
  assert found.shape == expected.shape and off(found, expected) < 1e-5


def test_equal_rates_nothing_and_odd_rates():
  wave = noise(1000)
  assert np.array_equal(windowed_sinc.resample(wave, 16000, 16000), wave)
  assert len(windowed_sinc.resample(wave[:0], 8000, 16000)) == 0
  assert abs(len(windowed_sinc.resample(wave, 22051, 16000)) - 726) <= 1


def test_a_clip_is_cut_after_it_was_resampled(tmp_path):
  wave = noise(44100 * 2) * 0.5
  soundfile.write(tmp_path / 'a.wav', wave, 44100, subtype='FLOAT')
  expected = windowed_sinc.resample(wave, 44100, 16000)[:16000]
  found = embedding.read_audio(tmp_path / 'a.wav', 1.0, 16000, windowed=True)
  assert len(found) == 16000 and off(found, expected) < 1e-5


def test_what_is_centred_lacks_the_mean_of_the_whole_file(tmp_path):
  wave = noise(44100 * 2) * 0.3
  wave[44100:] += 0.4  # after the cut
  soundfile.write(tmp_path / 'a.wav', wave, 44100, subtype='FLOAT')
  for rate in (16000, 44100):
    expected = windowed_sinc.resample(wave - wave.mean(), 44100, rate)[:rate]
    found = embedding.read_audio(tmp_path / 'a.wav', 1.0, rate, windowed=True, centred=True)
    assert off(found, expected) < 1e-5
