"""A data source is known again at another path, and is not taken for another one."""

import shutil

import preparing
import pytest

from avlink_jax.data import identity
from avlink_jax.data.impacts import Impacts
from avlink_jax.data.sources.folder import Folder
from avlink_jax.data.sources.mixture import Mixture
from avlink_jax.data.sources.records import Records

SIZE = dict(height=8, width=16, sample_rate=16_000)


@pytest.fixture
def clips(tmp_path):
  """A folder of files that are listed, and not decoded."""
  folder = tmp_path / 'clips'
  folder.mkdir()
  for number in range(4):
    (folder / f'{number}.mp4').write_bytes(bytes(number + 1))
  (folder / 'captions.csv').write_text('file,caption\n0.mp4,a dog\n')
  return folder


def of(folder, split='train'):
  return identity.of(Folder(folder, split=split, **SIZE))


def test_a_folder_is_known_again_elsewhere_by_its_clips(clips, tmp_path):
  before = of(clips)
  moved = shutil.copytree(clips, tmp_path / 'elsewhere' / 'other')
  assert of(moved) == before != of(clips, split='test')


@pytest.mark.parametrize('change', [
    lambda folder: (folder / '0.mp4').rename(folder / '9.mp4'),
    lambda folder: (folder / '1.mp4').write_bytes(bytes(99)),
    lambda folder: (folder / '8.mp4').write_bytes(bytes(9)),
    lambda folder: (folder / 'captions.csv').write_text('file,caption\n0.mp4,a cat\n')])
def test_another_folder_is_not_taken_for_it(clips, change):
  before = of(clips, None)
  change(clips)
  assert of(clips, None) != before


def test_records_are_known_again_elsewhere(tmp_path):
  for number in range(2):
    preparing.write_clip(tmp_path / 'in' / f'{number}.mp4', level=50 * number)
  preparing.run(tmp_path / 'in', tmp_path / 'out')
  opened = lambda folder: Records(folder, 'train', preparing.LAYOUT)  # noqa: E731
  before = identity.of(opened(tmp_path / 'out'))
  moved = shutil.move(tmp_path / 'out', tmp_path / 'moved')
  assert identity.of(opened(moved)) == before
  preparing.write_clip(tmp_path / 'in' / '2.mp4', level=200)
  preparing.run(tmp_path / 'in', tmp_path / 'more')
  assert identity.of(opened(tmp_path / 'more')) != before


def test_a_mixture_is_what_its_parts_and_weights_are():
  parts = [Impacts('train', seed, size=4) for seed in (0, 1)]
  mixed = identity.of(Mixture(parts, ['a', 'b'], [1.0, 2.0]))
  assert mixed == identity.of(Mixture(parts, ['x', 'y'], [1.0, 2.0]))
  assert mixed != identity.of(Mixture(parts, ['a', 'b'], [2.0, 1.0]))
  assert mixed != identity.of(Mixture(parts[::-1], ['a', 'b'], [1.0, 2.0]))


def test_a_source_that_does_not_say_what_it_is_is_unknown():
  assert identity.of(range(3)) is None
