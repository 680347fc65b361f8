"""The benchmark on a few clips by heart: which clips; trained on and sampled are the same."""

import pytest

from avlink_jax.data.sources.folder import Folder
from tests.benchmarks import overfit

ROWS = [('b.mp4', 'A Drum is hit'), ('a.mp4', 'hammer'), ('c.mp4', 'rain'), ('d.mp4', 'drum')]


@pytest.fixture
def folder(tmp_path):
  for name, _ in ROWS:
    (tmp_path / name).write_bytes(b'')
  (tmp_path / 'captions.csv').write_text('file,caption\n' + ''.join(
      f'{name},{caption}\n' for name, caption in ROWS))
  return tmp_path


def test_the_first_clips_are_taken_whose_captions_have_one_of_the_words(folder):
  chosen = overfit.choose(folder, ('drum', 'hammer'), 2)
  assert {path.name: caption for path, caption in chosen.items()} == {
      'a.mp4': 'hammer', 'b.mp4': 'A Drum is hit'}


def test_the_same_clips_are_trained_on_and_sampled(folder, tmp_path):
  for _ in range(2):  # a run that is started again
    overfit.prepare(overfit.choose(folder, ('drum',), 8), tmp_path / 'run')
  for split in ('train', 'test'):
    clips = Folder(tmp_path / 'run', height=2, width=2, sample_rate=8000, split=split)
    assert [clips.name(i) for i in range(len(clips))] == ['b', 'd']
    assert [clips.caption(i) for i in range(len(clips))] == ['A Drum is hit', 'drum']
    assert clips.notes == []
