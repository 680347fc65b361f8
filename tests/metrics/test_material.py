"""The probe that names the material a clip sounds like."""

import numpy as np
import pytest

from avlink_jax.evaluation import materials
from avlink_jax.metrics import material


def test_most_true_sounds_are_named_right_whatever_their_level_and_rate():
  clips = list(material.examples('test', 48))
  said = [material.named(wave, material.RATE) for wave, _ in clips]
  assert np.mean([name == answer for name, (_, answer) in zip(said, clips, strict=True)]) > 0.8
  assert said == [material.named(0.1 * wave, material.RATE) for wave, _ in clips]
  assert material.named(np.repeat(clips[0][0], 3)[:80_000], 3 * material.RATE) in (
      *material.probe()['names'], None)


def test_silence_has_no_material():
  assert material.named(np.zeros(16_000, np.float32), 16_000) is None
  assert material.named(np.ones(10, np.float32), 16_000) is None


@pytest.mark.parametrize('contacts, answer', [
    ([['wood', 'metal']] * 2 + [['wood', 'glass']], 'metal'), ([['rubber', 'metal']], 'rubber')])
def test_a_soft_striker_makes_any_surface_sound_soft(contacts, answer):
  assert material.heard(contacts) == answer


def test_clips_are_asked_only_where_a_manifest_names_materials(tmp_path):
  (tmp_path / 'manifest.jsonl').write_text('{"id": "a"}\n')
  assert materials.scores(tmp_path, [], {}, {}, ()) == {}
