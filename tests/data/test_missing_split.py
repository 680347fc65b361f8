"""A split that is missing is known before the first step, and what serves instead is named."""

import pytest
from micro import micro_config

from avlink_jax.data import pipeline
from avlink_jax.data.batch import Layout
from avlink_jax.errors import NoSplit


def opened(folder, split):
  config = micro_config('v2a', **{'data.source': str(folder)})
  return pipeline.open_source(config, Layout(1.0, 6.0, 8, 16), split)


def listed(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()
  return root


def test_without_clips_for_validation_those_of_test_serve(tmp_path, capsys):
  source = opened(listed(tmp_path, 'train/a.mp4', 'test/b.mp4'), 'validation')
  assert [source.name(i) for i in range(len(source))] == ['b']
  pipeline.tell_instead(source)
  assert 'no clips in validation/: clips of test serve for validation' in capsys.readouterr().err


def test_without_any_held_out_those_of_training_serve_and_that_is_said(tmp_path, capsys):
  source = opened(listed(tmp_path, 'train/a.mp4'), 'validation')
  pipeline.tell_instead(source)
  assert 'clips of train, on which is trained, serve for validation' in capsys.readouterr().err


def test_in_a_mixture_each_source_falls_back_by_itself(tmp_path, capsys):
  listed(tmp_path, 'x/train/a.mp4', 'x/validation/b.mp4', 'y/train/c.mp4', 'y/test/d.mp4')
  source = opened(f'{tmp_path}/x*1,{tmp_path}/y*1', 'validation')
  assert [source.name(i) for i in range(len(source))] == ['x/b', 'y/d']
  pipeline.tell_instead(source)
  said = capsys.readouterr().err
  assert f'{tmp_path}/y: ' in said and f'{tmp_path}/x: ' not in said


def test_nothing_serves_for_training_or_the_test(tmp_path, capsys):
  listed(tmp_path, 'train/a.mp4', 'validation/b.mp4')
  pipeline.tell_instead(opened(tmp_path, 'validation'))
  assert not capsys.readouterr().err
  with pytest.raises(NoSplit, match='no clips in test/'):
    opened(tmp_path, 'test')
  with pytest.raises(NoSplit, match='no clips in train/'):
    opened(listed(tmp_path / 'other', 'test/a.mp4'), 'train')
