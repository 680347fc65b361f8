"""The original sound under a new one: dropped, mixed or a track of its own; and what is left out of
a file."""

import av
import numpy as np
import pytest

from avlink_jax.data.media import mux, original
from avlink_jax.data.media.decode import decode
from avlink_jax.errors import UserError

RATE = 16_000


def tone(hertz, seconds=2.0, rate=RATE):
  return (0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(
      np.float32)


@pytest.fixture
def source(tmp_path):
  """Two seconds with a tone of 440 Hz, and the same once more as another language."""
  plain, path = tmp_path / 'plain.mp4', tmp_path / 'source.mkv'
  frames = np.random.default_rng(0).integers(0, 256, (12, 36, 64, 3), np.uint8)
  mux.write_mp4(plain, frames=frames, fps=6, audio=tone(440), sample_rate=RATE)
  with av.open(str(plain)) as given, av.open(str(path), 'w') as made:
    streams = {s.index: made.add_stream_from_template(s) for s in given.streams}
    other = made.add_stream_from_template(given.streams.audio[0])
    other.metadata['language'] = 'eng'
    other.disposition = 0
    for packet in given.demux():
      if packet.dts is not None:
        stream = packet.stream
        packet.stream = streams[stream.index]
        made.mux(packet)
        if stream.type == 'audio':
          packet.stream = other
          made.mux(packet)
  return path


def loudness(wave, hertz):
  """Amplitude of a tone in a wave."""
  t = np.arange(len(wave)) / RATE
  return 2 * abs(np.mean(wave * np.exp(-2j * np.pi * hertz * t)))


@pytest.mark.parametrize('how, tracks, heard', [
    ('drop', 1, (0, 0.4)), ('mix', 1, (0.4, 0.4)), ('second_track', 2, (0, 0.4))])
def test_the_new_sound_is_there_and_the_own_as_it_was_asked_for(
    source, tmp_path, how, tracks, heard):
  mux.replace_audio(source, tmp_path / 'out.mp4', tone(1000), RATE, how)
  with av.open(str(tmp_path / 'out.mp4')) as container:
    assert len(container.streams.audio) == tracks
    lengths = [float(s.duration * s.time_base) for s in container.streams]
  np.testing.assert_allclose(lengths, 2.0, atol=0.03)
  clip = decode(tmp_path / 'out.mp4', sample_rate=RATE)
  own, new = (loudness(clip.audio[4000:-4000], hertz) for hertz in (440, 1000))
  assert own == pytest.approx(heard[0], abs=0.03) and new == pytest.approx(heard[1], abs=0.03)
  if tracks == 2:
    with av.open(str(tmp_path / 'out.mp4')) as container:
      second = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=1)])
    at = round(48_000 / 440 * 100)
    assert np.abs(second[at:-at]).max() == pytest.approx(0.4, abs=0.05)


def test_what_goes_into_no_new_file_is_named(source):
  assert original.left_out(source, with_sound=False) == ['audio 1', 'audio 2 (eng)']
  assert original.left_out(source, with_sound=True) == ['audio 2 (eng)']


def test_a_silent_film_has_no_sound_of_its_own(tmp_path):
  mux.write_mp4(tmp_path / 'a.mp4', frames=np.zeros((12, 36, 64, 3), np.uint8), fps=6)
  assert original.original_audio(tmp_path / 'a.mp4', RATE) is None
  for how in original.CHOICES:
    mux.replace_audio(tmp_path / 'a.mp4', tmp_path / 'out.mp4', tone(1000), RATE, how)
    assert loudness(decode(tmp_path / 'out.mp4', sample_rate=RATE).audio, 1000) > 0.3


def test_a_mix_is_scaled_down_instead_of_clipped():
  made = original.mixed(np.full((8, 2), 0.8, np.float32), np.full(12, 0.8), RATE, RATE)
  np.testing.assert_allclose(made[:8], 1.0)
  np.testing.assert_allclose(made[8:], 0.5)


def test_another_choice_is_told():
  with pytest.raises(UserError, match='use drop, mix or second_track'):
    original.check('keep')
