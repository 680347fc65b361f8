"""Pictures that move are clips without sound; stills are none."""

import numpy as np
import pytest
from PIL import Image

from avlink_jax.data.media import mux
from avlink_jax.data.media.decode import decode
from avlink_jax.data.sources.folder import Folder
from avlink_jax.errors import MediaError, UserError

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (240, 240, 40)]
LASTS = [200, 50, 300, 450]  # ms
OPTIONS = dict(height=17, width=33, sample_rate=16_000)


def moving(path, lasts=LASTS, **more):
  """Writes a picture of one colour after another, of odd height and width."""
  images = [Image.new('RGB', (33, 17), colour) for colour in COLOURS]
  images[0].save(path, save_all=True, append_images=images[1:], duration=lasts, loop=0, **more)
  return path


@pytest.mark.parametrize('name, options', [
    ('a.gif', {}), ('a.apng', {}), ('a.png', {}), ('a.webp', {'lossless': True})])
def test_each_frame_is_shown_at_its_time_for_as_long_as_it_says(tmp_path, name, options):
  clip = decode(moving(tmp_path / name, **options), need_audio=False)
  np.testing.assert_allclose(clip.frame_times, [0, 0.2, 0.25, 0.55], atol=1e-6)
  assert clip.duration == pytest.approx(1.0) and not len(clip.audio)
  assert clip.frames.shape == (4, 17, 33, 3)
  assert np.abs(clip.frames[:, 8, 16].astype(int) - COLOURS).max() <= 8
  part = decode(tmp_path / name, need_audio=False, start=0.3, duration=0.3)
  assert len(part.frames) == 2 and part.duration == pytest.approx(0.3)


def test_frames_without_a_length_last_a_tenth_of_a_second(tmp_path):
  clip = decode(moving(tmp_path / 'a.gif', lasts=0), need_audio=False)
  np.testing.assert_allclose(clip.frame_times, [0, 0.1, 0.2, 0.3], atol=1e-6)


def test_what_is_transparent_is_white(tmp_path):
  clear, red = Image.new('RGBA', (32, 16)), Image.new('RGBA', (32, 16), (200, 0, 0, 255))
  clear.save(tmp_path / 'a.png', save_all=True, append_images=[red], duration=100)
  frames = decode(tmp_path / 'a.png', need_audio=False).frames
  assert frames[0].min() == 255 and (frames[1, 8, 8] == [200, 0, 0]).all()


def test_stills_and_damage_are_told(tmp_path):
  for name in ('a.png', 'a.gif', 'a.webp'):
    Image.new('RGB', (33, 17)).save(tmp_path / name)
    with pytest.raises(MediaError, match='is an image'):
      decode(tmp_path / name, need_audio=False)
  content = moving(tmp_path / 'b.gif').read_bytes()
  (tmp_path / 'b.gif').write_bytes(content[:len(content) // 2])
  with pytest.raises(MediaError) as caught:
    decode(tmp_path / 'b.gif', need_audio=False)
  assert '\n' not in str(caught.value)


def test_they_are_clips_where_no_sound_is_needed(tmp_path):
  moving(tmp_path / 'a.gif')
  Image.new('RGB', (33, 17)).save(tmp_path / 'poster.png')
  folder = Folder(tmp_path, need_audio=False, **OPTIONS)
  assert [folder.name(i) for i in range(len(folder))] == ['a']
  assert '1 .png (poster.png)' in folder.notes[0] and folder.load(0).frames.shape == (4, 17, 33, 3)
  assert len(Folder(tmp_path / 'a.gif', need_audio=False, **OPTIONS)) == 1
  with pytest.raises(UserError, match='poster.png: is an image; give a folder'):
    Folder(tmp_path / 'poster.png', need_audio=False, **OPTIONS)
  with pytest.raises(UserError, match='no media files'):
    Folder(tmp_path, **OPTIONS)


@pytest.mark.parametrize('lasts', [LASTS, [500, 100, 100, 300]])
def test_one_gets_sound_as_an_ordinary_video(tmp_path, lasts):
  source = moving(tmp_path / 'a.gif', lasts)
  wave = 0.3 * np.sin(np.arange(16_000) * 0.1).astype(np.float32)
  assert mux.replace_audio(source, tmp_path / 'out.mp4', wave, 16_000) == 'h264'
  clip = decode(tmp_path / 'out.mp4')
  np.testing.assert_allclose(clip.frame_times, np.cumsum([0, *lasts[:-1]]) / 1000, atol=2e-3)
  assert clip.duration == pytest.approx(1.0, abs=2e-3)
  assert np.abs(clip.audio).max() > 0.2
