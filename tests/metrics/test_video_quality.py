"""PSNR, SSIM and flicker: closed forms, and scikit-image's figures."""

import numpy as np
import pytest

from avlink_jax.metrics import video_quality


def noise(seed, shape=(4, 24, 32, 3)):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(seed, shape=(3, 32, 48, 3)):
  """Waves, as pictures are smooth."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:shape[1], :shape[2]] / 9
  waves = np.sin(x * rng.uniform(.5, 1, (shape[0], 1, 1)) + y + rng.uniform(0, 6))
  return (127 + 100 * waves[..., None] * rng.uniform(.3, 1, 3)).astype(np.uint8)


def test_psnr_of_a_constant_error_is_its_closed_form():
  a = np.full((2, 8, 8, 3), 100, np.uint8)
  assert video_quality.psnr(a, a) == np.inf
  assert video_quality.psnr(a, a + 5) == pytest.approx(20 * np.log10(255 / 5))
  half = np.concatenate([a[:1], a[1:] + 5])  # the error of one frame of two
  assert video_quality.psnr(a, half) == pytest.approx(20 * np.log10(255 / 5) + 10 * np.log10(2))


def test_ssim_of_flat_pictures_is_its_closed_form():
  a, b = np.full((1, 16, 16, 3), 100, np.uint8), np.full((1, 16, 16, 3), 140, np.uint8)
  expected = (2 * 100 * 140 + video_quality.C1) / (100 ** 2 + 140 ** 2 + video_quality.C1)
  assert video_quality.ssim(a, b) == pytest.approx(expected, abs=1e-7)
  assert video_quality.ssim(a, a) == pytest.approx(1)


def test_ssim_is_what_its_formula_says_at_one_pixel():
  """An 11 × 11 picture has one window."""
  a, b = smooth(0, (1, 11, 11, 3)), noise(1, (1, 11, 11, 3))
  g = np.exp(-np.arange(-5, 6) ** 2 / (2 * 1.5 ** 2))
  g = np.outer(g, g) / np.outer(g, g).sum()
  x, y = (frame[0] @ np.array((.299, .587, .114)) for frame in (a, b))
  mx, my = (g * x).sum(), (g * y).sum()
  vx, vy, cov = ((g * p).sum() for p in ((x - mx) ** 2, (y - my) ** 2, (x - mx) * (y - my)))
  c1, c2 = video_quality.C1, video_quality.C2
  expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx ** 2 + my ** 2 + c1) * (vx + vy + c2))
  assert video_quality.ssim(a, b) == pytest.approx(expected, abs=1e-6)


def test_flicker_sees_what_changes_and_not_what_stays():
  a = noise(0) // 2
  assert video_quality.flicker(a, a) == video_quality.flicker(a, a + 7) == 0
  blinking = a + (np.arange(4) % 2 * 6).astype(np.uint8)[:, None, None, None]
  assert video_quality.flicker(a, blinking) == 6
  held = np.repeat(a[::2], 2, 0)
  assert video_quality.flicker(a, held) > 0


def test_all_are_worse_the_more_noise_there_is():
  true = smooth(3)
  rng, found = np.random.default_rng(0), []
  for level in (2, 8, 32):
    made = np.clip(true + rng.normal(0, level, true.shape), 0, 255).astype(np.uint8)
    found.append([getattr(video_quality, name)(true, made)
                  for name in ('psnr', 'ssim', 'flicker')])
  psnr, ssim, flicker = zip(*found, strict=True)
  assert psnr[0] > psnr[1] > psnr[2] and ssim[0] > ssim[1] > ssim[2]
  assert flicker[0] < flicker[1] < flicker[2]


def test_they_agree_with_scikit_image():
  metrics = pytest.importorskip('skimage.metrics', reason='scikit-image is not installed')
  for a, b in ((smooth(0), smooth(1)), (noise(2), noise(3)), (smooth(4), smooth(4) // 2 + 20)):
    luma = [frames @ np.array((.299, .587, .114)) for frames in (a, b)]
    expected = [metrics.structural_similarity(
        x, y, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        for x, y in zip(*luma, strict=True)]
    assert video_quality.ssim(a, b) == pytest.approx(np.mean(expected), abs=1e-5)
    assert video_quality.psnr(a, b) == pytest.approx(
        metrics.peak_signal_noise_ratio(a, b, data_range=255), rel=1e-6)


def test_what_cannot_be_compared_is_told():
  a = noise(0)
  for wrong in (a[1:], a.astype(np.float32), a[:, :, 1:]):
    with pytest.raises(ValueError):
      video_quality.psnr(a, wrong)
  with pytest.raises(ValueError, match='smaller than the window'):
    video_quality.ssim(a[:, :8], a[:, :8])
  with pytest.raises(ValueError, match='single frame'):
    video_quality.flicker(a[:1], a[:1])
