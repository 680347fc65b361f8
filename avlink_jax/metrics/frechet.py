"""Fréchet distance of two sets of embeddings, each taken as a Gaussian.

    d² = |μ_x − μ_y|² + Tr Σ_x + Tr Σ_y − 2 Tr (Σ_x Σ_y)^½

Heusel et al. 2017 (FID), Kilgour et al. 2019 (FAD), Unterthiner et al. 2018 (FVD): all three are
d², as is what they call their distance. With X, Y the centred rows over √(n − 1), Σ = XᵀX and
Tr (Σ_x Σ_y)^½ is the sum of the singular values of X Yᵀ. This needs no
matrix root and holds for fewer rows than dimensions too, where the usual code adds 1e-6 to the
diagonal.
"""

import numpy as np


def distance(x, y) -> float:
  """Distance d² of rows x (N, D) and y (M, D), N, M >= 2; 0 for the same rows, never below."""
  (mean_x, x), (mean_y, y) = _centred(x), _centred(y)
  covariances = np.sum(x ** 2) + np.sum(y ** 2) - 2 * np.linalg.svd(x @ y.T, compute_uv=False).sum()
  return max(0.0, float(np.sum((mean_x - mean_y) ** 2) + covariances))


def _centred(rows):
  """Mean (D,) of rows (N, D), and R (K, D) with RᵀR = Σ, K = min(N, D)."""
  rows = np.asarray(rows, np.float64)
  mean = rows.mean(0)
  rows = (rows - mean) / np.sqrt(len(rows) - 1)
  return mean, np.linalg.qr(rows, mode='r') if len(rows) > rows.shape[1] else rows
