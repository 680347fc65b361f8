"""How far the same numbers may lie apart when another program, or processor, adds them up in
another order: it follows from the arithmetic and was not read off one machine."""

import jax
import numpy as np
import optax


def sum_tolerance(dtype, terms, scale=1.0):
  """Allowed difference of two sums of `terms` numbers of either sign; `scale`: the sums' size.

  An addition rounds its partial sum by at most eps / 2 of it, and the roundings of n additions
  grow with √n, as they are as good as independent (Higham and Mary, A New Approach to
  Probabilistic Rounding Error Analysis, 2019). There are two sums, and what is added up was
  rounded in the same way by the layers before: hence 4, not 1/2.
  """
  return 4 * np.sqrt(terms) * np.finfo(dtype).eps * scale


def first_adam_tolerance(gradient, allowed, learning_rate, epsilon):
  """Allowed difference of two first steps of Adam whose gradients lie within `allowed`.

  That step is learning_rate · g / (|g| + epsilon), which grows with g. A gradient that is mere
  rounding makes a step as long as any, in either direction.
  """
  step = lambda g: learning_rate * g / (np.abs(g) + epsilon)  # noqa: E731
  return step(gradient + allowed) - step(gradient - allowed)


def assert_same_first_step(got, wanted, train, terms):
  """Two States (training/step.py), one step of `train` (config.train, no warm-up) from the same
  one, differ by what the roundings of gradients that are sums of `terms` numbers make of them."""
  for name in ('step', 'counts', 'stats'):
    jax.tree.map(np.testing.assert_array_equal, getattr(got, name), getattr(wanted, name))
  moments = [[jax.tree.leaves(optax.tree.get(state.optimizer, name)) for name in ('mu', 'nu')]
             for state in (got, wanted)]
  (mu, nu), (wanted_mu, wanted_nu) = moments
  params = jax.tree_util.tree_leaves_with_path(wanted.params)
  for i, (path, parameter) in enumerate(params):
    gradient = wanted_mu[i].astype(np.float64) / (1 - train.beta1)
    allowed = sum_tolerance(np.float32, terms, np.abs(gradient).max())
    step = first_adam_tolerance(gradient, allowed, train.learning_rate, train.epsilon)
    step += sum_tolerance(np.float32, 1, np.abs(parameter) + train.learning_rate)
    for kind, a, b, most in (
        ('mu', mu[i], wanted_mu[i], (1 - train.beta1) * allowed),
        ('nu', nu[i], wanted_nu[i],
         (1 - train.beta2) * allowed * (2 * np.abs(gradient) + allowed)),
        ('params', jax.tree.leaves(got.params)[i], parameter, step),
        ('ema', jax.tree.leaves(got.ema)[i], jax.tree.leaves(wanted.ema)[i], step)):
      excess = np.max(np.abs(a.astype(np.float64) - b) - most)
      assert excess <= 0, f'{kind}{jax.tree_util.keystr(path)}: {excess} more than is allowed'
