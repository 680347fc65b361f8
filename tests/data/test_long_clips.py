"""Long clips of a folder that memory cannot keep: only what is shown is decoded, and it is the same
as of whole clips."""

import numpy as np
import pytest
from made_clips import make_clip, steady

from avlink_jax.codecs.pixels import Pixels
from avlink_jax.data.batch import Layout
from avlink_jax.data.examples import LONG, Examples
from avlink_jax.data.sources.folder import Folder


class Wave:
  """Reader of waves as they are."""
  medium = reads = 'audio'

  def read(self, wave, real, layout):
    return {'wave': wave, 'wave_mask': real}


READERS = (Pixels('video', 6.0), Wave())
LAYOUT = Layout(0.7, 6.0, 36, 64)
SECONDS = 3.0
LARGE, SMALL = 1 << 30, 1 << 16  # memory for all clips, and for none


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Two clips of 3 s at 30 frames a second that vary all the time."""
  path = tmp_path_factory.mktemp('long')
  for n in range(2):
    make_clip(path / f'{n}.mp4', steady(30, SECONDS), flash=50, options={'g': '12', 'crf': '10'})
  return path


def source_of(folder, **options):
  return Folder(folder, height=36, width=64, sample_rate=16000, max_fps=30.0, part_fps=LAYOUT.fps,
                **options)


def examples_of(source, memory, layout=LAYOUT):
  return Examples(source, layout, READERS, memory, 0.3, 0.5)


@pytest.fixture
def decoded(monkeypatch):
  """[(start, seconds) of what is decoded], from now on; None: to the end."""
  asked, load = [], Folder.load
  monkeypatch.setattr(Folder, 'load', lambda self, i, start=0.0, duration=None, **options: (
      asked.append((start, duration)) or load(self, i, start, duration, **options)))
  return asked


def test_parts_show_what_whole_clips_show(folder, decoded):
  source = source_of(folder)
  whole, parts = (examples_of(source, memory) for memory in (LARGE, SMALL))
  for seed in range(6):
    a, b = (of(seed % 2, (3, seed))[0] for of in (whole, parts))
    for name in ('video', 'video_mask', 'wave_mask'):
      np.testing.assert_array_equal(a[name], b[name])
    edge = 200  # samples at which the resampler, begun before the part, has no more to go on
    np.testing.assert_allclose(a['wave'][edge:-edge], b['wave'][edge:-edge], atol=0.01)
  in_parts = [row for row in decoded if row[1] is not None]
  assert decoded.count((0.0, None)) == 2  # once each: they are kept
  assert len({start for start, _ in in_parts}) == 6 and {n for _, n in in_parts} == {0.7}


def test_a_part_holds_only_the_frames_that_are_shown(folder):
  cut = source_of(folder).load_part(0, 1.0, 0.7)
  assert len(cut.frames) == LAYOUT.frames == 5  # of 21


@pytest.mark.parametrize('memory, layout', [
    (LARGE, LAYOUT), (SMALL, Layout(1.01 * SECONDS / LONG, 6.0, 36, 64))],
    ids=['they fit', 'not long'])
def test_whole_clips_are_read_where_that_costs_little(folder, decoded, memory, layout):
  examples_of(source_of(folder), memory, layout)(0, (0, 1))
  assert decoded == [(0.0, None)]


def test_vectors_of_whole_clips_have_no_parts(folder):
  assert source_of(folder).bytes_per_second > 0
  assert source_of(folder, features=8, features_rate=6.0).bytes_per_second == 0
