"""Bad data ends in a reason, never in a crash, a hang, or memory without bound.

Long versions: python -m tests.benchmarks.damaged.
"""

import collections
import json
import struct
import time
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from damage import damaged, damages
from hypothesis import given, settings
from hypothesis import strategies as st
from made_clips import make_avi, make_clip, steady
from micro import build, micro_config

from avlink_jax.codecs.pixels import Pixels
from avlink_jax.data import pipeline
from avlink_jax.data.batch import Layout
from avlink_jax.data.clip import Clip
from avlink_jax.data.examples import ENOUGH, Examples, attempts
from avlink_jax.data.media import decode as media
from avlink_jax.data.media import limits, mux
from avlink_jax.data.sources.captions import LONGEST_CAPTION
from avlink_jax.data.sources.folder import Folder
from avlink_jax.errors import MediaError, UserError
from avlink_jax.sampling.inputs import own_clips, read_prompts
from tests.benchmarks import damaged as benchmark

RATE = 16000


def reason_of(path, **options):
  with pytest.raises(MediaError) as caught:
    media.decode(path, **{'height': 36, 'width': 64, **options})
  return caught.value.reason


# -- damaged files

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Small whole files of several kinds."""
  folder = tmp_path_factory.mktemp('whole')
  make_clip(folder / 'a.mp4', steady(24, 1.5))
  make_clip(folder / 'b.mkv', steady(24, 1.5))
  make_avi(folder / 'c.avi', 25)
  for name in ('d.wav', 'e.flac'):
    soundfile.write(folder / name, 0.3 * np.sin(np.arange(RATE) * 0.05), RATE)
  return {path: path.read_bytes() for path in sorted(folder.iterdir())}


def test_randomly_damaged_files_are_clips_or_are_refused(whole, tmp_path):
  @settings(max_examples=60, deadline=None)
  @given(st.sampled_from(list(whole)), damages(), st.booleans())
  def holds(path, ways, need_video):
    broken = tmp_path / path.name
    broken.write_bytes(damaged(whole[path], list(whole.values()), ways))
    began = time.monotonic()
    try:
      clip = media.decode(broken, height=36, width=64, max_fps=6, need_video=need_video,
                          need_audio=False)
    except MediaError as error:
      assert error.reason and '\n' not in error.reason
    else:
      assert np.isfinite(clip.audio).all() and np.abs(clip.audio).max(initial=0) <= 1
      assert len(clip.frames) == len(clip.frame_times) and 0 < clip.duration < limits.MAX_LENGTH
    assert time.monotonic() - began < 20

  holds()


def test_the_benchmark_of_damaged_files_loses_none(whole, capsys):
  assert benchmark.files(next(iter(whole)).parent, 6, 1) == 0
  assert '6 damaged files tried, 6 survived, 0 lost' in capsys.readouterr().out


def test_a_crash_is_counted_as_lost_by_the_benchmark(monkeypatch):
  dies = ['bash', '-c', 'read line; kill -SEGV $$']
  started = benchmark.subprocess.Popen
  monkeypatch.setattr(benchmark.subprocess, 'Popen', lambda _, **kw: started(dies, **kw))
  assert benchmark.Worker()('any.mp4')['picture'] == 'LOST: a crash'


# -- time

def test_a_decode_that_takes_too_long_is_abandoned(tmp_path, monkeypatch):
  make_clip(tmp_path / 'clip.mp4', steady(24))
  add = media._VideoTrack.add
  monkeypatch.setattr(media._VideoTrack, 'add', lambda *args: (time.sleep(0.1), add(*args)))
  began = time.monotonic()
  assert reason_of(tmp_path / 'clip.mp4', decode_seconds=0.5) == 'decoding takes more than 0.5 s'
  assert time.monotonic() - began < 3  # of the 7 that it would have taken


def test_opening_that_takes_too_long_is_abandoned(tmp_path):
  make_clip(tmp_path / 'clip.mp4', steady(24))
  assert reason_of(tmp_path / 'clip.mp4', decode_seconds=0.0) == 'opening takes more than 0 s'


def test_the_config_says_how_long_a_decode_may_take(tmp_path):
  make_clip(tmp_path / 'clip.mp4', steady(24))
  config = micro_config('v2a', **{'data.source': str(tmp_path), 'data.decode_seconds': 0.0})
  models, task = build(config)
  for source in (pipeline.open_source(config, models.layout, 'train', task.reads),
                 own_clips(tmp_path, config, models.layout, {'video'})):
    with pytest.raises(MediaError, match='takes more than 0 s'):
      source.load(0)


# -- memory

def peak_of(call):
  """Bytes of Python's and NumPy's memory that a call takes."""
  tracemalloc.start()
  try:
    call()
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize('rate', [1, 2**31 - 1])
@pytest.mark.parametrize('with_picture', [False, True])
def test_a_sound_of_an_impossible_rate_takes_no_memory(tmp_path, rate, with_picture):
  """One second at 1 Hz is eleven days at 16 kHz's size; two at 2 GHz are sixteen gigabytes."""
  path, reasons = tmp_path / ('clip.avi' if with_picture else 'clip.wav'), []
  if with_picture:
    with av.open(str(path), 'w') as container:
      picture = container.add_stream('mpeg4', rate=10)
      picture.width, picture.height, picture.pix_fmt = 64, 36, 'yuv420p'
      sound = container.add_stream('pcm_s16le', rate=RATE, layout='mono')
      for n in range(20):
        frame = av.VideoFrame.from_ndarray(np.full((36, 64, 3), n, np.uint8), format='rgb24')
        container.mux(picture.encode(frame))
      container.mux(picture.encode())
      frame = av.AudioFrame.from_ndarray(np.ones((1, 2 * RATE), np.int16), 's16', 'mono')
      frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
      container.mux(sound.encode(frame) + sound.encode())
  else:
    soundfile.write(path, np.ones(60 * RATE, np.float32) / 2, RATE)
  content = path.read_bytes()
  claim = struct.pack('<I', RATE)
  assert claim in content
  path.write_bytes(content.replace(claim, struct.pack('<I', rate)))
  began = time.monotonic()
  assert peak_of(lambda: reasons.append(reason_of(path, need_video=with_picture))) < 50 << 20
  assert time.monotonic() - began < 20 and f'{rate:,} Hz' in reasons[0]


def test_a_picture_larger_than_any_camera_takes_is_refused(tmp_path, monkeypatch):
  make_avi(tmp_path / 'clip.avi', 10)
  with pytest.raises(limits.Unusable, match='100,000 × 100,000'):
    limits.check_frame_size(100_000, 100_000)
  monkeypatch.setattr(limits, 'MAX_PIXELS', 1000)
  assert reason_of(tmp_path / 'clip.avi', need_audio=False) == (
      'too large: a picture of 64 × 36 pixels')
  # The decoder is told as well: what a stream holds need not be what its file says.
  monkeypatch.setattr(media, 'MAX_PIXELS', 1000)
  monkeypatch.setattr(limits, 'MAX_PIXELS', 1 << 30)
  assert reason_of(tmp_path / 'clip.avi', need_audio=False) == 'corrupt stream'


def test_frames_and_sound_are_kept_up_to_a_bound(tmp_path, monkeypatch):
  make_clip(tmp_path / 'clip.mp4', steady(24))
  monkeypatch.setattr(limits, 'MAX_BYTES', 400_000)
  assert reason_of(tmp_path / 'clip.mp4').startswith('too large: decoded it takes more than')
  assert len(media.decode(tmp_path / 'clip.mp4', height=9, width=16, duration=0.5).frames) == 12
  assert reason_of(tmp_path / 'clip.mp4', need_video=False).startswith('too large')


def test_a_clip_without_end_is_refused(tmp_path):
  path = tmp_path / 'clip.mkv'
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=1)
    stream.width, stream.height, stream.pix_fmt = 64, 36, 'yuv420p'
    for n in range(40):
      frame = av.VideoFrame.from_ndarray(np.full((36, 64, 3), n, np.uint8), format='rgb24')
      frame.pts = 590 * n
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  assert reason_of(path, need_audio=False) == 'longer than 4 h'


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_sound_that_is_not_finite_is_refused(tmp_path, value):
  """One such number in a batch, and the run's weights are gone."""
  wave = np.zeros(RATE, np.float32)
  wave[500] = value
  soundfile.write(tmp_path / 'a.wav', wave, RATE, subtype='FLOAT')
  assert reason_of(tmp_path / 'a.wav', need_video=False) == (
      'its sound holds values that are not finite')


# -- more broken clips than whole ones

class Source:
  """Clips of half a second, of which those in `broken` cannot be read."""

  def __init__(self, size, broken):
    self._size, self._broken = size, set(broken)

  def __len__(self):
    return self._size

  def name(self, i):
    return f'clip{i}'

  def load(self, i):
    if i in self._broken:
      raise MediaError(f'clip{i}.mp4', 'corrupt stream')
    return Clip(f'clip{i}', 0.5, np.zeros((3, 4, 8, 3), np.uint8), np.arange(3) / 6,
                np.zeros(RATE // 2, np.float32), RATE)


def examples_of(source, max_broken=0.5):
  return Examples(source, Layout(0.5, 6.0, 4, 8), (Pixels('video', 6.0),), 1 << 20, 0.1, max_broken)


def drawn(examples, steps, batch_size=2):
  return list(pipeline.train_batches(
      examples, {}, seed=0, batch_size=batch_size, first_step=0, last_step=steps))


def test_above_the_share_of_broken_clips_the_run_stops_and_says_which():
  examples = examples_of(Source(100, range(0, 100, 4)), max_broken=0.1)
  with pytest.raises(UserError) as caught:
    drawn(examples, 50)
  line = str(caught.value)
  assert 'clips cannot be used, more than data.max_broken=0.1 allows: clip' in line
  assert line.count('corrupt stream') == 3 and '\n' not in line
  assert ENOUGH <= int(line.split()[4]) < 60  # not after all of them


def test_below_the_share_of_broken_clips_they_are_replaced():
  batches = drawn(examples_of(Source(100, range(0, 100, 4)), max_broken=0.5), 50)
  skipped = {row for _, meta in batches for row in meta.skipped}
  assert len(batches) == 50 and len(skipped) == 25


def test_a_few_broken_clips_at_first_are_no_share_yet():
  examples = examples_of(Source(1000, range(10)))
  for i in range(0, 9, 2):
    assert int(examples(i)[1].removeprefix('clip')) >= 10
  with pytest.raises(UserError, match='20 of the first 20'):
    everything = examples_of(Source(1000, range(1000)))
    everything(0)


def test_of_a_small_folder_all_clips_are_tried_first():
  assert examples_of(Source(5, [0, 1]))(0)[1] in ('clip2', 'clip3', 'clip4')
  with pytest.raises(UserError, match='4 of the first 5'):
    examples = examples_of(Source(5, [0, 1, 2, 3]))
    for i in range(5):
      examples(i)


# -- replacements

def test_no_clip_serves_for_all_broken_ones():
  """The neighbour of a dozen broken clips would be half of the examples."""
  batches = drawn(examples_of(Source(24, range(12)), 1.0), 72)
  served = collections.Counter(id for _, meta in batches for id in meta.ids)
  assert len(served) == 12 and max(served.values()) < 2.5 * 144 / 12


def test_an_example_of_another_clip_is_counted_once_however_many_were_tried():
  source = Source(24, range(12))
  order = pipeline.order_of(source, 0)
  batches = drawn(examples_of(source, 1.0), 36)
  expected = [sum(order(2 * step + row)[0] < 12 for row in range(2)) for step in range(36)]
  assert [meta.replaced for _, meta in batches] == expected
  assert sum(len(meta.skipped) for _, meta in batches) > sum(expected)


def test_replacements_are_the_same_for_hosts_and_after_a_restart():
  def ids(first=0, rows=None):
    return [meta.ids for _, meta in pipeline.train_batches(
        examples_of(Source(24, range(12)), 1.0), {}, seed=0, batch_size=4, first_step=first,
        last_step=12, rows=rows)]
  alone = ids()
  assert ids(first=7) == alone[7:]
  hosts = [ids(rows=np.arange(2) + 2 * host) for host in range(2)]
  assert [a + b for a, b in zip(*hosts, strict=True)] == alone


def test_an_example_does_not_depend_on_what_was_read_before():
  asked = [(index, seed) for index in range(24) for seed in (1, 2)]
  forth, back = examples_of(Source(24, range(12)), 1.0), examples_of(Source(24, range(12)), 1.0)
  assert [forth(*each)[1] for each in asked] == [back(*each)[1] for each in asked[::-1]][::-1]


@pytest.mark.parametrize('seed', [None, 7, (3, 5)])
def test_every_clip_is_tried_before_none_is_left(seed):
  assert sorted(attempts(2, 9, seed)) == list(range(9))
  assert next(attempts(2, 9, seed)) == 2


# -- captions

def test_captions_of_any_kind_reach_the_page_as_text(capsys):
  assert benchmark.captions(300, 5) == 0
  assert '300 captions tried, 300 survived, 0 lost' in capsys.readouterr().out


def test_captions_of_megabytes_are_cut_and_that_is_said(tmp_path):
  for name in 'ab':
    (tmp_path / f'{name}.mp4').touch()
  marks = '\u0301\u0316' * (2 << 20)  # putting these in order would take hours
  (tmp_path / 'captions.csv').write_text(
      f'file,caption\na.mp4,"{"x" * (5 << 20)}"\nb.mp4,{marks}\n')
  began = time.monotonic()
  folder = Folder(tmp_path, height=8, width=8, sample_rate=RATE)
  assert [len(folder.caption(i)) for i in range(2)] == [LONGEST_CAPTION] * 2
  assert '2 of 2 rows have captions longer than 10,000 signs' in folder.notes[0]
  assert time.monotonic() - began < 20


@pytest.mark.parametrize('content', [
    b'file,caption\na.mp4,"never closed\n' + b'x,y\n' * 1000, b'file,caption\n' + b'\0' * 5000,
    b'file,caption\n' + b',' * 100_000, b'file,caption\na.mp4' + b'"' * 99_999])
def test_a_table_that_is_no_table_breaks_nothing(tmp_path, content):
  (tmp_path / 'a.mp4').touch()
  (tmp_path / 'captions.csv').write_bytes(content)
  try:
    folder = Folder(tmp_path, height=8, width=8, sample_rate=RATE)
    assert '\n' not in ''.join(folder.notes)
    assert len(folder.caption(0)) <= LONGEST_CAPTION
  except UserError as error:
    assert '\n' not in str(error)


def test_features_that_claim_to_be_huge_are_refused(tmp_path, monkeypatch):
  from avlink_jax.data.sources import features
  make = np.zeros((4, 8), np.float32)
  np.savez_compressed(tmp_path / 'a.npz', features=np.zeros((100_000, 8), np.float32))
  monkeypatch.setattr(features, 'MAX_BYTES', 1 << 20)
  with pytest.raises(MediaError, match='more than'):
    features.read(tmp_path / 'a.mp4', 8, 6.0)
  np.savez(tmp_path / 'b.npz', features=make)
  content = (tmp_path / 'b.npz').read_bytes()
  (tmp_path / 'b.npz').write_bytes(content.replace(b'(4, 8)', b'(4000000000000000, 8)'[:6]))
  with pytest.raises(MediaError, match='cannot be read'):
    features.read(tmp_path / 'b.mp4', 8, 6.0)


def test_prompts_of_megabytes_are_told(tmp_path):
  task = build(micro_config('t2a'))[1]
  with pytest.raises(UserError, match='10,485,760 signs'):
    read_prompts('x' * (10 << 20), task)
  (tmp_path / 'said.txt').write_text(json.dumps(['y' * 20_000]))
  with pytest.raises(UserError, match='give at most 10,000'):
    read_prompts(str(tmp_path / 'said.txt'), task)


def test_a_given_file_of_a_clip_that_cannot_be_decoded_leaves_no_output(tmp_path):
  make_clip(tmp_path / 'clip.mp4', steady(24))
  content = (tmp_path / 'clip.mp4').read_bytes()
  (tmp_path / 'clip.mp4').write_bytes(content[:len(content) // 2])
  with pytest.raises(MediaError):
    mux.replace_audio(tmp_path / 'clip.mp4', tmp_path / 'out.mp4', np.zeros(RATE), RATE)
  assert [path.name for path in tmp_path.iterdir()] == ['clip.mp4']
