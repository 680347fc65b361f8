"""Pictures in mode `evaluate`: scored where a manifest says how they were generated."""

import numpy as np
import pytest

from avlink_jax.data.impacts import Impacts
from avlink_jax.evaluate import evaluate, summary
from avlink_jax.evaluation.pictures import NAMES
from avlink_jax.metrics import body_training
from avlink_jax.samples.folder import write_sample

BASE = {'height': 36, 'width': 64, 'fps': 6.0, 'patch': [12, 16]}


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """Folders of three clips: tiled, and their references; three true ones, upsampled."""
  world, rng = Impacts('test', size=3), np.random.default_rng(0)
  tiled, reference, large = (tmp_path_factory.mktemp(name)
                             for name in ('tiled', 'reference', 'large'))
  for i in range(3):
    clip = world.load(i)
    record = {'source': 'impacts', 'task': 't2v'}
    write_sample(reference, str(i), frames=clip.frames, fps=6.0, record=record)
    write_sample(tiled, str(i), frames=body_training.tiled(clip.frames, (12, 16), 0.25, rng),
                 fps=6.0, generated=['video'], record=record | {'base': BASE})
    write_sample(large, str(i), frames=np.zeros((124, 288, 512, 3), np.uint8), fps=24.0,
                 low=clip.frames, low_fps=6.0, generated=['video'], record=record | {'base': BASE})
  return tiled, reference, large


def test_tiles_have_borders_and_no_bodies(folders):
  tiled, reference, _ = folders
  result = evaluate(tiled, reference)
  assert result['picture_border'] > 1.5 * result['reference_picture_border']
  assert result['picture_gradient'] != result['reference_picture_gradient']
  assert result['picture_body'] < 0.4 < 0.9 < result['reference_picture_body']
  assert set(NAMES) <= set(result['intervals']) and 'picture_body ' in summary(result)
  assert not any(name.startswith('control_picture') for name in result)


def test_of_upsampled_clips_what_the_base_model_made_is_judged(folders):
  _, reference, large = folders
  result = evaluate(large, reference)
  for name in NAMES:
    assert result[name] == pytest.approx(result[f'reference_{name}'], abs=1e-6)


def test_without_a_word_on_how_they_were_made_there_are_no_such_scores(folders):
  _, reference, _ = folders
  assert not any('picture_' in name for name in evaluate(reference, reference))


def test_bodies_are_those_of_impacts(folders, tmp_path):
  tiled, reference, _ = folders
  for i in range(3):
    write_sample(tmp_path, str(i), frames=Impacts('test', size=3).load(i).frames, fps=6.0,
                 record={'source': 'clips'})
  result = evaluate(tiled, tmp_path)
  assert result['picture_border'] is not None and result.get('picture_body') is None
