"""Both sides of a pair are compared at one size and rate, and what they are is told."""

import json

import numpy as np
import pytest

from avlink_jax.data import clip as clips
from avlink_jax.data.impacts import Impacts
from avlink_jax.data.media import mux
from avlink_jax.data.media.decode import decode
from avlink_jax.data.media.own_rates import Shape, in_own_rates, shape_of
from avlink_jax.evaluate import evaluate, summary
from avlink_jax.evaluation.common import View, thinned, view_of
from avlink_jax.samples.folder import write_sample


@pytest.mark.parametrize('generated, reference, enlarged, view', [
    ((288, 512, 24), (720, 1280, 30), (1, 1), (288, 512, 24)),
    ((288, 512, 24), (240, 320, 25), (1, 1), (180, 320, 24)),  # it covers no more than that
    ((144, 256, 6), (288, 512, 24), (4, 1), (36, 64, 6)),
    ((144, 256, 6), (144, 256, 6), (4, 1), (144, 256, 6)),  # one size in the files: theirs
    ((288, 512, 0), (288, 512, 24), (1, 1), (288, 512, 24))])
def test_neither_side_is_larger_or_faster_than_it_was(generated, reference, enlarged, view):
  assert view_of(Shape(*generated, 0), Shape(*reference, 0), enlarged) == View(*view)


@pytest.mark.parametrize('fps, common, used', [
    (24, 6, 6), (30, 6, 6), (60, 25, 30), (30, 25, None), (24, 23.976, None), (25, 0, None)])
def test_motion_is_measured_of_every_nth_frame(fps, common, used):
  assert thinned(fps, View(36, 64, common)) == used


def moving(count, height, width):
  """Frames with a bright bar that moves."""
  frames = np.full((count, height, width, 3), 40, np.uint8)
  for n, frame in enumerate(frames):
    at = width * n // (count + 1)
    frame[:, at:at + width // 8] = 220
  return frames


def test_small_slow_clips_and_large_fast_references_are_compared_as_the_small_ones(tmp_path):
  for name in 'ab':
    write_sample(tmp_path / 'g', name, frames=moving(12, 36, 64), fps=6, generated=['video'])
    write_sample(tmp_path / 'r', name, frames=moving(48, 288, 512), fps=24)
  assert json.loads((tmp_path / 'g' / 'manifest.jsonl').read_text().split('\n')[0])['enlarged'] == 4
  result = evaluate(str(tmp_path / 'g'), str(tmp_path / 'r'), str(tmp_path / 'scores.json'))
  assert result['protocol']['pictures'] == [{
      'generated': '256×144 at 6 fps', 'reference': '512×288 at 24 fps',
      'compared': '64×36 at 6 fps', 'clips': 2}]
  assert any('2 pairs differ in size or frame rate' in line for line in result['warnings'])
  assert 'compared at the smaller ones' in summary(result)
  same = evaluate(str(tmp_path / 'r'), str(tmp_path / 'r'))
  assert not any('differ' in line for line in same['warnings'])


def test_networks_see_both_sides_alike(tmp_path):
  from avlink_jax.metrics.networks.embedding import read_frames
  large = moving(48, 288, 512)
  mux.write_mp4(tmp_path / 'large.mp4', frames=large, fps=24)
  mux.write_mp4(tmp_path / 'small.mp4', fps=6, frames=large[::4, ::8, ::8])
  view = view_of(shape_of(tmp_path / 'small.mp4'), shape_of(tmp_path / 'large.mp4'))
  one, other = (read_frames(tmp_path / f'{name}.mp4', 2.0, 12, view)
                for name in ('small', 'large'))
  assert one.shape == other.shape == (24, 36, 64, 3)
  assert np.abs(one.astype(int) - other).mean() < 6
  assert (other[::2] == other[1::2]).all()  # held, as the small one's frames are
  assert (other[0] != other[2]).any()


def test_sound_at_a_lower_rate_is_told(tmp_path):
  sound = np.random.default_rng(0).uniform(-0.5, 0.5, 96_000).astype(np.float32)
  mux.write_wav(tmp_path / 'g' / 'a.wav', sound[:32_000], 16_000)
  mux.write_wav(tmp_path / 'r' / 'a.wav', sound, 48_000)
  result = evaluate(str(tmp_path / 'g'), str(tmp_path / 'r'))
  assert result['protocol']['sample_rates'] == {'generated': [16_000], 'reference': [48_000]}
  assert any('above 8000 Hz' in line for line in result['warnings'])


def test_a_files_own_rates(tmp_path):
  sound = np.sin(np.arange(96_000) * 0.05).astype(np.float32)
  mux.write_mp4(tmp_path / 'a.mp4', frames=moving(60, 324, 576), fps=30, audio=sound,
                sample_rate=48_000)
  seen = decode(tmp_path / 'a.mp4', height=36, width=64, max_fps=6, duration=1.5)
  own = in_own_rates(tmp_path / 'a.mp4', seen)
  assert own.frames.shape == (45, 288, 512, 3) and own.source_fps == 30
  assert own.sample_rate == 48_000 and len(own.audio) == 72_000
  silent = in_own_rates(tmp_path / 'a.mp4', clips.part(seen, 0.0, 1.0))
  assert len(silent.frames) == 30


def test_impacts_are_rendered_for_the_size_that_is_generated():
  class Large:
    height, width, fps = 72, 128, 24.0
  world = Impacts('test', duration=2.0)
  clip = world.load(0)
  large = world.original(0, clip, Large)
  assert large.frames.shape == (48, 72, 128, 3) and large.source_fps == 24
  assert np.array_equal(large.audio, clip.audio)
  Large.height, Large.width, Large.fps = 36, 64, 6.0
  assert world.original(0, clip, Large) is None
