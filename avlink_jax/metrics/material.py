"""Which material a clip of the benchmark of timing sounds like, by a linear probe.

    python -m avlink_jax.metrics.material OUT.npz [--clips=2048]

fits it to sounds of `impacts`' train split, clean and blurred, and prints its share of right
answers on 512 others. The bundled one was made so, and is right in 0.904 of them. Features:
log-mels at the loudest rises and shortly after, each to its peak, so that level does not matter. A
soft striker makes any surface sound soft, so that the answer is the material struck, or rubber.
"""

import argparse
import collections
import functools
import json
import pathlib
import sys

import librosa
import numpy as np
from scipy.ndimage import gaussian_filter

RATE, N_FFT, HOP, BANDS = 16_000, 1024, 160, 64
AFTER = (-3, 0, 1, 2, 4, 6, 9, 13, 18)  # frames from a loudest rise on
MOMENTS, APART = 6, 20  # rises of a clip; frames between them, at least
SHORTEST = 0.1  # seconds
FILE = pathlib.Path(__file__).parents[1] / 'assets' / 'material_probe.npz'


def heard(materials: list) -> str:
  """Material that a clip sounds like; `materials`: [mover, struck] of each contact."""
  (mover, struck), _ = collections.Counter(map(tuple, materials)).most_common(1)[0]
  return 'rubber' if mover == 'rubber' else struck


def log_mel(wave: np.ndarray) -> np.ndarray:
  """Log-mel float32 (T, 64) of a mono wave at 16 kHz, to its peak."""
  peak = np.abs(wave).max(initial=0.0) or 1.0
  mel = librosa.feature.melspectrogram(y=np.asarray(wave, np.float32) / peak, sr=RATE, n_fft=N_FFT,
                                       hop_length=HOP, n_mels=BANDS, power=1.0)
  return np.log(np.maximum(mel, 1e-4)).T


def features(mel: np.ndarray) -> np.ndarray:
  """Features float32 (576,) of a log-mel (T, 64)."""
  level = np.log(np.exp(mel).sum(1) + 1e-3)
  rise = np.diff(level, prepend=level[0]) + 0.1 * level
  found: list[int] = []
  for frame in np.argsort(-rise, kind='stable'):
    if all(abs(frame - other) > APART for other in found):
      found.append(int(frame))
    if len(found) == MOMENTS:
      break
  rows = np.clip(np.array(found)[:, None] + AFTER, 0, len(mel) - 1)
  parts = mel[rows]
  return (parts - parts.max((1, 2), keepdims=True)).mean(0).ravel().astype(np.float32)


@functools.cache
def probe() -> dict:
  """The bundled probe: {'weights' (576, M), 'bias' (M,), 'names' (M,)}."""
  with np.load(FILE, allow_pickle=False) as saved:
    return dict(saved)


def named(wave: np.ndarray, sample_rate: int, of: dict | None = None) -> str | None:
  """Name of the material that a mono wave (S,) sounds like; None where it is silent or shorter than
  a tenth of a second."""
  if len(wave) < SHORTEST * sample_rate or not np.abs(wave).max(initial=0.0) > 1e-4:
    return None
  if sample_rate != RATE:
    wave = librosa.resample(np.asarray(wave, np.float32), orig_sr=sample_rate, target_sr=RATE)
  of = of or probe()
  return str(of['names'][np.argmax(features(log_mel(wave)) @ of['weights'] + of['bias'])])


def examples(split: str, count: int):
  """Yields (wave, material) of clips of `impacts`."""
  from avlink_jax.data.impacts import Impacts
  from avlink_jax.data.impacts import audio as impact_audio
  world = Impacts(split, size=count, sample_rate=RATE)
  for i in range(count):
    scene = world.scene(i)
    wave = impact_audio.synthesise(scene, world.chance(i, 1), world.duration, RATE)
    yield wave, heard([scene.pairs[k] for k in scene.pair])


def fit(count: int) -> dict:
  """Fits a probe to so many clips, each as it is and blurred."""
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import StandardScaler
  chance, rows, answers = np.random.default_rng(0), [], []
  for wave, answer in examples('train', count):
    mel = log_mel(wave)
    for blur in (0.0, chance.uniform(0.3, 1.5)):
      rows.append(features(gaussian_filter(mel, blur)))
      answers.append(answer)
  model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)).fit(
      rows, answers)
  scaler, linear = model[0], model[1]
  weights = (linear.coef_ / scaler.scale_).T
  return {'weights': weights.astype(np.float32), 'names': linear.classes_.astype(str),
          'bias': (linear.intercept_ - scaler.mean_ @ weights).astype(np.float32)}


def main(argv=None) -> int:
  """Fits, tests and writes a probe."""
  parser = argparse.ArgumentParser(prog='python -m avlink_jax.metrics.material',
                                   description=__doc__.splitlines()[0])
  parser.add_argument('output')
  parser.add_argument('--clips', type=int, default=2048)
  options = parser.parse_args(argv)
  made = fit(options.clips)
  right = [named(wave, RATE, made) == answer for wave, answer in examples('validation', 512)]
  np.savez_compressed(options.output, **made)
  print(json.dumps({'clips': options.clips, 'right': round(float(np.mean(right)), 3)}))
  return 0


if __name__ == '__main__':
  sys.exit(main())
