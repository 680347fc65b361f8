"""Shots: cuts are found, movement and flashes are none; windows keep to one shot."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from made_clips import needs_clips

from avlink_jax.data.impacts import Impacts
from avlink_jax.data.media import decode as media
from avlink_jax.data.prepare import shots


def texture(seed, count, shift=0):
  """A wide picture of coloured boxes that moves past: uint8 (count, 36, 64, 3)."""
  rng = np.random.default_rng(seed)
  wide = rng.choice(rng.integers(0, 255, (6, 3)), (36, 64 + shift * count)).astype(np.uint8)
  return np.stack([wide[:, shift * n:shift * n + 64] for n in range(count)])


def test_a_change_of_scene_is_a_cut_and_movement_is_none():
  frames = np.concatenate([texture(1, 12, 5), texture(2, 9, 3), texture(3, 10)])
  assert shots.cuts(frames) == [12, 21]
  assert shots.cuts(texture(1, 40, 6)) == []


def test_a_flash_is_no_cut():
  frames = texture(1, 20, 2)
  frames[10] = 255
  assert shots.cuts(frames) == []


def test_histograms_and_distances_are_shares():
  frames = np.concatenate([texture(1, 3), np.zeros((1, 36, 64, 3), np.uint8)])
  seen = shots.histograms(frames)
  assert seen.shape == (4, 64)
  np.testing.assert_allclose(seen.sum(-1), 1, rtol=1e-5)
  np.testing.assert_allclose(shots.distance(seen[:2], seen[1:3]), 0, atol=1e-6)
  black = shots.histograms(frames[3:])
  white = shots.histograms(255 - frames[3:])
  np.testing.assert_allclose(shots.distance(black, white), 1, rtol=1e-5)


def test_a_threshold_of_0_cuts_nowhere_and_a_higher_one_less():
  frames = np.concatenate([texture(1, 12), texture(2, 9)])
  assert shots.cuts(frames, 0) == [] and shots.cuts(frames, 1.0) == []
  assert shots.cuts(frames[:1]) == shots.cuts(frames[:0]) == []


def test_scenes_of_the_procedural_world_are_whole_and_two_of_them_are_two():
  world = Impacts('train', size=8, duration=2.0)
  clips = [world.load(i).frames for i in range(8)]
  assert sum(len(shots.cuts(frames)) for frames in clips) == 0
  pairs = [np.concatenate(pair) for pair in zip(clips[::2], clips[1::2], strict=True)]
  found = [shots.cuts(pair) for pair in pairs]
  assert sum(cut == [len(clips[0])] for cut in found) >= 3  # of 4: some look alike


@given(st.floats(0.2, 40), st.lists(st.integers(1, 200), max_size=5, unique=True),
       st.sampled_from([2.0, 5.16]), st.floats(0.5, 2.0))
def test_windows_lie_within_a_shot_and_little_is_left(duration, cuts, seconds, shortest):
  fps = 6.0
  cuts = sorted(c / fps for c in cuts if c / fps < duration)
  found, left = shots.windows(duration, cuts, fps, seconds, shortest)
  edges = [0.0, *cuts, duration]
  end = 0.0
  for start, length in found:
    assert start >= end - 1e-9 and abs(start * fps - round(start * fps)) < 1e-6
    assert shortest <= length <= seconds
    assert any(a - 1e-9 <= start and start + length <= b + 1e-9
               for a, b in zip(edges[:-1], edges[1:], strict=True))
    end = start + length
  lost = duration - sum(length for _, length in found)
  assert lost <= left + (len(found) + len(edges)) / fps + 1e-6  # less than a picture each


@needs_clips
def test_real_clips_of_one_shot_are_not_torn(shared_clips):
  found = {}
  for path in sorted(shared_clips.glob('vas_*.mp4')):
    clip = media.decode(path, height=36, width=64, max_fps=6, need_audio=False)
    found[path.stem] = shots.cuts(clip.frames)
  assert sum(map(bool, found.values())) <= 2
