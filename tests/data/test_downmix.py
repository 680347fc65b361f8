"""Whatever its channels are, a clip's sound reaches the model."""

import av
import numpy as np
import pytest
import soundfile

from avlink_jax.data.media import mux
from avlink_jax.data.media.decode import decode, decode_audio
from avlink_jax.data.media.downmix import cancelled, mono

RATE = 48_000
WAVE = (0.4 * np.sin(np.arange(RATE) * 0.05)).astype(np.float32)
OTHER = (0.2 * np.sin(np.arange(RATE) * 0.013)).astype(np.float32)
NONE = np.zeros_like(WAVE)
FRAMES = np.zeros((6, 36, 64, 3), np.uint8)


def level(wave):
  """RMS, but for the ends."""
  return float(np.sqrt(np.mean(np.square(wave[200:-200]))))


def surround(path, *channels):
  """A WAVE_FORMAT_EXTENSIBLE of 5.1: front left, right, centre, low, back left, right."""
  with av.open(str(path), 'w', format='wav') as container:
    stream = container.add_stream('pcm_s16le', rate=RATE, layout='5.1')
    samples = np.round(np.stack(channels, 1) * 32767).astype(np.int16).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(samples, 's16', '5.1')
    frame.sample_rate, frame.pts = RATE, 0
    container.mux(stream.encode(frame) + stream.encode())
  return path


def heard(path, **options):
  return decode(path, need_video=False, sample_rate=RATE, **options).audio


@pytest.mark.parametrize('factor', [-1.0, -0.9])
def test_counter_phase_is_heard_by_its_loudest_channel(tmp_path, factor):
  mux.write_mp4(tmp_path / 'a.mp4', frames=FRAMES, fps=6, sample_rate=RATE,
                audio=np.stack([factor * WAVE, WAVE], 1))
  clip = decode(tmp_path / 'a.mp4', sample_rate=RATE)
  assert len(clip.audio) == RATE and len(clip.frames) == 6
  assert level(clip.audio) == pytest.approx(level(WAVE), rel=0.02)
  part = decode(tmp_path / 'a.mp4', sample_rate=RATE, start=0.25, duration=0.5)
  np.testing.assert_allclose(part.audio, clip.audio[RATE // 4:3 * RATE // 4], atol=0.01)


def test_what_only_some_sound_cancels_of_is_mixed_as_ever(tmp_path):
  soundfile.write(tmp_path / 'a.wav', np.stack([WAVE + OTHER, OTHER - WAVE], 1), RATE)
  np.testing.assert_allclose(heard(tmp_path / 'a.wav'), OTHER, atol=1e-3)
  soundfile.write(tmp_path / 'left.wav', np.stack([WAVE, NONE], 1), RATE)
  np.testing.assert_allclose(heard(tmp_path / 'left.wav'), WAVE / 2, atol=1e-3)
  soundfile.write(tmp_path / 'none.wav', np.stack([NONE, NONE], 1), RATE)
  assert not heard(tmp_path / 'none.wav').any()


def test_a_centre_alone_keeps_its_level_within_3_db(tmp_path):
  path = surround(tmp_path / 'a.wav', NONE, NONE, WAVE, NONE, NONE, NONE)
  np.testing.assert_allclose(heard(path), WAVE * 0.5 ** 0.5, atol=1e-3)
  np.testing.assert_allclose(decode_audio(path, sample_rate=RATE)[:, 0], heard(path), atol=1e-6)


@pytest.mark.parametrize('place, weight', [(0, 0.5), (1, 0.5), (4, 0.5 ** 1.5), (5, 0.5 ** 1.5)])
def test_other_channels_have_the_customary_weights(tmp_path, place, weight):
  channels = [NONE] * 6
  channels[place] = WAVE
  np.testing.assert_allclose(heard(surround(tmp_path / 'a.wav', *channels)), WAVE * weight,
                             atol=1e-3)


def test_low_frequencies_are_heard_where_there_is_nothing_else(tmp_path):
  path = surround(tmp_path / 'a.wav', NONE, NONE, NONE, WAVE, NONE, NONE)
  np.testing.assert_allclose(heard(path), WAVE, atol=1e-3)


def test_channels_that_add_up_to_more_than_full_scale_are_scaled_not_clipped(tmp_path):
  path = surround(tmp_path / 'a.wav', *[WAVE * 2] * 6)
  np.testing.assert_allclose(heard(path), WAVE / 0.4, atol=0.01)


def test_waves_from_python_are_mixed_alike():
  np.testing.assert_array_equal(mono(np.stack([WAVE, -WAVE], 1), RATE), WAVE)
  np.testing.assert_allclose(mono(np.stack([WAVE, OTHER], 1), RATE), (WAVE + OTHER) / 2, atol=1e-7)


def test_counter_phase_in_surround_is_heard_by_its_loudest_channel(tmp_path):
  path = surround(tmp_path / 'a.wav', WAVE, -WAVE, NONE, NONE, NONE, NONE)
  np.testing.assert_allclose(heard(path), WAVE, atol=1e-3)
  np.testing.assert_allclose(decode_audio(path, sample_rate=RATE)[:, 0], WAVE, atol=1e-3)


# -- in a part

LONG = (0.4 * np.sin(np.arange(4 * RATE) * 0.05)).astype(np.float32)


def turned(begin, end):
  """Stereo (S, 2) that is in counter-phase from `begin` to `end` seconds."""
  right = LONG.copy()
  right[round(begin * RATE):round(end * RATE)] *= -1
  return np.stack([LONG, right], 1)


@pytest.mark.parametrize('begin, end', [(0, 1.73), (1.03, 2.48), (2.21, 4), (0, 4)])
def test_counter_phase_in_a_part_is_heard_there_without_a_click_at_its_seams(tmp_path, begin, end):
  """Both halves hold the same tone: it goes on as if nothing had happened."""
  soundfile.write(tmp_path / 'a.wav', turned(begin, end), RATE, 'FLOAT')
  np.testing.assert_allclose(heard(tmp_path / 'a.wav'), LONG, atol=1e-5)
  np.testing.assert_allclose(mono(turned(begin, end), RATE), LONG, atol=1e-6)


def test_a_window_of_a_long_file_is_heard_as_in_the_whole(tmp_path):
  mux.write_mp4(tmp_path / 'a.mp4', frames=FRAMES.repeat(4, 0), fps=6, sample_rate=RATE,
                audio=turned(1.6, 3.3))
  whole = decode(tmp_path / 'a.mp4', sample_rate=RATE).audio
  assert level(whole[2 * RATE:3 * RATE]) == pytest.approx(level(WAVE), rel=0.02)
  for start in (0.0, 1.5, 2.0, 3.0):
    part = decode(tmp_path / 'a.mp4', sample_rate=RATE, start=start, duration=1.0).audio
    at = round(start * RATE)
    np.testing.assert_allclose(part, whole[at:at + RATE], atol=0.01)


def test_of_the_rest_the_mix_stays_and_a_seam_is_no_step():
  """Two tones, one of them in counter-phase in the second half."""
  rest = np.concatenate([OTHER, OTHER])
  stereo = np.concatenate([np.stack([rest, rest * 0.2], 1), np.stack([rest, -0.95 * rest], 1)])
  mixed = mono(stereo, RATE)
  half = len(rest)
  np.testing.assert_allclose(mixed[:half - RATE // 5], 0.6 * rest[:-RATE // 5], atol=1e-6)
  np.testing.assert_allclose(mixed[half:], rest, atol=1e-6)
  assert np.abs(np.diff(mixed)).max() < 1.2 * np.abs(np.diff(rest)).max()


def test_pauses_end_no_stretch_and_each_has_its_loudest_channel():
  hits = WAVE * (np.arange(RATE) % (RATE // 4) < RATE // 10)
  stereo = np.concatenate([np.stack([hits, -0.9 * hits], 1), np.stack([WAVE, WAVE], 1),
                           np.stack([0.9 * hits, -hits], 1)])
  begins = [(round(each.begin, 2), each.channel) for each in cancelled(stereo, RATE)]
  assert begins == [(-0.05, 0), (1.95, 1)]


def test_what_is_wide_but_does_not_cancel_is_left_alone():
  """Slow rumble, whose channels have nothing in common, cancels for moments in any recording."""
  rng = np.random.default_rng(0)
  slow = np.cumsum(rng.standard_normal((10 * 4000, 2)), axis=0) * 1e-3
  slow -= slow.mean(axis=0)
  wide = rng.standard_normal((10 * 4000, 2)) * 0.1
  for stereo in (slow, wide, np.stack([LONG, 0 * LONG], 1), np.stack([LONG, -0.5 * LONG], 1)):
    assert cancelled(stereo, 4000) == ()
    np.testing.assert_array_equal(mono(stereo, 4000), stereo.mean(axis=1, dtype=np.float32))


def test_a_loud_blow_of_low_frequencies_alone_does_not_silence_the_others(tmp_path):
  blow = WAVE * (np.arange(RATE) > RATE // 4) * (np.arange(RATE) < 3 * RATE // 4)
  path = surround(tmp_path / 'a.wav', OTHER, OTHER, NONE, 2 * blow, NONE, NONE)
  np.testing.assert_allclose(heard(path), OTHER, atol=1e-3)
