"""From which flow time on do the noisy latents of a sound show its onsets by themselves?

    python -m tests.benchmarks.timing_in_noise [weights.safetensors of a mel_vae]

Above that t the Fusion Blocks have nothing to say about timing; below it the video is all
there is. That is where the law of t of fusion training has to put its examples
(`flow.location`), and the sampler its steps (`sample.shift`). A plain detector: ridge
regression from a window of noisy latents to 'an onset happens here', trained and tested at
each t; F1 at ±100 ms against the exact event times.
"""

import sys

import jax
import mir_eval
import numpy as np

from avlink_jax import build as models
from avlink_jax.data import batch as batches
from avlink_jax.data.impacts import Impacts
from avlink_jax.storage import weights
from configs import t2a

REACH = 3  # latents on either side that the detector sees
TIMES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.0)


def latents_and_events(built, tree, split, count):
  """Scaled latents (N, T, C) of the first clips, and their exact event times."""
  source = Impacts(split)
  clips = [source.load(i) for i in range(count)]
  codec = built.modalities['audio'].codec
  mel = np.stack([batches.read(clip, 0.0, built.layout, codec)['mel'] for clip in clips])
  encode = jax.jit(codec.vae.encode)
  return np.asarray(encode(tree['params'], tree['stats']['std'], mel)), [c.events for c in clips]


def windows(x):
  """(N, T, C) -> (N, T, (2·REACH + 1)·C), edges repeated."""
  padded = np.pad(x, ((0, 0), (REACH, REACH), (0, 0)), mode='edge')
  view = np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1, axis=1)
  return view.reshape(*x.shape[:2], -1)


def targets(events, steps, rate):
  """1 at the latent in which an event falls."""
  y = np.zeros((len(events), steps))
  for row, times in zip(y, events, strict=True):
    row[np.minimum((times * rate).astype(int), steps - 1)] = 1
  return y


def peaks(score, rate, threshold):
  """Times of local maxima above the threshold."""
  inner = score[1:-1]
  at = np.flatnonzero((inner > threshold) & (inner >= score[:-2]) & (inner > score[2:])) + 1
  return (at + 0.5) / rate


def f1(scores, events, rate):
  """Mean F1 at ±100 ms, at the best threshold: what a detector could reach."""
  return max(np.mean([mir_eval.onset.f_measure(e, peaks(s, rate, threshold), window=0.1)[0]
                      for s, e in zip(scores, events, strict=True)])
             for threshold in (0.1, 0.15, 0.2, 0.3, 0.4, 0.5))


def main():
  config = t2a.get_config('nano')
  built = models.build(config)
  path = sys.argv[1] if len(sys.argv) > 1 else weights.locate('codec', 'bundled', 'nano')
  tree, _ = weights.read(path)
  rate = built.modalities['audio'].codec.rate
  (train, train_events), (test, test_events) = (
      latents_and_events(built, tree, split, count)
      for split, count in (('train', 300), ('test', 64)))
  rng = np.random.default_rng(0)
  print('   t  F1 of a plain detector on the noisy latents')
  for t in TIMES:
    noisy = [t * x + (1 - t) * rng.standard_normal(x.shape) for x in (train, test)]
    a, b = (windows(x) for x in noisy)
    a = np.concatenate([a, np.ones(a.shape[:2] + (1,))], -1).reshape(-1, a.shape[-1] + 1)
    y = targets(train_events, train.shape[1], rate).ravel()
    w = np.linalg.solve(a.T @ a + 10.0 * np.eye(a.shape[1]), a.T @ y)
    print(f'{t:.2f}  {f1(b @ w[:-1] + w[-1], test_events, rate):.2f}', flush=True)


if __name__ == '__main__':
  main()
