"""Towers that are trained with the Fusion Blocks: the same gradient, made once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from micro import plain_jit, random_params
from test_avlink import FUSION, TOWERS, inputs

from avlink_jax.model.avlink import AVLink

DEEP = {name: dataclasses.replace(TOWERS[name], depth=depth)
        for name, depth in (('audio', 6), ('video', 3))}
LINK = AVLink(DEEP, dataclasses.replace(FUSION, blocks=3), trained=('audio',))


def gradient(link):
  """Gradient of the sound's velocity by the audio tower, a function of (link, towers)."""
  def loss(audio, params, towers):
    velocity = link.velocity(params, {**towers, 'audio': audio}, inputs(), ('audio',))['audio']
    return jnp.mean(velocity ** 2)

  return lambda params, towers: jax.grad(loss)(towers['audio'], params, towers)


def params():
  return random_params(LINK, 5), {name: random_params(tower, i)
                                  for i, (name, tower) in enumerate(DEEP.items())}


def test_blocks_given_to_each_turn_have_the_gradient_of_those_taken_by_an_index():
  indexed, told = (plain_jit(gradient(link))(*params())
                   for link in (dataclasses.replace(LINK, trained=()), LINK))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6), told, indexed)


def carried(jaxpr):
  """Yields the shapes that loops in a jaxpr, and in what it calls, carry from turn to turn."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'scan':
      first, count = equation.params['num_consts'], equation.params['num_carry']
      yield from (v.aval.shape for v in equation.invars[first:first + count])
    for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, 'eqns')):
      inner = getattr(inner, 'jaxpr', inner)
      if hasattr(inner, 'eqns'):
        yield from carried(inner)


def test_no_turn_adds_to_a_gradient_of_all_blocks():
  """Such an addition is a sum over all chips, each time."""
  stacked = {leaf.shape for leaf in jax.tree.leaves(params()[1]['audio']['blocks'])}
  loops = [set(carried(jax.make_jaxpr(gradient(link))(*params()).jaxpr))
           for link in (LINK, dataclasses.replace(LINK, trained=()))]
  assert not loops[0] & stacked and loops[1] & stacked
