"""A mistake of the user's ends in one clear line and exit status 2, never in a traceback.

What a process has to show is shown with one, in each mode; other lines of main's are read here.
"""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import runs
from cli import ROOT, avlink, called, complaint
from PIL import Image

from avlink_jax import main
from avlink_jax.cli import config_files
from avlink_jax.configs import common
from avlink_jax.data.media import mux


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  path = tmp_path_factory.mktemp('clips') / 'clip.mp4'
  frames = np.zeros((12, 36, 64, 3), np.uint8)
  mux.write_mp4(path, frames=frames, fps=6, audio=np.zeros(32_000, np.float32),
                sample_rate=16_000)
  return path


def test_nothing_given_is_told_after_the_page():
  result = avlink()
  assert '--config' in complaint(result)
  assert 'Modes:' in result.stderr and not result.stdout


def test_a_mode_without_a_config_names_the_flag():
  assert '--mode=train needs --config' in complaint(avlink('--mode=train'))


@pytest.mark.parametrize('flag', ['-h', '--help'])
def test_help_is_a_page_with_modes_tasks_scales_and_flags(flag):
  result = avlink(flag)
  assert result.returncode == 0 and not result.stderr
  for word in (*main.MODES, *common.SCALES, *config_files.TASKS, '--workdir', '--prompt',
               '--config=configs/v2a.py:nano'):
    assert word in result.stdout, word
  assert max(map(len, result.stdout.splitlines())) <= 100


def test_help_with_a_config_lists_its_keys_with_values_and_comments():
  result = avlink('--help', '--config=configs/v2a.py:nano')
  assert result.returncode == 0 and not result.stderr
  row = next(line for line in result.stdout.splitlines() if 'train.batch_size=' in line)
  key, meaning = row.split(maxsplit=1)
  assert key == 'train.batch_size=16' and meaning == 'examples a step, on all devices together'


def test_help_that_is_not_read_to_its_end_ends_well():
  """As of `--help | head`."""
  command = [sys.executable, '-m', 'avlink_jax.main', '--help', '--config=configs/v2a.py']
  with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                        cwd=ROOT) as process:
    process.stdout.close()
    assert not process.stderr.read()
  assert process.returncode == 0


def test_help_for_a_config_that_is_not_there_is_a_mistake():
  assert 'configs/v2b.py' in complaint(avlink('--help', '--config=configs/v2b.py'))


def test_a_config_that_is_not_there_is_told_with_the_tasks():
  line = complaint(avlink('--config=configs/v2b.py'))
  assert 'configs/v2b.py' in line and 'v2a, a2v' in line


def test_an_unknown_scale_names_the_scales():
  line = complaint(called('--config=configs/v2a.py:huge'))
  assert 'huge' in line and 'nano' in line


@pytest.mark.parametrize('typo, meant', [
    ('train.stpes', 'train.steps'), ('trian.batch_size', 'train.batch_size'),
    ('sample.guidence', 'sample.guidance'), ('batchsize', 'train.batch_size')])
def test_an_unknown_config_key_is_told_with_those_near_it(typo, meant):
  line = complaint(called('--config=configs/v2a.py:nano', f'--config.{typo}=3'))
  assert line.startswith(f'avlink_jax: --config.{typo}: configs/v2a.py:nano has no such key: '
                         f'did you mean --config.{meant}')


def test_a_config_key_that_is_near_none_is_told_where_they_stand():
  line = complaint(called('--config', 'configs/v2a.py:nano', '--config.zzz=3'))
  assert 'zzz' in line and '--help --config=configs/v2a.py:nano' in line


def test_a_config_key_without_a_config_is_told():
  assert 'give --config=' in complaint(called('--config.train.steps=3'))


def test_a_config_value_of_the_wrong_type_is_named():
  assert 'steps' in complaint(called('--config=configs/v2a.py:nano', '--config.train.steps=many'))


def test_an_unknown_mode_names_the_modes():
  line = complaint(called('--config=configs/v2a.py:nano', '--mode=dance'))
  assert 'dance' in line and 'sample' in line


@pytest.mark.parametrize('flag', ['--workdir=s3://bucket/run', '--workdir=gs://bucket'])
def test_a_bucket_that_cannot_be_a_workdir_is_refused_rather_than_made_a_folder(flag):
  line = complaint(called('--config=configs/v2a.py:nano', flag))
  assert flag in line and 'mount' in line and 'gs://BUCKET/FOLDER' in line


@pytest.mark.skipif(importlib.util.find_spec('gcsfs') is not None, reason='gcsfs is installed')
def test_a_bucket_without_gcsfs_says_what_to_install():
  line = complaint(called('--config=configs/v2a.py:nano', '--workdir=gs://bucket/run'))
  assert 'gs://bucket/run' in line and 'pip install gcsfs' in line


def test_an_unknown_flag_is_told_after_the_page_with_those_near_it():
  result = avlink('--config=configs/v2a.py:nano', '--workdri=x')
  assert '--workdri: no such flag: did you mean --workdir?' in complaint(result)
  assert 'Modes:' in result.stderr


def test_paper_scale_on_a_cpu_names_the_nano_command(tmp_path):
  line = complaint(avlink('--config=configs/v2a.py', f'--workdir={tmp_path}'))
  assert 'configs/v2a.py:nano' in line


def test_no_data_is_told(tmp_path):
  assert 'data.source' in complaint(called(
      '--config=configs/v2a.py:nano', f'--workdir={tmp_path}', '--config.data.source='))


def test_a_data_folder_that_is_not_there_is_told(tmp_path):
  assert '/no/such/folder' in complaint(called(
      '--config=configs/v2a.py:nano', f'--workdir={tmp_path}',
      '--config.data.source=/no/such/folder'))


def test_frozen_weights_that_are_not_there_are_told(tmp_path):
  assert '/no/such/run' in complaint(called(
      '--config=configs/v2a.py:nano', f'--workdir={tmp_path}',
      '--config.frozen.audio=/no/such/run'))


def test_a_workdir_that_cannot_be_written_is_told(tmp_path):
  (tmp_path / 'file').write_text('')
  assert 'file' in complaint(called(
      '--config=configs/v2a.py:nano', f'--workdir={tmp_path}/file/run'))


@pytest.mark.parametrize('prompt, words', [
    ('ding\x07dong', 'control characters'), ('x ' * 10_000, '10,000')])
def test_a_prompt_that_cannot_be_used_is_told(tmp_path, clip, prompt, words):
  assert words in complaint(called(
      '--config=configs/v2a.py:nano', f'--workdir={tmp_path}', '--mode=sample',
      f'--input={clip}', f'--output={tmp_path}/out', f'--prompt={prompt}'))


@pytest.mark.parametrize('config, more, words', [
    ('t2a.py:nano', ['--prompt=no_such.txt'], 'no_such.txt: cannot be read'),
    ('t2a.py:nano', ['--input=a.mp4'], 'leave --input out'),
    ('joint.py:nano', ['--config.sample.direction=sideways'], 'audio or video')])
def test_what_a_task_cannot_sample_from_is_told(tmp_path, config, more, words):
  assert words in complaint(called(
      f'--config=configs/{config}', f'--workdir={tmp_path}', '--mode=sample',
      f'--output={tmp_path}/out', *more))


def test_a_vocoder_that_is_not_there_is_told(tmp_path):
  assert 'no/such' in complaint(called(
      '--config=configs/t2a.py:nano', '--mode=sample', f'--output={tmp_path}/out',
      '--prompt=a drum', '--config.sample.vocoder=no/such'))


def test_a_workdir_that_was_named_and_has_no_checkpoint_is_told(tmp_path, clip):
  """Whoever names a run wants its weights, and not the bundled ones."""
  line = complaint(called(
      '--config=configs/v2a.py:nano', f'--workdir={tmp_path}', '--mode=sample',
      f'--input={clip}', f'--output={tmp_path}/out'))
  assert f'{tmp_path} has no checkpoint' in line and 'leave --workdir out' in line
  assert not (tmp_path / 'out').exists()


def test_a_text_encoder_that_is_not_there_is_told(tmp_path):
  """It is read in the threads that load the data, when the first caption comes."""
  with runs.quickly_compiled():
    result = called('--config=configs/t2v.py:nano', f'--workdir={tmp_path}',
                    '--config.text.encoder=t5', '--config.text.t5=/no/t5',
                    '--config.data.impacts_clips=4')
  assert '/no/t5: no such folder' in complaint(result)


def test_an_input_that_is_an_image_is_told(tmp_path):
  Image.new('RGB', (64, 36)).save(tmp_path / 'photo.png')
  assert 'image' in complaint(called(
      '--config=configs/v2a.py:nano', f'--workdir={tmp_path}', '--mode=sample',
      f'--input={tmp_path}/photo.png', f'--output={tmp_path}/out'))


def test_an_input_that_is_not_there_is_told(tmp_path):
  assert 'no_clip.mp4' in complaint(avlink(
      '--config=configs/v2a.py:nano', f'--workdir={tmp_path}', '--mode=sample',
      '--input=no_clip.mp4', f'--output={tmp_path}/out'))


def test_an_output_folder_that_cannot_be_written_is_told(tmp_path, clip):
  (tmp_path / 'file').write_text('')
  assert f'{tmp_path}/file' in complaint(called(
      '--config=configs/v2a.py:nano', '--mode=sample', f'--input={clip}',
      f'--output={tmp_path}/file/out'))


def test_evaluate_without_folders_says_which_flag_is_missing():
  assert '--generated' in complaint(called('--mode=evaluate'))


def test_evaluate_where_nothing_matches_is_told(tmp_path, clip):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'b').mkdir()
  (tmp_path / 'a' / 'one.mp4').write_bytes(clip.read_bytes())
  (tmp_path / 'b' / 'two.mp4').write_bytes(clip.read_bytes())
  assert 'no clip in' in complaint(avlink(
      '--mode=evaluate', f'--generated={tmp_path}/a', f'--reference={tmp_path}/b',
      f'--output={tmp_path}/scores.json'))
