"""The aids of small scales: what they raise, where biases begin, and that the block stays plain."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from micro import plain_jit, random_params
from test_avlink import BOTH, FUSION, LINK, WIDTHS, bare, frozen, inputs, trained, velocity

from avlink_jax.model.aided_fusion import AidedFusion, raise_changes


def test_contrast_raises_what_changes_at_a_place_and_leaves_what_rests():
  """Three times of two places; the last time of the second clip is padding."""
  rng = np.random.default_rng(0)
  rest, change = rng.standard_normal((2, 2, 1, 2, 4))
  changes = np.array([-1.0, 0.0, 1.0])[None, :, None, None] * change
  flat = lambda x: (x + np.zeros((2, 3, 2, 4))).reshape(2, 6, 4).astype(np.float32)  # noqa: E731
  raised = raise_changes(flat(rest + changes), np.ones((2, 6), bool), 3, 3.0)
  np.testing.assert_allclose(raised, flat(rest + 4 * changes), atol=1e-5)

  mask = np.ones((2, 6), bool)
  mask[1, 4:] = False
  raised = raise_changes(flat(rest + changes), mask, 3, 3.0).reshape(2, 3, 2, 4)
  about = rest - change / 2  # of the two times that count
  wanted = (about + 4 * (rest + changes - about))[1, :2]
  np.testing.assert_allclose(raised[1, :2], wanted, atol=1e-5)


@pytest.mark.parametrize('cross', [False, True])
def test_nearness_is_where_biases_of_queries_and_keys_begin_and_nothing_else(cross):
  """All other numbers are those of the plain blocks, bit for bit."""
  fusion = dataclasses.replace(FUSION, cross=cross)
  key = jax.random.key(0, impl='unsafe_rbg')
  plain, near = (plain_jit(functools.partial(f.init, tower_widths=WIDTHS))(key)['blocks']
                 for f in (fusion, AidedFusion(fusion, nearness=1.5)))
  biases = {'attention': {'qkv': 2 * 20}} if not cross else {
      f'attention_{m}': {'q': 20, 'kv': 20} for m in range(2)}
  for attention, layers in biases.items():
    for layer, count in layers.items():
      made = np.asarray(near[attention][layer].pop('bias'))
      assert made.shape[0] == FUSION.blocks
      assert (made[:, :count] == 1.5).all() and not made[:, count:].any()
      assert not np.any(plain[attention][layer].pop('bias'))
  jax.tree.map(np.testing.assert_array_equal, near, plain)


def test_the_blocks_hear_changes_louder_and_put_back_what_they_would():
  """At initialisation the gates are shut, whatever the views are; trained, contrast is heard."""
  aided = dataclasses.replace(LINK, fusion=AidedFusion(FUSION, contrast=3.0))
  run = plain_jit(lambda fusion, trees, inputs: aided.velocity(fusion, trees, inputs, BOTH))
  fresh = plain_jit(aided.init)(jax.random.key(0, impl='unsafe_rbg'))
  begun, made = (run(fusion, frozen(), inputs()) for fusion in (fresh, trained()))
  plain = velocity()(trained(), inputs())
  for name in BOTH:
    np.testing.assert_array_equal(begun[name], bare(name))
    assert not np.allclose(made[name], plain[name], atol=1e-2)


def test_without_contrast_it_is_the_plain_block():
  aided = dataclasses.replace(LINK, fusion=AidedFusion(FUSION, nearness=1.0))
  params = random_params(aided, 5)
  jax.tree.map(np.testing.assert_array_equal, params, trained())
  made, plain = (jax.make_jaxpr(lambda link=link: link.velocity(
      params, frozen(), inputs(), BOTH))() for link in (aided, LINK))
  assert str(made) == str(plain)
