"""The real loop on tiny data: every stage trained, resumed, sampled and scored through main."""

import json
import pathlib

import flax
import numpy as np
import pytest
import runs

from avlink_jax.errors import UserError
from avlink_jax.main import MODES
from avlink_jax.sample import sample
from avlink_jax.storage import weights
from avlink_jax.train import train
from configs import mel_vae, t2a, t2v_pixels, v2a

TINY = {
    'train.steps': 4, 'train.batch_size': 2, 'train.log_every': 1, 'checkpoint.every': 2,
    'train.warmup_steps': 2, 'train.decay_steps': 0, 'data.impacts_clips': 4,
    'data.threads': 1, 'data.seconds': 2.0,
    'sample.steps': 2, 'sample.count': 2, 'sample.batch_size': 2,
    'codec.width': 8, 'text.width': 16, 'text.heads': 2,
    'towers.audio.width': 16, 'towers.audio.mlp': 32, 'towers.audio.depth': 2,
    'towers.video.width': 16, 'towers.video.mlp': 32, 'towers.video.depth': 2,
}
TINY_OF = {
    'mel_vae': {'codec_loss.disc_width': 4, 'codec_loss.disc_after': 2},
    'v2a': {'fusion.width': 16, 'fusion.mlp': 32, 'fusion.blocks': 2, 'fusion.rank': 4}}


def tiny(module, **changes):
  config = module.get_config('nano')
  config.update_from_flattened_dict(TINY)
  config.update_from_flattened_dict(changes)
  return config


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with runs.quickly_compiled():
    yield


@pytest.fixture(scope='module')
def stages(tmp_path_factory):
  """All four stages, each trained on the one before: {task: (config, workdir)}."""
  root = tmp_path_factory.mktemp('runs')
  made, frozen = {}, {}
  for task, module in (('mel_vae', mel_vae), ('t2a', t2a), ('t2v', t2v_pixels), ('v2a', v2a)):
    config = tiny(module, **TINY_OF.get(task, {}))
    for part in config.frozen:
      config.frozen[part] = frozen.get(part, '')  # pictures are not upsampled
    train(config, root / task)
    made[task] = config, root / task
    frozen |= {part: str(root / task) for part, of in weights.PARTS.items() if of == task}
  return made


def rows(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize('task', ['mel_vae', 't2a', 't2v', 'v2a'])
def test_a_stage_leaves_a_whole_workdir(stages, task):
  config, workdir = stages[task]
  logged = [row for row in rows(workdir) if 'loss' in row]
  assert [row['step'] for row in logged] == [1, 2, 3, 4]
  assert all(np.isfinite(row['loss']) for row in logged)
  assert {'grad_norm', 'learning_rate', 'steps_per_second', 'skipped_clips'} <= logged[0].keys()
  assert json.loads((workdir / 'config.json').read_text())['train']['steps'] == 4
  assert list(workdir.glob('events.out.tfevents.*'))
  samples = workdir / 'samples' / 'step_4'
  assert (samples / 'index.html').exists()
  made = [json.loads(line) for line in (samples / 'manifest.jsonl').read_text().splitlines()]
  assert len(made) == config.sample.count
  for row in made:
    assert row['task'] == task and row['seed'] == config.seed
    assert (samples / row['files']['video']).stat().st_size > 0
    assert (samples / 'reference' / row['files']['video']).exists()


@pytest.mark.slow
def test_frozen_trees_come_out_of_training_bit_identical(stages):
  for task in ('t2a', 't2v', 'mel_vae'):
    source, _ = weights.read(stages[task][1] / 'weights.safetensors')
    part = next(p for p, of in weights.PARTS.items() if of == task)
    used, _ = weights.read(stages['v2a'][1] / 'frozen' / f'{part}.safetensors')
    for name, value in flax.traverse_util.flatten_dict(source['params'], sep='/').items():
      np.testing.assert_array_equal(
          flax.traverse_util.flatten_dict(used['params'], sep='/')[name], value)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_where_one_left_alone_ends(stages, tmp_path):
  config, workdir = stages['v2a']
  with config.unlocked():
    halfway = config.copy_and_resolve_references()
  halfway.train.steps = 2
  train(halfway, tmp_path / 'run')
  halfway.train.steps = 4
  train(halfway, tmp_path / 'run')
  whole, _ = weights.read(workdir / 'weights.safetensors')
  resumed, _ = weights.read(tmp_path / 'run' / 'weights.safetensors')
  for a, b in zip(*(flax.traverse_util.flatten_dict(t, sep='/').values()
                    for t in (whole, resumed)), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_samples_of_the_same_seed_are_the_same_and_of_another_differ(stages, tmp_path):
  config, workdir = stages['v2a']
  made = {}
  for name, seed in (('a', 1), ('b', 1), ('c', 2)):
    ids = sample(config, workdir, output=tmp_path / name, seed=seed)
    made[name] = [(tmp_path / name / f'{i}.wav').read_bytes() for i in ids]
  assert made['a'] == made['b'] != made['c']


@pytest.mark.slow
def test_own_clips_get_sound_as_long_as_their_picture(stages, tmp_path):
  from avlink_jax.data.media import decode as media
  from avlink_jax.data.media import mux
  config, workdir = stages['v2a']
  rng = np.random.default_rng(0)
  lengths = {'short': 1.5, 'exact': 5.0, 'long': 11.3}
  (tmp_path / 'in').mkdir()
  for name, seconds in lengths.items():
    frames = rng.integers(0, 255, (round(seconds * 10), 72, 128, 3)).astype(np.uint8)
    mux.write_mp4(tmp_path / 'in' / f'{name}.mp4', frames=frames, fps=10)
  sample(config, workdir, input_path=tmp_path / 'in', prompt='a click', output=tmp_path / 'out')
  for name in lengths:
    source = media.decode(tmp_path / 'in' / f'{name}.mp4', need_audio=False)
    result = media.decode(tmp_path / 'out' / f'{name}.mp4')
    assert len(result.frames) == len(source.frames)
    assert abs(len(result.audio) / result.sample_rate - source.duration) <= 0.1


@pytest.mark.slow
def test_broken_clips_are_replaced_counted_and_listed(tmp_path, capsys):
  from avlink_jax.data.media import mux
  config = runs.config_of('v2a', runs.parts(tmp_path))
  data = tmp_path / 'data' / 'train'
  for split in ('train', 'validation'):
    (tmp_path / 'data' / split).mkdir(parents=True)
    for i in range(2):
      mux.write_mp4(tmp_path / 'data' / split / f'{split}{i}.mp4', fps=6,
                    frames=np.full((36, 36, 64, 3), 100 * i, np.uint8), sample_rate=16_000,
                    audio=np.sin(np.arange(96_000) * 0.1 * (i + 1)).astype(np.float32))
  (data / 'empty.mp4').write_bytes(b'')
  (data / 'text.mp4').write_bytes(b'not a video at all' * 99)
  config.data.source = str(tmp_path / 'data')
  train(config, tmp_path / 'run')
  listed = {row['clip']: row['reason'] for row in map(
      json.loads, (tmp_path / 'run' / 'skipped.jsonl').read_text().splitlines())}
  assert listed == {'empty': 'empty file', 'text': 'not a media file'}
  last = [row for row in rows(tmp_path / 'run') if 'loss' in row][-1]
  assert last['skipped_clips'] == 2 and last['silent_clips'] == 0
  assert 1 <= last['replaced_examples'] <= 4  # of two steps of two
  # The same clips and weights at other paths are no other run.
  config.data.source = str((tmp_path / 'data').rename(tmp_path / 'moved'))
  audio = pathlib.Path(config.frozen.audio)
  config.frozen.audio = str(audio.rename(tmp_path / 'moved.safetensors'))
  train(config, tmp_path / 'run')
  said = capsys.readouterr().err
  assert 'moved.safetensors' in said and 'the same, at another place' in said
  (tmp_path / 'moved' / 'train' / 'train0.mp4').write_bytes(b'another')
  with pytest.raises(UserError, match='data.source: '):
    config.data.source = str((tmp_path / 'moved').rename(tmp_path / 'again'))
    train(config, tmp_path / 'run')


def test_every_mode_of_the_command_line_is_documented():
  readme = (pathlib.Path(__file__).parents[2] / 'README.md').read_text()
  assert all(f'--mode={mode}' in readme for mode in MODES if mode != 'train')
