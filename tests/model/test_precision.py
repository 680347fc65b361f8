"""bfloat16 compute, as on accelerators, gives float32's answer within its precision."""

import jax
import jax.numpy as jnp
import numpy as np
from micro import micro_config, quick_jit, random_params

from avlink_jax import build as models
from avlink_jax.model.tower import Input


def test_the_linked_velocity_in_bfloat16_is_near_the_one_in_float32():
  config = micro_config('v2a')
  outputs = {}
  for dtype in (jnp.float32, jnp.bfloat16):
    built = models.build(config, dtype)
    frozen = {name: random_params(tower, seed)
              for seed, (name, tower) in enumerate(built.towers.items())}
    frozen = jax.tree.map(lambda x, to=dtype: x.astype(to), frozen)
    fusion = random_params(built.link, 2)
    inputs, rng = {}, np.random.default_rng(0)
    for name, shape in models.example_shapes(built).items():
      x = jnp.asarray(rng.standard_normal((2,) + shape, np.float32))
      inputs[name] = Input(x, jnp.full(2, 0.3), jnp.ones((2, 3, config.text.width)),
                           jnp.ones((2, 3), bool), jnp.ones(x.shape[:2], bool))
    outputs[dtype] = quick_jit(lambda fusion, frozen, inputs, link=built.link: link.velocity(
        fusion, frozen, inputs, ('audio',))['audio'])(fusion, frozen, inputs)
  full, half = outputs[jnp.float32], outputs[jnp.bfloat16]
  assert full.dtype == half.dtype == jnp.float32  # the head always answers in float32
  assert np.linalg.norm(full - half) < 0.02 * np.linalg.norm(full)
