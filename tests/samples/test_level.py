"""Levels of what is written: nothing clipped, loudness by the standard, noise left where it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avlink_jax.errors import UserError
from avlink_jax.samples import level

RATE = 48_000


def sine(peak, seconds=3.0, rate=RATE, hertz=997.0):
  return (peak * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(
      np.float32)


@pytest.mark.parametrize('rate', [16_000, 48_000])
@pytest.mark.parametrize('peak, lufs', [(1.0, -3.01), (0.1, -23.01), (10 ** (-40 / 20), -43.01)])
def test_loudness_is_the_standards(rate, peak, lufs):
  """BS.1770: a mono sine of 997 Hz at full scale reads −3.01."""
  assert level.loudness(sine(peak, rate=rate), rate) == pytest.approx(lufs, abs=0.05)


@pytest.mark.parametrize(
    'wave', [np.zeros(RATE, np.float32), np.zeros(0, np.float32), sine(1, 0.1)])
def test_what_is_silent_or_too_short_has_no_loudness(wave):
  assert level.loudness(wave, RATE) is None


def test_as_made_only_what_exceeds_full_scale_is_scaled_down():
  quiet, done = level.levelled(sine(0.4), RATE, 'as_made')
  np.testing.assert_array_equal(quiet, sine(0.4))
  assert done == {'peak': pytest.approx(0.4, abs=1e-3), 'gain_db': 0.0,
                  'rms': pytest.approx(0.4 / 2**0.5, abs=1e-3)}
  loud, done = level.levelled(sine(4.55), RATE, 'as_made')
  assert np.abs(loud).max() == pytest.approx(10 ** (-1 / 20), abs=1e-3)
  assert done['peak'] == pytest.approx(4.55, abs=0.01) and done['gain_db'] < -14
  np.testing.assert_allclose(loud / np.abs(loud).max(), sine(1), atol=1e-3)  # not clipped


def test_a_loudness_is_reached_where_the_peak_allows():
  made, done = level.levelled(sine(0.1), RATE, '-16LUFS')
  assert level.loudness(made, RATE) == pytest.approx(-16, abs=0.1)
  assert done['gain_db'] == pytest.approx(7.0, abs=0.1)
  click = np.zeros(3 * RATE, np.float32)
  click[::RATE] = 0.5
  made, _ = level.levelled(click, RATE, '-16 lufs')
  assert np.abs(made).max() == pytest.approx(10 ** (-1 / 20), abs=1e-3)


@settings(deadline=None)
@given(st.floats(0, 30), st.sampled_from(['as_made', 'peak', '-23LUFS', '-9LUFS']))
def test_nothing_is_clipped_and_noise_is_not_raised(peak, how):
  made, done = level.levelled(sine(peak, 0.6), RATE, how)
  assert np.abs(made).max(initial=0) <= 1 and done['gain_db'] <= level.MOST
  if peak < 1e-3:
    np.testing.assert_array_equal(made, sine(peak, 0.6))


@pytest.mark.parametrize('how', ['loud', '16LUFS', '-16', ''])
def test_another_level_is_told(how):
  with pytest.raises(UserError, match='use as_made, peak, or a loudness such as -16LUFS'):
    level.check(how)
