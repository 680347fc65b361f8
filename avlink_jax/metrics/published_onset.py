"""Onset scores exactly as CondFoleyGen's public `predict_onset.py` computes them (the paper's ref.
20), for comparison with published tables; onset.py is what we report and says what it mends.

- Onsets are suppressed on the generated side only, and of two neighbours closer than 50 ms only the
  earlier one goes.
- In order of time each reference onset takes the candidate within ±100 ms whose own sample is the
  loudest. Once all generated onsets are taken, the references that are left count for accuracy, not
  for AP.
- A missed reference is ranked with confidence 0 among the candidates, so that AP is 1 where nothing
  was generated.
- Count accuracy compares the numbers before suppression.

Where the public code fails: windows end where the clip ends, and without an onset on either side AP
is None. Without a reference onset accuracy is 0, as it is there.
"""

import numpy as np

from avlink_jax.metrics.onset import (
  DETECTION_RATE,
  SUPPRESSION,
  TOLERANCE,
  Onsets,
  average_precision,
)

NAMES = ('accuracy', 'count_accuracy', 'ap')


def suppress(onsets: Onsets) -> Onsets:
  """The public code's suppression. It removes from the list that it goes through, and so passes
  over the neighbour after each that it removes."""
  remaining, kept = list(range(len(onsets.times))), []
  for k in np.argsort(onsets.confidences)[::-1]:
    if k not in remaining:
      continue
    kept.append(k)
    remaining.remove(k)
    i = 0
    while i < len(remaining):
      if abs(onsets.times[remaining[i]] - onsets.times[k]) < SUPPRESSION:
        del remaining[i]
      i += 1
  return onsets.at(np.sort(np.asarray(kept, int)))


def scores(reference: Onsets, generated: Onsets) -> dict:
  """Agreement of one clip's generated onsets with the reference's: {name: float or None} for NAMES.
  """
  count = float(len(reference.times) == len(generated.times))
  generated = suppress(generated)
  levels = generated.confidences if generated.levels is None else generated.levels
  places, free = np.round(generated.times * DETECTION_RATE), list(range(len(generated.times)))
  hit, ranked, hits = [], [], 0
  for place in np.round(reference.times * DETECTION_RATE):
    near = [g for g in free if abs(places[g] - place) < TOLERANCE * DETECTION_RATE]
    hit.append(True)
    if not near:
      ranked.append(0.0)
      continue
    chosen = near[int(np.argsort(levels[near])[-1])]
    ranked.append(generated.confidences[chosen])
    hits += 1
    free.remove(chosen)
    if not free:
      break
  positives = len(hit)
  hit += [False] * len(free)
  ranked += list(generated.confidences[free])
  ap = average_precision(hit, ranked, positives) if positives else (0.0 if free else None)
  return {'accuracy': hits / len(reference.times) if len(reference.times) else 0.0,
          'count_accuracy': count, 'ap': ap}
