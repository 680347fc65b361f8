"""From Python: files and arrays in, arrays out, and files where they are asked for."""

import json
import runpy
import subprocess
import sys
import tempfile
import types

import jax
import numpy as np
import pytest
import runs
import soundfile
from made_clips import SHARED, needs_clips
from runs import config_of, finished, manifest, parts

import avlink_jax
from avlink_jax import api
from avlink_jax.data.media import decode as media
from avlink_jax.data.media import mux
from avlink_jax.errors import UserError
from avlink_jax.sample import sample
from avlink_jax.storage import weights

RATE, FPS, SECONDS = 16_000, 6, 2


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with runs.quickly_compiled():
    yield


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """task -> (config, workdir with a checkpoint), each made once."""
  root, made = tmp_path_factory.mktemp('runs'), {}
  frozen = parts(root)

  def of(task):
    if task not in made:
      config = config_of(task, frozen)
      made[task] = config, finished(config, root / task)
      (root / task / 'config.json').write_text(json.dumps(config.to_dict()))
    return made[task]

  return of


@pytest.fixture(scope='module')
def model(run):
  """task -> Model of its workdir."""
  made = {}

  def of(task):
    if task not in made:
      made[task] = avlink_jax.load(str(run(task)[1]))
    return made[task]

  return of


def noise(frames=12, height=72, width=128, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


@pytest.fixture(scope='module')
def film(tmp_path_factory):
  path = tmp_path_factory.mktemp('film') / 'my.mp4'
  mux.write_mp4(path, frames=noise(), fps=FPS)
  return path


def test_a_file_gives_what_mode_sample_gives_and_is_saved_under_its_picture(
    run, model, film, tmp_path):
  config, workdir = run('v2a')
  sample(config, workdir, input_path=str(film), prompt='a ball', output=tmp_path, seed=3)
  wave, _ = soundfile.read(tmp_path / manifest(tmp_path)['my']['files']['audio'])
  made, = model('v2a')(video=film, prompt='a ball', seed=3)
  assert made.audio.dtype == np.float32 and (made.sample_rate, made.fps) == (RATE, FPS)
  np.testing.assert_allclose(made.audio, wave, atol=2e-4)  # 16 bits
  assert made.prompts == {'audio': 'a ball', 'video': ''} and made.generated == ('audio',)
  path = made.save(tmp_path / 'own.mp4')
  clip = media.decode(path)
  np.testing.assert_array_equal(clip.frames, media.decode(film, need_audio=False).frames)
  assert abs(len(clip.audio) - SECONDS * RATE) <= RATE / FPS
  assert len(soundfile.read(made.save(tmp_path / 'own.wav'))[0]) == SECONDS * RATE


def test_arrays_are_taken_too_and_several_at_once(model):
  progress = []
  made = model('v2a')(video=[noise(seed=0), noise(seed=1)], fps=FPS, takes=2,
                      progress=lambda done, count: progress.append((done, count)))
  assert [clip.id for clip in made] == ['clip_1', 'clip_2', 'clip-2_1', 'clip-2_2']
  assert progress[-1] == (4, 4) and [done for done, _ in progress] == sorted(
      done for done, _ in progress)
  waves = [clip.audio for clip in made]
  assert all(clip.av_align is None or 0 <= clip.av_align <= 1 for clip in made)
  assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(waves) for b in waves[:i])
  assert all(clip.frames.shape == (SECONDS * FPS, 8, 16, 3) for clip in made)
  again = model('v2a')(video=noise(seed=0), fps=FPS, takes=2)
  np.testing.assert_allclose(again[1].audio, waves[1], atol=1e-5)


def test_steps_can_be_watched_and_the_work_ended_at_each(model):
  seen, given = [], dict(video=noise(), fps=FPS, seed=1)
  watched, = model('v2a')(**given, on_step=lambda *done: seen.append(done))
  plain, = model('v2a')(**given)
  assert seen == [(1, 2), (2, 2)]
  np.testing.assert_allclose(watched.audio, plain.audio, atol=1e-3 * np.abs(plain.audio).max())

  def enough(done, count):
    seen.append(done)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    model('v2a')(**given, on_step=enough)
  assert seen[2:] == [1]


@pytest.fixture
def exported(run, model, tmp_path):
  """Folder with the weights of the V2A run alone, as avlink_jax.export writes them."""
  config, trained = run('v2a')[0].copy_and_resolve_references(), model('v2a').trained
  config.mesh.fsdp = 64  # it was trained on another machine
  config.attention = 'splash'
  weights.save(tmp_path / weights.OF_RUN, {'params': trained.params, 'stats': trained.stats},
               {'steps': 1, 'config': json.dumps(config.to_dict())})
  return tmp_path


def test_a_folder_with_exported_weights_alone_is_a_model(run, model, exported, monkeypatch):
  """By itself, as `--workdir` of mode sample, and by its name on the hub."""
  asked = []

  def download(name, allow_patterns):
    asked.append((name, allow_patterns))
    return str(exported)

  hub = types.SimpleNamespace(snapshot_download=download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
  wanted = jax.tree.leaves(model('v2a').trained.params)
  for made in (avlink_jax.load(exported), api.Model(run('v2a')[0], exported, explicit=True),
               avlink_jax.load('owner/model', config={'sample.steps': 3})):
    assert made.trained.origin == f'{exported}/weights.safetensors, step 1'
    for ours, theirs in zip(jax.tree.leaves(made.trained.params), wanted, strict=True):
      np.testing.assert_array_equal(ours, theirs)
  assert made.config.sample.steps == 3
  assert asked == [('owner/model', ['config.json', 'weights.safetensors', 'frozen/*'])]


def test_a_checkpoint_comes_before_a_weights_file(run, exported):
  _, workdir = run('v2a')
  (workdir / weights.OF_RUN).write_bytes((exported / weights.OF_RUN).read_bytes())
  try:
    assert avlink_jax.load(workdir).trained.origin == f'{workdir}, step 1'
  finally:
    (workdir / weights.OF_RUN).unlink()


def test_a_sound_gets_a_picture(model, tmp_path):
  wave = np.sin(np.arange(SECONDS * 2 * RATE) / 9).astype(np.float32)
  made, = model('a2v')(audio=np.stack([wave, wave], 1), sample_rate=2 * RATE, steps=1)
  assert made.frames.shape == (SECONDS * FPS, 8, 16, 3) and made.frames.dtype == np.uint8
  assert len(made.audio) == SECONDS * RATE
  clip = media.decode(made.save(tmp_path / 'a.mp4'))
  assert len(clip.frames) == SECONDS * FPS and np.abs(clip.audio).max() > 0


def test_words_alone_make_a_clip_each(model, tmp_path):
  made = model('t2a')(prompt=['a ball', 'rain'], negative_prompt='hiss', guidance=3.0)
  assert [clip.prompts['audio'] for clip in made] == ['a ball', 'rain']
  assert all(clip.frames is None for clip in made)
  made[0].save(tmp_path / 'ball.wav')
  with pytest.raises(UserError, match='ends in .mp4 or .wav'):
    made[0].save(tmp_path / 'ball.flac')


@pytest.mark.parametrize('task, given, told', [
    ('v2a', {}, 'v2a is conditioned on video: give video='),
    ('v2a', {'audio': 'a.wav'}, 'audio=: v2a is conditioned on video'),
    ('v2a', {'video': noise()}, 'needs fps='),
    ('v2a', {'video': noise()[0], 'fps': 6}, r'frames are uint8 \(N, H, W, 3\), not uint8 \(72'),
    ('v2a', {'video': 'nowhere.mp4'}, 'nowhere.mp4'),
    ('v2a', {'video': noise(), 'fps': 6, 'takes': 0}, 'give at least 1'),
    ('v2a', {'video': noise(), 'fps': 6, 'steps': 0}, 'sample.steps=0: give at least 1'),
    ('v2a', {'video': noise(), 'fps': 6, 'prompt': ['a', 'b']}, 'takes one prompt'),
    ('a2v', {'audio': np.zeros(9), 'sample_rate': 0}, 'needs sample_rate='),
    ('a2v', {'audio': np.full(9, np.nan), 'sample_rate': 9}, 'not finite'),
    ('a2v', {'audio': np.zeros((3, 3), int), 'sample_rate': 9}, r'a wave is float \(S,\)'),
    ('t2a', {}, 'give prompt='), ('t2a', {'prompt': 'a', 'condition_prompt': 'b'}, 'words alone')])
def test_mistakes_are_told(model, task, given, told):
  with pytest.raises(UserError, match=told) as error:
    model(task)(**given)
  assert '\n' not in str(error.value)


def test_a_folder_of_something_else_is_told(tmp_path):
  with pytest.raises(UserError, match='neither config.json nor weights.safetensors in it'):
    avlink_jax.load(tmp_path)
  (tmp_path / 'config.json').write_text('{"architectures": []}')
  with pytest.raises(UserError, match='config.json: of another program'):
    avlink_jax.load(tmp_path)
  (tmp_path / 'config.json').write_text('{')
  with pytest.raises(UserError, match='config.json: not JSON'):
    avlink_jax.load(tmp_path)


@pytest.mark.parametrize('name, options, told', [
    ('v2b:nano', {}, 'no such config'), ('v2a:huge', {}, "unknown scale 'huge'"),
    ('v2a:nano', {'config': {'sample.stesp': 3}}, "no such key: did you mean sample.steps"),
    ('v2a:nano', {'config': {'sample.steps': 'many'}}, 'sample.steps'),
    ('v2a:nano', {'workdir': '/nowhere'}, '/nowhere has no checkpoint')])
def test_what_cannot_be_loaded_is_told(name, options, told):
  with pytest.raises((UserError, ValueError), match=told):
    avlink_jax.load(name, **options).trained  # noqa: B018


def test_presets_and_changes_of_the_config_are_taken():
  model = avlink_jax.load('v2a:nano', config={'sample.preset': 'paper', 'sample.count': 1})
  assert (model.config.sample.steps, model.config.sample.count) == (64, 1)


def test_the_package_alone_brings_no_jax_along():
  code = 'import sys, avlink_jax; print("jax" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                        env=runs.environment('')).stdout == 'False\n'


@needs_clips
def test_real_films_of_any_kind_get_sounds_of_their_length(model):
  film = sorted((SHARED / 'clips').glob('*.mp4'))[0]
  made, = model('v2a')(video=str(film), prompt='')
  clip = media.decode(film, need_audio=False)
  assert len(made.audio) == round(clip.duration * RATE) and np.isfinite(made.audio).all()


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(tempfile, 'mkdtemp', lambda: str(tmp_path))
  said = runpy.run_path(str(runs.ROOT / 'tests' / 'notebook.py'))
  assert '8/8' in capsys.readouterr().out and len(said['takes']) == 3
  for name in ('best.mp4', 'again.mp4'):
    clip = media.decode(tmp_path / name)
    assert len(clip.frames) == 31 and np.abs(clip.audio).max() > 1e-3


def test_frames_are_scaled_to_cover_and_cropped():
  frame = noise(1, 40, 40)[0]
  assert api.covering(frame, 36, 64).shape == (36, 64, 3)
  np.testing.assert_array_equal(api.covering(frame, 40, 40), frame)
