"""The check for overfitting: copies of training clips are found, and others are not."""

from types import SimpleNamespace

import numpy as np
import pytest
from timed_clips import clicks, write_sounds

from avlink_jax.data.media.decode import decode
from avlink_jax.errors import MISTAKE
from avlink_jax.studies import overfitting


class Ear:
  """Loudness in 30 parts of a clip."""
  network = SimpleNamespace(name='ear', sees=False)

  def clip(self, path, seconds):
    wave = decode(path, need_video=False, duration=seconds).audio
    return {'embedding': np.abs(wave[:len(wave) // 30 * 30]).reshape(1, 30, -1).mean(-1)}


def test_a_copy_is_beside_what_it_copies_and_other_clips_are_not(tmp_path):
  known = {f't{k}': clicks([0.2 + 0.35 * k]) for k in range(8)}
  training = write_sounds(tmp_path / 'training', known)
  ours = write_sounds(tmp_path / 'ours', {'copy': 0.5 * known['t3'], 'own': clicks([0.4, 1.45])})
  other = write_sounds(tmp_path / 'other', {'new': clicks([0.4, 1.45, 2.5])})
  result = overfitting.study(ours, training, other, Ear())
  best, rest = result['generated']['pairs']
  assert (best['id'], best['nearest']) == ('copy', 't3')
  assert best['similarity'] == pytest.approx(1, abs=1e-3) and rest['similarity'] < 0.8
  assert result['held_out']['mean'] < result['generated']['mean']
  assert 'copy  like  t3' in overfitting.summary(result)


def test_mistakes_are_told_in_one_line(tmp_path, capsys):
  given = [f'--generated={tmp_path}', f'--training={tmp_path}']
  assert overfitting.main([*given, '--network=eye']) == MISTAKE
  assert 'no such network; there are' in capsys.readouterr().err
