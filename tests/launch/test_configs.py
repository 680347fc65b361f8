"""Shipped configs: rendered as golden files, so that a changed default shows as a diff."""

import importlib
import os
import pathlib
import re

import pytest
import yaml

from avlink_jax.configs import common

ROOT = pathlib.Path(__file__).parents[2]
TASKS = sorted(p.stem for p in (ROOT / 'configs').glob('*.py')
               if p.stem not in ('common', 'ablations'))  # the latter: test_ablations.py


def rendered(task, scale):
  config = importlib.import_module(f'avlink_jax.configs.{task}').get_config(scale)
  return yaml.safe_dump(config.to_dict() | {'generate': list(config.generate)}, sort_keys=True,
                        default_flow_style=None)


@pytest.mark.parametrize('scale', common.SCALES)
@pytest.mark.parametrize('task', TASKS)
def test_a_config_is_what_was_reviewed(task, scale):
  """After a wanted change: AVLINK_UPDATE_GOLDEN=1 pytest tests/launch/test_configs.py, and a look.
  """
  golden = ROOT / 'tests' / 'golden' / f'{task}-{scale}.yaml'
  text = rendered(task, scale)
  if os.environ.get('AVLINK_UPDATE_GOLDEN'):
    golden.write_text(text)
  assert golden.read_text() == text


def leaves(tree, path=()):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from leaves(value, path + (key,))
    else:
      yield path + (key,)


def test_every_config_key_is_read_by_something():
  code = '\n'.join(p.read_text() for p in (ROOT / 'avlink_jax').rglob('*.py'))
  keys = {path for task in TASKS for path in leaves(
      importlib.import_module(f'avlink_jax.configs.{task}').get_config('nano').to_dict())}
  read_by_name = {'frozen', 'condition_time', 'mesh'}  # subscripted or passed on whole
  unread = [path for path in keys if not re.search(rf'\.{path[-1]}\b', code)
            and not read_by_name & set(path)]
  assert not unread


def test_paper_scale_has_the_papers_numbers():
  config = importlib.import_module('avlink_jax.configs.v2a').get_config()
  assert (config.towers.video.width, config.towers.video.depth, config.fusion.blocks) == (
      1024, 24, 8)
  assert (config.train.steps, config.train.batch_size, config.train.learning_rate) == (
      50_000, 256, 3e-4)
  assert (config.flow.location.audio, config.flow.condition_time.video) == (-1.0, 0.96)
  assert (config.sample.steps, config.sample.guidance, config.sample.shift.audio) == (64, 5.0, 0.0)
