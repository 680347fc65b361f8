"""The upsampler's benchmark: its baseline in closed form, and who is judged best."""

import json

import numpy as np
import pytest

from avlink_jax.data import mux
from avlink_jax.data.impacts import Impacts
from avlink_jax.errors import UserError
from tests.benchmarks import upsampling


def test_the_low_resolution_clip_is_the_mean_over_boxes_of_every_fourth_frame():
  frames = np.random.default_rng(0).integers(0, 256, (9, 16, 24, 3), np.uint8)
  low = upsampling.lowered(frames)
  assert low.shape == (3, 2, 3, 3)
  assert low[1, 1, 2, 0] == pytest.approx(frames[4, 8:, 16:, 0].mean(), rel=1e-6)


def test_the_baseline_is_exact_where_pictures_are_flat_and_time_is_linear():
  ramp = np.repeat(np.arange(13, dtype=np.uint8) * 8, 16 * 24 * 3).reshape(13, 16, 24, 3)
  made = upsampling.blended(upsampling.lowered(ramp), 13)
  np.testing.assert_array_equal(made, ramp)
  longer = upsampling.blended(upsampling.lowered(ramp), 15)
  np.testing.assert_array_equal(longer[13:], ramp[12:].repeat(2, 0))  # the last one stays


def test_the_baseline_is_exact_on_a_slope_but_at_the_edges():
  x = np.arange(96, dtype=np.float32)
  low = np.broadcast_to((2 * x).reshape(12, 8).mean(1)[:, None], (1, 4, 12, 3)).copy()
  made = upsampling.blended(low, 1)[0, 16]
  np.testing.assert_allclose(made[16:80, 0], 2 * x[16:80], atol=1)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """The truth of two clips as arrays, under the clips' own names."""
  path = tmp_path_factory.mktemp('upsampled')
  source = Impacts('test', height=72, width=128, fps=24.0, need_audio=False)
  for i in (3, 4):
    np.save(path / f'{source.name(i)}.npy', source.load(i).frames)
  return path


def test_the_truth_is_beyond_the_baseline_in_everything(folder, tmp_path, capsys):
  output = tmp_path / 'out.json'
  result = upsampling.main([f'--upsampled={folder}', f'--output={output}'])
  written = json.loads(output.read_text())
  assert written['baseline'] == result['baseline'] and written['upsampled']['psnr'] is None
  best, plain = result['upsampled'], result['baseline']
  assert best['psnr'] == np.inf and best['ssim'] == pytest.approx(1) and best['flicker'] == 0
  assert plain['psnr'] < 40 and plain['ssim'] < 0.99 and plain['flicker'] > 0
  for name in ('motion_f1', 'motion_f1_sixth', 'motion_f1_every_4th'):
    assert best[name] == result['reference'][name]
  low = result['low resolution']
  assert low['motion_f1'] == low['motion_f1_sixth'] == low['motion_f1_every_4th']
  printed = capsys.readouterr().out
  assert '2 clips' in printed and 'upsampled' in printed


def test_files_are_compared_with_files_of_a_folder(tmp_path):
  source = Impacts('test', height=72, width=128, fps=24.0, duration=2.0)
  clip = source.load(0)
  for name in ('made', 'true'):
    mux.write_mp4(tmp_path / name / 'a.mp4', frames=clip.frames[:48], fps=24.0)
  (tmp_path / 'true' / 'manifest.jsonl').write_text(json.dumps(
      {'id': 'a', 'files': {'video': 'a.mp4'}, 'events': list(clip.events)}))
  result = upsampling.compare(tmp_path / 'made', tmp_path / 'true')
  assert result['clips'] == 1 and result['upsampled']['psnr'] == np.inf
  assert result['upsampled']['motion_f1'] == result['reference']['motion_f1']
  (tmp_path / 'true' / 'a.mp4').unlink()
  with pytest.raises(UserError, match='no clip of that name'):
    upsampling.compare(tmp_path / 'made', tmp_path / 'true')


def test_a_clip_without_a_truth_is_told(tmp_path):
  with pytest.raises(UserError, match='no such folder'):
    upsampling.compare(tmp_path / 'none')
  np.save(tmp_path / 'mine.npy', np.zeros((4, 16, 16, 3), np.uint8))
  with pytest.raises(UserError, match='give --reference'):
    upsampling.compare(tmp_path)
