"""Networks of metrics compute in float32 on every kind of hardware."""

import jax
import jax.numpy as jnp

from avlink_jax.metrics.networks import layers
from avlink_jax.metrics.networks.embedding import exact


def forward(weights, x):
  x = layers.conv(weights, 'a', x)
  return x.reshape(len(x), -1) @ jnp.ones((3 * 4, 2))


def test_products_of_networks_are_asked_for_in_full_precision():
  weights = {'a.weight': jnp.ones((3, 2, 1))}
  programs = [jax.jit(f).lower(weights, jnp.ones((2, 4, 2))).as_text()
              for f in (forward, exact(forward))]
  products = [program.count('stablehlo.convolution') + program.count('stablehlo.dot_general')
              for program in programs]
  assert products == [2, 2]
  assert [program.count('HIGHEST') for program in programs] == [0, 4]  # both operands of each
