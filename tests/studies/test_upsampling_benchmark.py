"""The upsampler's benchmark: its baseline in closed form, and who is judged best."""

import json
import types

import cv2
import jax
import numpy as np
import pytest
import runs
from tolerance import sum_tolerance

from avlink_jax.data.impacts import Impacts
from avlink_jax.data.media import mux
from avlink_jax.errors import UserError
from avlink_jax.metrics.networks import efficientnet_lite0
from tests.benchmarks import upsampling


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with runs.quickly_compiled():
    yield


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
  intervals = result['intervals']
  assert intervals['baseline']['psnr'] is None and written['intervals'] == intervals
  assert 0 < intervals['baseline']['ssim'][0] <= intervals['baseline']['ssim'][1]
  low_high = intervals['low resolution']['motion_f1_every_4th']
  assert low_high[0] - 1e-6 <= (best['motion_f1_every_4th'] - low['motion_f1_every_4th']
                                ) <= low_high[1] + 1e-6
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


def efficientnet_weights():
  """Random ones in EfficientNet-lite0's public layout."""
  chance = np.random.default_rng(0)
  weights = {}

  def layer(conv, norm, out, size, inside):
    weights[f'{conv}.weight'] = np.float32(
        chance.standard_normal((out, inside, size, size)) * (2 / (inside * size ** 2)) ** 0.5)
    for name, value in dict(weight=np.ones(out), bias=chance.normal(0, 0.1, out),
                            running_mean=np.zeros(out), running_var=np.ones(out)).items():
      weights[f'{norm}.{name}'] = np.float32(value)

  layer('_conv_stem', '_bn0', 32, 3, 3)
  before, number = 32, 0
  for (repeats, _), size, out in zip(efficientnet_lite0.STAGES, (3, 3, 5, 3, 5, 5, 3),
                                     (16, 24, 40, 80, 112, 192, 320), strict=True):
    for _ in range(repeats):
      name, wide = f'_blocks.{number}', before * (6 if number else 1)
      if number:
        layer(f'{name}._expand_conv', f'{name}._bn0', wide, 1, before)
      layer(f'{name}._depthwise_conv', f'{name}._bn1', wide, size, 1)
      layer(f'{name}._project_conv', f'{name}._bn2', out, 1, wide)
      before, number = out, number + 1
  return weights


def test_how_a_clip_looks_is_lpips_of_some_of_its_frames():
  looks = upsampling.Looks(types.SimpleNamespace(weights=efficientnet_weights()))
  true = np.random.default_rng(0).integers(0, 256, (17, 64, 96, 3), np.uint8)
  blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.0) for frame in true])
  # Unit vectors, through layers that add up some thousand numbers; squared.
  assert looks(true, true) < sum_tolerance(np.float32, 1000) ** 2
  assert 0 < looks(true, (true // 2 + blurred // 2)) < looks(true, blurred)
  # Of each stage the same part: the mean over places of the squared distance of unit vectors.
  features = jax.jit(looks.features)
  x, y = (features(np.float32(clip[[2, 15]]) / 255) for clip in (true, blurred))
  unit = lambda a: a / np.sqrt(np.sum(np.square(a), -1, keepdims=True) + looks.floor)  # noqa: E731
  expected = np.mean([np.mean(np.sum((unit(a) - unit(b)) ** 2, -1))
                      for a, b in zip(x, y, strict=True)])
  assert len(x) == 7 and x[-1].shape == (2, 2, 3, 320)
  assert looks(true, blurred) == pytest.approx(expected, rel=1e-4)
