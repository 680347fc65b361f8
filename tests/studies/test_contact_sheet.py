"""Contact sheets: the same moments of a clip before, after and as it was, in rows."""

import json

import numpy as np
import pytest
from PIL import Image

from avlink_jax.data.media import mux
from avlink_jax.errors import MISTAKE
from avlink_jax.samples.folder import write_sample
from avlink_jax.studies import contact_sheet, figure

SECONDS = 2.0


def shades(count, height, width):
  """Frame n of N is grey, n / N of 240."""
  grey = (240 * np.arange(count) / count).astype(np.uint8)
  return np.broadcast_to(grey[:, None, None, None], (count, height, width, 3)).copy()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Two samples of 2 s at 24 fps, with a low-resolution version at 6 fps and the truth."""
  path = tmp_path_factory.mktemp('sheet') / 'samples'
  for id in 'ab':
    for place in (path, path / 'reference'):
      write_sample(place, id, frames=shades(48, 144, 256), fps=24, record={'task': 'upsampler'})
    mux.write_mp4(path / f'{id}_low.mp4', frames=shades(12, 72, 128), fps=6)
  rows = [{'id': id, 'files': {'video': f'{id}.mp4', 'low': f'{id}_low.mp4'}} for id in 'ab']
  (path / 'manifest.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  return path


def run(*arguments):
  return contact_sheet.main(list(map(str, arguments)))


@pytest.mark.parametrize('flags, later', [((), 0), (('--between',), 2)])
def test_rows_show_the_same_moments(folder, tmp_path, flags, later):
  out = tmp_path / 'out.png'
  assert run(f'--high={folder}', f'--reference={folder / "reference"}', *flags, out) == 0
  picture = np.asarray(Image.open(out)).astype(int)
  wide, high = 1240 // 4, round(1240 // 4 * 144 / 256)
  assert picture.shape == (2 * 3 * high + figure.GAP, 1240, 3)
  middles = picture[high // 2::high, wide // 2::wide][:3, :4, 0]  # of the first clip
  # Middles of quarters of 2 s, where a frame of 6 a second begins.
  times = np.floor((np.arange(4) + 0.5) * 0.5 * 6) / 6
  shown = [times, times + later / 24, times + later / 24]  # the low-resolution one stays
  np.testing.assert_allclose(middles, 240 * np.array(shown) / SECONDS, atol=4)


def test_low_versions_may_lie_in_a_folder_of_their_own(folder, tmp_path):
  for id in 'ab':
    mux.write_mp4(tmp_path / 'low' / f'{id}.mp4', frames=shades(12, 36, 64), fps=6)
  assert run(f'--high={folder}', f'--low={tmp_path / "low"}', '--count=1', tmp_path / 'a.png') == 0
  assert Image.open(tmp_path / 'a.png').size == (1240, 2 * round(310 * 9 / 16))


@pytest.mark.parametrize('flags, said', [
    (['--high=none'], '--high=none: no such folder'),
    (['--high={folder}/reference'], 'has a low-resolution version beside it: give --low'),
    (['--high={folder}', '--low={folder}/reference/figures'], 'no such folder'),
    (['--high={folder}', '--count=0'], 'begin at 1')])
def test_mistakes_end_in_one_line(folder, tmp_path, capsys, flags, said):
  assert run(*(flag.format(folder=folder) for flag in flags), tmp_path / 'a.png') == MISTAKE
  error = capsys.readouterr().err
  assert said in error and error.count('\n') == 1
  assert not (tmp_path / 'a.png').exists()
