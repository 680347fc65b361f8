"""Samples in two stages: what the base model makes, and that at four times the rate and eight times
the size, with the sound in step."""

import json

import jax
import numpy as np
import pytest
import runs
from made_clips import make_clip, steady
from micro import build, micro_config, random_like
from runs import config_of, finished, manifest, parts

from avlink_jax.compile import compile_ahead
from avlink_jax.data.clip import resample_frames
from avlink_jax.data.media import decode as media
from avlink_jax.errors import UserError
from avlink_jax.sample import sample
from avlink_jax.sampling import upsampling
from avlink_jax.sampling.in_training import TrainingSamples
from avlink_jax.storage import weights
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.train import train

RATE, SECONDS = 16_000, 2
LOW, HIGH = (6, 8, 16), (24, 64, 128)  # frames a second, height, width


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with runs.quickly_compiled():
    yield


@pytest.fixture(scope='module')
def frozen(tmp_path_factory):
  """Weights of all parts, and in the folder of an `upsampler` its own and its codec's."""
  folder = tmp_path_factory.mktemp('parts')
  made = parts(folder)
  (folder / 'run').mkdir()
  config = micro_config('upsampler', **{
      'sample.steps': 2, 'sample.overlap': 0.33, 'sample.batch_size': 2,
      'frozen.video_codec': 'gone'})
  models, task = build(config)
  built = frozen_parts.load(micro_config('upsampler', **{
      'frozen.video_codec': made['video_codec']}), models, task.frozen_parts)
  frozen_parts.keep(config, folder / 'run', built, task.frozen_parts)
  params = random_like(jax.eval_shape(lambda: task.init(jax.random.key(0), built)), 3)
  weights.save(folder / 'run' / 'weights.safetensors', {'params': params},
               {'config': json.dumps(config.to_dict())})
  return made | {'upsampler': str(folder / 'run')}


@pytest.fixture(scope='module')
def run(frozen, tmp_path_factory):
  """task -> (config, workdir with a checkpoint), each made once."""
  made, root = {}, tmp_path_factory.mktemp('runs')

  def of(task, **changes):
    if task not in made:
      config = config_of(task, frozen)
      made[task] = config, finished(config, root / task)
    config, workdir = made[task]
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    return config, workdir

  return of


def told(call, *args, **kwargs):
  with pytest.raises(UserError) as error:
    call(*args, **kwargs)
  assert '\n' not in str(error.value)
  return str(error.value)


def look(path, fps, height, width, seconds=SECONDS, sound=True):
  """A written clip, which has that size, rate and length, and sound as long within a frame."""
  clip = media.decode(path, need_audio=sound)
  factor = max(1, 256 // width)  # small pictures are enlarged to be watched
  assert clip.frames.shape == (int(np.ceil(seconds * fps)), height * factor, width * factor, 3)
  np.testing.assert_allclose(np.diff(clip.frame_times), 1 / fps, atol=1e-3)
  assert bool(len(clip.audio)) == sound
  assert not sound or abs(len(clip.audio) / RATE - len(clip.frames) / fps) <= 1 / fps
  return clip


@pytest.mark.slow
def test_words_become_large_pictures_with_the_small_ones_beside(run, tmp_path, capsys):
  config, workdir = run('t2v')
  (tmp_path / 'said.txt').write_text('a ball\nwater\n')
  ask = dict(prompt=str(tmp_path / 'said.txt'), output=tmp_path / 'out', seed=3)
  ids = sample(config, workdir, **ask)
  said = capsys.readouterr().err
  assert 'sampled 2/2 windows' in said
  assert 'upsampled 1/2 clips' in said and 'upsampled 2/2 clips' in said
  rows = manifest(tmp_path / 'out')
  for id in ids:
    assert rows[id]['files'] == {'video': f'{id}.mp4', 'low': f'{id}_low.mp4'}
    assert rows[id]['duration'] == SECONDS
    large = look(tmp_path / 'out' / f'{id}.mp4', *HIGH, sound=False)
    look(tmp_path / 'out' / f'{id}_low.mp4', *LOW, sound=False)
    assert large.frames.std() > 1

  # What is there is kept; where the upsampler is another one all is made anew.
  sample(config, workdir, **ask)
  assert '2 of 2 clips' in capsys.readouterr().err
  assert manifest(tmp_path / 'out') == rows
  (tmp_path / 'out' / f'{ids[1]}_low.mp4').unlink()  # as after an interruption
  sample(config, workdir, **ask)
  assert 'upsampled 1/1 clips' in capsys.readouterr().err
  small, _ = run('t2v', **{'sample.upsample': False})
  sample(small, workdir, **ask)
  assert 'upsampled' not in capsys.readouterr().err
  left = {path.name for path in (tmp_path / 'out').glob('*.mp4')}
  assert left == {f'{id}.mp4' for id in ids}
  look(tmp_path / 'out' / f'{ids[0]}.mp4', *LOW, sound=False)


@pytest.mark.slow
def test_a_sound_of_ones_own_goes_under_both_of_its_pictures(run, tmp_path):
  make_clip(tmp_path / 'clip.mp4', steady(1.4))
  config, workdir = run('a2v')
  id, = sample(config, workdir, input_path=str(tmp_path / 'clip.mp4'), output=tmp_path / 'out')
  seconds = media.decode(tmp_path / 'clip.mp4').duration
  given = media.decode_audio(tmp_path / 'clip.mp4', sample_rate=RATE)
  for name, shape in ((f'{id}.mp4', HIGH), (f'{id}_low.mp4', LOW)):
    look(tmp_path / 'out' / name, *shape, seconds=seconds)
    kept = media.decode_audio(tmp_path / 'out' / name, sample_rate=RATE)
    count = min(len(kept), len(given)) - 2000
    assert np.corrcoef(kept[:count, 0], given[:count, 0])[0, 1] > 0.99


@pytest.mark.slow
def test_sound_and_picture_made_at_once_stay_in_step(run, tmp_path):
  config, workdir = run('av')
  ids = sample(config, workdir, prompt='a ball', output=tmp_path / 'out')
  for id in ids:
    look(tmp_path / 'out' / f'{id}.mp4', *HIGH)
    look(tmp_path / 'out' / f'{id}_low.mp4', *LOW)
    assert (tmp_path / 'out' / f'{id}.wav').exists()


@pytest.mark.slow
def test_the_upsampler_takes_any_video_and_keeps_its_sound(run, tmp_path):
  make_clip(tmp_path / 'clip.mp4', steady(2.3))
  config, workdir = run('upsampler', **{'data.seconds': 1.0})
  id, = sample(config, workdir, input_path=str(tmp_path / 'clip.mp4'), output=tmp_path / 'out')
  seconds = media.decode(tmp_path / 'clip.mp4').duration
  look(tmp_path / 'out' / f'{id}.mp4', *HIGH, seconds=seconds)
  low = look(tmp_path / 'out' / f'{id}_low.mp4', *LOW, seconds=seconds)
  seen = media.decode(tmp_path / 'clip.mp4', height=8, width=16, max_fps=6.0)
  seen, _ = resample_frames(seen, 0.0, len(low.frames), 6.0)
  wanted = seen.reshape(len(seen), -1).mean(1)
  np.testing.assert_allclose(low.frames.reshape(len(low.frames), -1).mean(1), wanted, atol=3)
  row = manifest(tmp_path / 'out')[id]
  assert set(row['files']) == {'video', 'low'} and row['made'] == ['video']


@pytest.mark.slow
def test_it_trains_goes_on_and_shows_test_clips_beside_their_references(frozen, tmp_path, capsys):
  """The real loop, from the base's weights; a resumed run is the run left alone, bit for bit."""
  changes = {'data.seconds': 1.0, 'data.clip_seconds': 2.0, 'train.init_from': frozen['video'],
             'sample.count': 1, 'train.steps': 2, 'checkpoint.every': 1}
  config = config_of('upsampler', frozen, **changes)
  train(config, tmp_path / 'whole')
  said = capsys.readouterr().err
  assert 'widened by inputs of zero weight: dit/embed/patch/kernel' in said
  samples = tmp_path / 'whole' / 'samples' / 'step_2'
  (id, row), = manifest(samples).items()
  assert row['files'] == {'video': f'{id}.mp4', 'low': f'{id}_low.mp4'}
  look(samples / f'{id}.mp4', *HIGH)
  look(samples / f'{id}_low.mp4', *LOW)
  look(samples / 'reference' / f'{id}.mp4', *HIGH)
  assert (tmp_path / 'whole' / 'frozen' / 'video_codec.safetensors').exists()

  half = config_of('upsampler', frozen, **{**changes, 'train.steps': 1, 'sample.count': 1})
  train(half, tmp_path / 'half')
  train(config, tmp_path / 'half')
  one, other = (weights.read(tmp_path / name / 'weights.safetensors')[0]['params']
                for name in ('whole', 'half'))
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_run_that_trains_shows_its_pictures_as_they_are(run, tmp_path):
  from avlink_jax.training.log import Log
  config, _ = run('t2v', **{'sample.count': 1, 'sample.upsample': True})
  models, task = build(config)
  params = random_like(jax.eval_shape(lambda: task.init(jax.random.key(0), {})), 1)
  log = Log(tmp_path, 1, 0)
  TrainingSamples(task, {'towers': {}}, tmp_path).export(params, {}, 1, log)
  row, = manifest(tmp_path / 'samples' / 'step_1').values()
  assert set(row['files']) == {'video'}


# Which upsampler, and whether

def test_it_is_used_where_it_is_there_unless_it_is_not_wanted(run):
  config, _ = run('t2v')
  task = build(config)[1]
  assert upsampling.load(task).task.config.task == 'upsampler'
  for upsample, given, there in ((False, config.frozen.upsampler, False), (None, '', False)):
    config.sample.upsample, config.frozen.upsampler = upsample, given
    assert (upsampling.load(task) is not None) == there
  v2a, _ = run('v2a')
  assert upsampling.load(build(v2a)[1].toward('audio')) is None


def test_one_that_is_wanted_and_not_there_is_told(run, frozen, tmp_path):
  config, _ = run('t2v', **{'sample.upsample': True, 'frozen.upsampler': ''})
  task = build(config)[1]
  assert 'frozen.upsampler is not set' in told(upsampling.load, task)
  config.sample.upsample, config.frozen.upsampler = None, str(tmp_path / 'typo')
  assert 'no such weights file' in told(upsampling.load, task)
  config.frozen.upsampler = frozen['video']
  assert 'does not say which config' in told(upsampling.load, task)
  weights.save(tmp_path / 'x.safetensors', {'params': {}}, {'config': json.dumps(
      config.to_dict())})
  config.frozen.upsampler = str(tmp_path / 'x.safetensors')
  assert 'holds a t2v model' in told(upsampling.load, task)


def test_one_for_other_pictures_is_told_with_both_sizes(run):
  config, _ = run('t2v', **{'data.height': 16, 'data.width': 32})
  said = told(upsampling.load, build(config)[1])
  assert '16×8 at 6 fps' in said and '32×16 at 6 fps' in said


@pytest.mark.slow
def test_its_sampler_compiles_ahead_of_time():
  """Its step: tests/test_upsampler_mesh.py."""
  report = compile_ahead(micro_config('upsampler', **{'sample.batch_size': 2}), 'cpu:1', 'sample')
  assert report['task'] == 'upsampler' and report['sampler']['flops_per_clip'] > 0
