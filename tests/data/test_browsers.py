"""A given video goes into a sample as it is where browsers play it, and else encoded anew."""

from fractions import Fraction

import av
import numpy as np
import pytest

from avlink_jax.data.media import mux
from avlink_jax.data.media.decode import decode
from avlink_jax.samples.folder import write_sample
from avlink_jax.samples.gallery import write_gallery

RATE = 16_000


def film(path, codec, pixels, fps=12, count=12):
  """A moving picture without sound, in a codec and format of pixels."""
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=fps, options={
        'libx265': {'x265-params': 'log-level=error:pools=1:frame-threads=1'}}.get(codec, {}))
    stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
    for n in range(count):
      image = np.full((48, 64, 3), 20 + 15 * n, np.uint8)
      frame = av.VideoFrame.from_ndarray(image, format='rgb24').reformat(format=pixels)
      frame.pts, frame.time_base = n, Fraction(1, fps)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def written(path):
  """Codec and pixels of a file's video."""
  with av.open(str(path)) as container:
    context = container.streams.video[0].codec_context
    return context.name, context.pix_fmt


@pytest.mark.parametrize('codec, pixels, result', [
    ('mpeg4', 'yuv420p', ('h264', 'yuv420p')), ('libx264', 'yuv444p', ('h264', 'yuv420p')),
    ('libx264', 'yuv420p10le', ('h264', 'yuv420p')), ('libx264', 'yuvj420p', ('h264', 'yuvj420p')),
    ('libx265', 'yuv420p10le', ('hevc', 'yuv420p10le'))])
def test_what_browsers_do_not_play_is_encoded_anew(tmp_path, codec, pixels, result):
  source = film(tmp_path / 'a.mp4', codec, pixels)
  name = mux.replace_audio(source, tmp_path / 'b.mp4', np.zeros(RATE, np.float32), RATE)
  assert written(tmp_path / 'b.mp4') == result and name == result[0]
  before, after = (decode(path, need_audio=False) for path in (source, tmp_path / 'b.mp4'))
  np.testing.assert_allclose(after.frame_times, before.frame_times, atol=1e-3)
  assert np.abs(after.frames.astype(int) - before.frames).mean() < 3


def test_the_page_says_what_not_every_browser_plays(tmp_path):
  for name, codec in (('new', 'libx265'), ('old', 'libx264')):
    source = film(tmp_path / f'{name}.mp4', codec, 'yuv420p')
    row = write_sample(tmp_path / 'out', name, source_video=source, sample_rate=RATE,
                       audio=np.zeros(RATE, np.float32))
    assert row.get('video_codec') == ('hevc' if name == 'new' else None)
  write_gallery(tmp_path / 'out')
  assert (tmp_path / 'out' / 'index.html').read_text().count('not every browser plays') == 1
