"""What the gradient keeps changes no number, and what is computed again is what the policy says."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from micro import plain_jit
from test_dit import AUDIO, input_of, params_of

from avlink_jax.hardware import flops
from avlink_jax.model import attention, flash, remat
from avlink_jax.model.attention import Kernel

LONG = (64,)  # frames, 32 tokens: more than the tower is wide, so that its attention is kept
TILED = dataclasses.replace(AUDIO, attention=Kernel('tiled'))


def gradient_of(tower):
  given = input_of(AUDIO, LONG)
  return jax.grad(lambda p: jnp.sum(tower.velocity(p, given) ** 2))


@functools.cache
def gradient(policy):
  return plain_jit(gradient_of(dataclasses.replace(TILED, remat=policy)))(params_of(AUDIO))


@pytest.mark.slow
@pytest.mark.parametrize('policy', ['attention', 'block'])
def test_no_policy_changes_a_gradient(policy):
  for a, b in zip(*map(jax.tree.leaves, (gradient('none'), gradient(policy))), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert np.any(a)  # and nothing in a tower is there for nothing


def test_the_policy_attention_spares_one_attention_a_block():
  """Its two products, 4·tokens²·width FLOPs of each example and block."""
  none, kept, again = (flops.of(gradient_of(dataclasses.replace(TILED, remat=policy)),
                                params_of(AUDIO)) for policy in ('none', 'attention', 'block'))
  assert none < kept
  assert again - kept == 2 * TILED.depth * 4 * 32**2 * TILED.width


def test_attention_to_few_keys_is_computed_again():
  """The paper's 129 audio tokens and 128 words are, its video and joint attention are not."""
  assert [remat.is_dear(keys, 1024) for keys in (128, 129, 17_856, 17_985)] == [
      False, False, True, True]


def kernels(attend, policy, name):
  """Number of `name`'s equations in the program of the gradient of a block that is attention."""
  def block(q, k, v):
    return attend(jnp.sin(q), k, v)

  def loss(*qkv):
    return jnp.sum(remat.checkpointed(block, policy)(*qkv).astype(jnp.float32))

  arrays = [jax.ShapeDtypeStruct((2, 2, 256, 64), jnp.bfloat16)] * 3
  return str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(*arrays)).count(f' {name}[')


def test_on_tpus_the_forward_kernel_runs_once():
  splash = functools.partial(flash.splash, interpret=True)
  assert [kernels(splash, policy, 'pallas_call') for policy in remat.POLICIES[:3]] == [2, 2, 3]


def test_on_gpus_the_forward_kernel_runs_once(monkeypatch):
  from jax._src.cudnn import fused_attention_stablehlo as fused
  monkeypatch.setattr(fused, 'check_cudnn_version', lambda: 91_000)
  monkeypatch.setattr(fused, 'check_compute_capability', lambda *_: True)
  assert [kernels(flash.cudnn, policy, 'dot_product_attention_fwd_wrapper')
          for policy in remat.POLICIES[:3]] == [1, 1, 2]


@pytest.mark.slow
def test_splash_kept_has_the_formulas_gradient():
  rng = np.random.default_rng(0)
  q, k, v = (rng.standard_normal((2, 2, 130, 64)).astype(np.float32) for _ in range(3))

  def gradient(attend, policy):
    return jax.jit(jax.grad(lambda *x: jnp.sum(jnp.sin(
        remat.checkpointed(attend, policy)(*x))), argnums=(0, 1, 2)))(q, k, v)

  got = gradient(functools.partial(flash.splash, interpret=True), 'attention')
  for a, b in zip(got, gradient(attention.reference, 'none'), strict=True):
    np.testing.assert_allclose(a, b, atol=3e-5)
