"""How exactly generated audio keeps exact times: F1 at small tolerances, errors, strengths.

Most systems are late or early by a constant, which F1 at ±100 ms does not show: `lateness` does,
and `spread` is what is left beside it.
"""

import numpy as np
import scipy.stats

from avlink_jax.metrics import onset
from avlink_jax.metrics.onset import Onsets

TOLERANCES = {'f1_25ms': 0.025, 'f1_50ms': 0.05}  # seconds
NAMES = (*TOLERANCES, 'lateness', 'spread', 'strength')
FEWEST = 3  # matched events, below which there is no correlation


def scores(generated: Onsets, exact_times, strengths=None) -> dict:
  """Timing of one clip's onsets against exact times (R,) seconds, with strengths (R,) if known.

  Returns:
    {name: float or None} for NAMES: F1 within so many milliseconds; of the events with a partner
    within ±100 ms the median of onset − event (`lateness`, seconds) and the median distance from
    that (`spread`); Spearman's correlation of the onsets' confidences with the strengths
    (`strength`), None with fewer than three of them, or all alike.
  """
  order = np.argsort(np.asarray(exact_times, np.float64), kind='stable')
  times, generated = np.asarray(exact_times, np.float64)[order], onset.suppress(generated)
  total = len(times) + len(generated.times)

  def f1(tolerance):
    partners = onset.match(times, generated, tolerance)
    return 2 * int(np.count_nonzero(partners >= 0)) / total if total else None

  partners = onset.match(times, generated)
  hit = partners >= 0
  errors = generated.times[partners[hit]] - times[hit]
  lateness = float(np.median(errors)) if len(errors) else None
  strength = None
  if strengths is not None and len(errors) >= FEWEST:
    given = np.asarray(strengths, np.float64)[order][hit]
    heard = generated.confidences[partners[hit]]
    if np.ptp(given) > 0 and np.ptp(heard) > 0:
      strength = float(scipy.stats.spearmanr(given, heard).statistic)
  return {**{name: f1(tolerance) for name, tolerance in TOLERANCES.items()}, 'lateness': lateness,
          'spread': float(np.median(np.abs(errors - lateness))) if len(errors) else None,
          'strength': strength}
