"""Inception score, and the KL divergence of a classifier's output from the reference's.

    IS = exp mean_i KL(p_i ‖ mean_j p_j)     Salimans et al. 2016, over all clips; and, as published
                                             tables have it, the mean over ten parts of them
    KL_i = KL(p_reference,i ‖ p_generated,i)   paired; the mean over clips is the tables' KL

A clip's p is the softmax of the classifier's logits, averaged over the clip's rows, for classifiers
of several labels too, as the public evaluation of AudioLDM does (its `kl_softmax`).
"""

import numpy as np
from scipy.special import log_softmax

SPLITS, SEED = 10, 2020  # torch-fidelity's defaults


def score(logits) -> float:
  """Inception score of logits (N, K), a clip each: between 1 and min(N, K)."""
  log_p = log_softmax(np.asarray(logits, np.float64), axis=-1)
  p = np.exp(log_p)
  mean = p.mean(0)
  log_mean = np.log(np.where(mean > 0, mean, 1))
  return float(np.exp(np.mean(np.sum(p * (log_p - log_mean), axis=-1))))


def score_in_splits(logits) -> float | None:
  """Mean Inception score of ten parts of the clips, in the order and with the parts of
  `torch-fidelity` (metric_isc.py), which the public evaluations of audio use; None with fewer clips
  than parts. Each part is scored against its own mean, so that it is smaller than `score`."""
  logits = np.asarray(logits)
  count = len(logits)
  if count < SPLITS:
    return None
  logits = logits[np.random.RandomState(SEED).permutation(count)]
  bounds = [k * count // SPLITS for k in range(SPLITS + 1)]
  return float(np.mean([score(logits[first:last])
                        for first, last in zip(bounds, bounds[1:], strict=False)]))


def divergence(reference, generated) -> float:
  """Divergence KL(p_reference ‖ p_generated) in nats, of logits (K,) each."""
  log_p, log_q = (log_softmax(np.asarray(logits, np.float64)) for logits in (reference, generated))
  return float(np.sum(np.exp(log_p) * (log_p - log_q)))
