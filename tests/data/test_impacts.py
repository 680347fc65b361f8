"""The procedural world keeps its promises: exact times, silence between, the same everywhere."""

import dataclasses
import hashlib
import subprocess
import sys

import librosa
import mir_eval
import numpy as np
import pytest

from avlink_jax.data.impacts import Impacts, audio, bodies, kinds, motion, render, scenes
from avlink_jax.errors import UserError

RATE = 16000


@pytest.fixture(scope='module')
def source():
  return Impacts('test')


@pytest.fixture(scope='module')
def by_kind(source):
  """For each kind of scene, the first three clips of it: {kind: [index, ...]}."""
  found = {kind: [] for kind in kinds.KINDS}
  for i in range(200):
    mine = found[source.scene(i).kind]
    if len(mine) < 3:
      mine.append(i)
  return found


@pytest.fixture(scope='module')
def some(by_kind):
  return [i for mine in by_kind.values() for i in mine]


def fingerprint(clip):
  parts = (clip.frames, clip.audio, clip.events, clip.frame_times)
  text = clip.id + clip.audio_caption + clip.video_caption
  return hashlib.sha256(b''.join(part.tobytes() for part in parts) + text.encode()).hexdigest()


def level(wave):
  return 20 * np.log10(np.sqrt(np.mean(wave ** 2)) + 1e-12)


def test_a_clip_has_the_shapes_and_types_of_the_contract(source):
  clip = source.load(12)
  assert clip.id == source.name(12) == 'impacts-test-000012'
  assert clip.frames.shape == (31, 36, 64, 3) and clip.frames.dtype == np.uint8
  np.testing.assert_array_equal(clip.frame_times, np.arange(31) / 6)
  assert clip.audio.shape == (82560,) and clip.audio.dtype == np.float32
  assert clip.events.dtype == np.float64
  assert (clip.duration, clip.sample_rate, clip.source) == (5.16, 16000, 'impacts')


def test_a_clip_is_the_same_in_another_process_and_in_any_order(source):
  code = ('import sys; sys.path.insert(0, "tests/data"); import test_impacts as t;'
          's = t.Impacts("test"); print(*[t.fingerprint(s.load(i)) for i in (7, 3, 4095)])')
  other = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert other.stdout.split() == [fingerprint(source.load(i)) for i in (7, 3, 4095)]
  assert [fingerprint(source.load(i)) for i in (4095, 3, 7)] == other.stdout.split()[::-1]


def test_splits_seeds_and_indices_are_all_different_clips():
  clips = [Impacts(split, seed).load(i) for split in ('train', 'validation', 'test')
           for seed in (0, 1) for i in (0, 1)]
  assert len({clip.events.tobytes() for clip in clips}) == len(clips)
  sources = {split: Impacts(split) for split in ('train', 'validation', 'test')}
  assert [len(source) for source in sources.values()] == [1_000_000, 4096, 4096]
  spans = sorted((source.first, source.first + 10 ** 9) for source in sources.values())
  assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))


def test_events_lie_within_the_clip_and_apart(source):
  counts = []
  for i in range(300):
    scene = source.scene(i)
    assert scene.events[0] >= .05 and scene.events[-1] <= 5.16 - .1
    assert np.diff(scene.events).min() >= .25
    assert len(scene.events) == len(scene.strengths) == len(scene.pair)
    assert 0 < scene.strengths.min() and scene.strengths.max() == 1
    counts.append(len(scene.events))
  assert min(counts) >= 3 and max(counts) <= 14 and np.mean(np.array(counts) >= 4) > .95


@pytest.mark.parametrize('duration', [2., 2.58, 20.])
def test_other_durations_work(duration):
  source = Impacts('train', duration=duration)
  for i in range(40):
    scene = source.scene(i)
    assert len(scene.events) >= 2 and .05 <= scene.events[0]
    assert scene.events[-1] <= duration - .1
  clip = source.load(0)
  assert len(clip.frames) == int(duration * 6 + 1e-6) + 1
  assert len(clip.audio) == round(duration * RATE)


def test_it_is_silent_but_for_room_noise_before_the_first_event(source, some):
  for i in some:
    clip = source.load(i)
    peak = 20 * np.log10(np.abs(clip.audio).max())
    before = clip.audio[:round(clip.events[0] * RATE) - 1]
    assert -80 < level(before) - peak < -50, source.scene(i).kind


def test_energy_rises_at_every_event_and_nowhere_else(source, some):
  """20 ms after each event are louder than 20 ms before; elsewhere the sound only dies away."""
  for i in some:
    clip = source.load(i)
    starts = np.round(clip.events * RATE).astype(int)
    for start in starts:
      rise = level(clip.audio[start:start + 320]) - level(clip.audio[start - 320:start])
      assert rise > 6, (source.scene(i).kind, start)
    steps = np.arange(320, len(clip.audio) - 1280, 320)
    power = np.array([level(clip.audio[s:s + 640]) for s in steps])
    loud = 20 * np.log10(np.abs(clip.audio).max())
    for step, change, now in zip(steps[1:], np.diff(power), power[1:], strict=True):
      if change > 6 and now > loud - 50:
        assert np.abs(starts - step - 320).min() <= 480, (source.scene(i).kind, step)


def test_a_harder_contact_is_louder_and_brighter(source):
  scene = source.scene(0)
  body, edge = audio.response(np.random.default_rng(0), 'metal', 'wood', (.2, .01), RATE)
  bins = np.abs(np.fft.rfft([s * (body + s * edge) for s in (.3, 1.)])) ** 2
  centre = (bins * np.arange(bins.shape[1])).sum(1) / bins.sum(1)
  assert bins[1].sum() > bins[0].sum() and centre[1] > 1.1 * centre[0]
  assert np.abs(audio.synthesise(scene, np.random.default_rng(1), 5.16, RATE)).max() <= .9


def test_librosa_finds_the_true_events_in_every_kind_of_scene(source, by_kind):
  lags = []
  for kind, indices in by_kind.items():
    scores = []
    for i in indices:
      clip = source.load(i)
      wave = librosa.resample(clip.audio, orig_sr=RATE, target_sr=22050)
      found = librosa.onset.onset_detect(y=wave, sr=22050, delta=.3, units='samples') / 22050
      scores.append(mir_eval.onset.f_measure(clip.events, found, window=.1)[0])
      pairs = mir_eval.util.match_events(clip.events, found, .1)
      lags += [found[b] - clip.events[a] for a, b in pairs]
    assert np.mean(scores) >= .97, (kind, scores)
  assert np.abs(lags).mean() < .03


def test_a_scene_looks_the_same_at_two_resolutions(source, by_kind):
  for mine in by_kind.values():
    scene = source.scene(mine[0])
    times = scene.events[:2] + np.array((-.08, 0.))
    small = render.render(scene, times, 36, 64).astype(float)
    large = render.render(scene, times, 288, 512).astype(float)
    large = large.reshape(2, 36, 8, 64, 8, 3).mean((2, 4))
    error = np.abs(large - small)
    assert error.mean() < 2.5 and np.mean(error > 40) < .01, (scene.kind, error.mean())


def test_pictures_do_not_depend_on_which_others_are_painted(source):
  scene, times = source.scene(5), np.arange(31) / 6
  every = render.render(scene, times, 36, 64).astype(int)
  for n in (0, 11, 30):
    alone = render.render(scene, times[n:n + 1], 36, 64).astype(int)
    assert np.abs(alone - every[n]).max() <= 1


def test_coverage_tells_sub_pixel_positions():
  wall = bodies.Backdrop(np.zeros(3), np.zeros(3), 'stripes', np.ones((3, 2)), np.zeros(3), 0.,
                         (0., -1.))
  camera = bodies.Camera(np.zeros(3), np.zeros(3), np.zeros(3))

  def moments(x):
    ball = bodies.disc(.12, np.full(3, 200.), 'plain', bodies.still(x, .1))
    scene = scenes.Scene('', (ball,), wall, camera, *[None] * 6)
    shown = render.render(scene, np.zeros(1), 36, 64)[0, ..., 0].astype(float)
    return (shown.sum(0) * (np.arange(64) + .5)).sum() / shown.sum()

  xs = np.linspace(0, 2 / 36, 9)
  np.testing.assert_allclose([moments(x) for x in xs], 32 + 36 * xs, atol=.06)


def test_a_bouncing_ball_falls_freely_and_reverses_at_the_floor():
  for seed in range(20):
    act = kinds.ball(np.random.default_rng(seed), 5.16)
    path = act.bodies[-1].path
    for time in act.times[act.pair == 0]:
      early, before, now, after, late = path(time + np.array((-2e-3, -1e-3, 0, 1e-3, 2e-3))).y
      assert before < now and after < now, 'y points down: lowest at the contact'
      assert early < before and late < after
    # Between two contacts with the floor the second derivative is one constant: gravity.
    floor = act.times[act.pair == 0]
    middle = (floor[:-1] + floor[1:]) / 2
    y = path((middle[:, None] + np.array((-.02, 0, .02))).ravel()).y.reshape(-1, 3)
    gravity = (y[:, 0] - 2 * y[:, 1] + y[:, 2]) / .02 ** 2
    np.testing.assert_allclose(gravity, gravity[0], rtol=1e-6)
    # Impact speed is the slope of the path.
    slope = (path(floor - 1e-6).y - path(floor - 2e-6).y) / 1e-6
    np.testing.assert_allclose(slope, act.speeds[act.pair == 0], rtol=1e-3)


def test_a_ball_reverses_at_the_walls():
  seen = 0
  for seed in range(40):
    act = kinds.ball(np.random.default_rng(seed), 5.16)
    for time in act.times[act.pair == 1]:
      before, now, after = act.bodies[-1].path(time + np.array((-1e-3, 0, 1e-3))).x
      assert abs(before) < abs(now) and abs(after) < abs(now)
      seen += 1
  assert seen > 5


@pytest.mark.parametrize('kind', sorted(set(kinds.KINDS) - {'ball', 'drops'}))
def test_movers_reverse_at_contacts_and_only_there(kind):
  """The main mover's speed jumps at each event; between events no mover's speed jumps."""
  for seed in range(6):
    act = kinds.KINDS[kind](np.random.default_rng(seed), 5.16)
    movers = [body for body in act.bodies if body.role == 'mover']

    def jump(times, movers=movers):
      steps = np.array((-2e-4, -1e-4, 1e-4, 2e-4))
      found = []
      for body in movers:
        pose = body.path((times[:, None] + steps).ravel())
        x, y = pose.x.reshape(-1, 4), pose.y.reshape(-1, 4)
        found.append(np.hypot(*((z[:, 3] - z[:, 2] - z[:, 1] + z[:, 0]) / 1e-4 for z in (x, y))))
      return np.max(found, axis=0)

    at = jump(act.times)
    assert np.all(at > .5), (seed, at)
    grid = np.arange(.02, 5.14, .011)
    away = grid[np.abs(grid[:, None] - act.times).min(1) > .01]
    assert np.all(jump(away) < .25 * at.min()), seed


def test_drops_touch_the_surface_exactly_at_the_events():
  for seed in range(10):
    act = kinds.drops(np.random.default_rng(seed), 5.16)
    falling = [body for body in act.bodies if body.role == 'mover'][:2]
    ground = act.bodies[-1]
    top = ground.path(np.zeros(1)).y[0] - ground.half[1]
    for time in act.times:
      poses = [body.path(np.array([time - 1e-6])) for body in falling]
      # A drop is at most as large as the radius by which the path keeps off.
      lowest = max(float(pose.y[0]) for pose in poses if pose.grow[0] > .5)
      assert abs(lowest + falling[0].corner - top) < 1e-4


def test_every_contact_is_in_sight_and_so_is_its_approach(source):
  for i in range(120):
    scene = source.scene(i)
    times = (scene.events[:, None] - np.array((0., .05, .1))).ravel()
    x, y, zoom = scene.camera.at(times)
    for body in scene.bodies:
      if body.role == 'mover' and body.is_disc:
        pose = body.path(times)
        there = pose.grow > .7
        assert (np.abs(pose.x - x) * zoom + body.corner)[there].max(initial=0) < 8 / 9, scene.kind
        assert (np.abs(pose.y - y) * zoom)[there].max(initial=0) < .5, scene.kind


def test_distractors_keep_clear_of_what_acts(source):
  times = np.linspace(0, 5.16, 100)
  for i in range(200):
    for body in source.scene(i).bodies:
      pose = body.path(times)
      a, b = (side - body.corner for side in body.half)
      reach = np.abs(np.cos(pose.angle)) * a + np.abs(np.sin(pose.angle)) * b + body.corner
      x, reach = np.abs(pose.x[pose.grow > 0]), reach[pose.grow > 0]
      if body.role == 'distractor':
        assert (x - reach).min() > kinds.REACH
        assert pose.y.max() + np.hypot(*body.half) < .24, 'it keeps above every floor'
      elif body.role == 'mover':
        assert (x + reach).max() < kinds.REACH + .005, source.scene(i).kind


def test_distractors_make_no_sound_and_change_none():
  """The sound is a function of the contacts: take the distractors away and it is the same."""
  source, checked = Impacts('train'), 0
  for i in range(30):
    scene = source.scene(i)
    kept = tuple(body for body in scene.bodies if body.role != 'distractor')
    if len(kept) < len(scene.bodies):
      alone = dataclasses.replace(scene, bodies=kept)
      waves = [audio.synthesise(s, np.random.default_rng(i), 5.16, RATE) for s in (scene, alone)]
      np.testing.assert_array_equal(*waves)
      checked += 1
  assert checked > 5


def test_captions_are_short_ascii_and_name_kind_and_colour(source):
  audio, video = set(), set()
  for i in range(400):
    scene = source.scene(i)
    for caption in (scene.audio_caption, scene.video_caption):
      assert 10 < len(caption.encode('ascii')) <= 90 and '{' not in caption
      assert ' a orange' not in f' {caption}'
    audio.add(scene.audio_caption)
    video.add(scene.video_caption)
  assert len(audio) > 80 and len(video) > 150


def test_all_kinds_occur_about_equally_often(source):
  names = [source.scene(i).kind for i in range(800)]
  counts = np.array([names.count(kind) for kind in kinds.KINDS])
  assert len(kinds.KINDS) >= 6 and counts.min() > 60


def test_contact_times_enclose_the_clip():
  for seed in range(200):
    times = motion.contact_times(np.random.default_rng(seed), 5.16, (.42, .9), jitter=.25)
    assert times[0] < 0 and times[-1] > 5.16 and len(times) >= 4
    assert np.diff(times).min() >= motion.SHORTEST


def test_a_wrong_split_or_number_is_told_and_a_wrong_index_raises(source):
  with pytest.raises(UserError, match='validation'):
    Impacts('tests')
  for wrong in ({'size': 0}, {'size': 2 * 10 ** 9}, {'duration': 1.}, {'seed': -1}):
    with pytest.raises(UserError):
      Impacts('test', **wrong)
  for i in (-1, len(source)):
    with pytest.raises(IndexError):
      source.load(i)
  assert len(Impacts('test', size=5)) == 5
