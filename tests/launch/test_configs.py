"""Shipped configs: rendered as golden files, so that a changed default shows as a diff."""

import importlib
import os
import pathlib

import pytest
import yaml

from avlink_jax.cli import config_files, help
from avlink_jax.configs import common
from avlink_jax.training.resilience.config_drift import flat

ROOT = pathlib.Path(__file__).parents[2]
TASKS = sorted(p.stem for p in (ROOT / 'configs').glob('*.py')
               if p.stem not in ('common', 'public', 'ablations'))  # the last: test_ablations.py
SHIPPED = [(task, scale) for task in TASKS for scale in common.SCALES] + [
    (task, common.PUBLIC) for task in common.PUBLIC_TASKS]


def test_every_task_is_named_where_tasks_are_listed():
  assert sorted(config_files.TASKS) == TASKS


def rendered(task, scale):
  config = importlib.import_module(f'avlink_jax.configs.{task}').get_config(scale)
  return yaml.safe_dump(config.to_dict() | {'generate': list(config.generate)}, sort_keys=True,
                        default_flow_style=None)


@pytest.mark.parametrize('task, scale', SHIPPED)
def test_a_config_is_what_was_reviewed(task, scale):
  """After a wanted change: AVLINK_UPDATE_GOLDEN=1 pytest tests/launch/test_configs.py, and a look.
  """
  golden = ROOT / 'tests' / 'golden' / f'{task}-{scale}.yaml'
  text = rendered(task, scale)
  if os.environ.get('AVLINK_UPDATE_GOLDEN'):
    golden.write_text(text)
  assert golden.read_text() == text


@pytest.mark.parametrize('given', [*(f'configs/{task}.py:nano' for task in TASKS),
                                   'configs/v2a.py:public',
                                   'configs/ablations.py:cavp:nano'])
def test_every_config_key_has_a_comment_that_help_shows(given):
  config = config_files.load(given)
  known = help.comments(given, config.task)
  assert not [key for key in flat(config.to_dict()) if not help.meaning(key, known)]


def test_a_comment_stands_beside_its_key_or_above_it(tmp_path):
  (tmp_path / 'own.py').write_text("""def get_config():
  c = common.base('v2a', 'nano')
  c.section = ConfigDict(dict(  # of them
      one=1,  # the first
      # the second,
      # at length
      two=dict(a=1, b=2),
      three=3))  # the last
  # which tower
  c.towers[name].four = 4
  c.section.five, c.six = 5, 6  # both
  c.seven = 7
""")
  assert config_files.comments(tmp_path / 'own.py') == {
      'section': 'of them', 'section.one': 'the first', 'section.two': 'the second, at length',
      'section.two.a': 'the second, at length', 'section.two.b': 'the second, at length',
      'section.three': 'the last',
      'towers.*.four': 'which tower', 'section.five': 'both', 'six': 'both', 'seven': ''}


def test_paper_scale_has_the_papers_numbers():
  config = importlib.import_module('avlink_jax.configs.v2a').get_config()
  assert (config.towers.video.width, config.towers.video.depth, config.fusion.blocks) == (
      1024, 24, 8)
  assert (config.train.steps, config.train.batch_size, config.train.learning_rate) == (
      50_000, 256, 3e-4)
  assert (config.flow.location.audio, config.flow.condition_time.video) == (-1.0, 0.96)
  assert (config.sample.steps, config.sample.guidance, config.sample.shift.audio) == (64, 5.0, 0.0)
