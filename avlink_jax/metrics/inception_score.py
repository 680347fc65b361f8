"""Inception score, and the KL divergence of a classifier's output from the reference's.

    IS = exp mean_i KL(p_i ‖ mean_j p_j)     Salimans et al. 2016, over all clips, not in splits
    KL_i = KL(p_reference,i ‖ p_generated,i)   paired; the mean over clips is the tables' KL

A clip's p is the softmax of the classifier's logits, averaged over the clip's rows, for classifiers
of several labels too, as the public evaluation of AudioLDM does (its `kl_softmax`).
"""

import numpy as np
from scipy.special import log_softmax


def score(logits) -> float:
  """Inception score of logits (N, K), a clip each: between 1 and min(N, K)."""
  log_p = log_softmax(np.asarray(logits, np.float64), axis=-1)
  p = np.exp(log_p)
  mean = p.mean(0)
  log_mean = np.log(np.where(mean > 0, mean, 1))
  return float(np.exp(np.mean(np.sum(p * (log_p - log_mean), axis=-1))))


def divergence(reference, generated) -> float:
  """Divergence KL(p_reference ‖ p_generated) in nats, of logits (K,) each."""
  log_p, log_q = (log_softmax(np.asarray(logits, np.float64)) for logits in (reference, generated))
  return float(np.sum(np.exp(log_p) * (log_p - log_q)))
