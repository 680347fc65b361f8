"""Attention on a mesh of 8 simulated devices gives the same numbers, however tokens lie."""

import os
import pathlib
import subprocess
import sys

ON_A_MESH = '''
import jax, numpy as np
from micro import quick_jit
from avlink_jax.model.attention import Kernel
from avlink_jax.training import sharding

LENGTHS = {'audio_tokens': 5, 'video_tokens': 12, 'odd_tokens': 7, 'text_tokens': 3}
JOINT = ('audio_tokens', 'video_tokens')
rng = np.random.default_rng(0)
normal = lambda names: [rng.standard_normal((4, 2, LENGTHS[n], 8), np.float32) for n in names]
mesh = sharding.make_mesh(2, 1, 4)
for queries, keys in ((JOINT, JOINT), (JOINT[:1], JOINT[1:]), (JOINT[1:], JOINT[:1]),
                      (JOINT[1:], ('text_tokens',)), (JOINT[:1], JOINT[:1]),
                      (('odd_tokens', 'video_tokens'), ('odd_tokens', 'video_tokens'))):
  q, k, v, slopes = normal(queries), normal(keys), normal(keys), normal(queries)
  masks = [rng.random((4, LENGTHS[n])) < 0.6 for n in keys]
  masks[0][:, 0] = True
  kernel = Kernel('tiled').between(queries, keys)
  def result(q, k, v, masks, slopes):
    out, back = jax.vjp(lambda *qkv: kernel(*qkv, masks), q, k, v)
    return out, back(slopes)
  given = q, k, v, masks, slopes
  wanted = quick_jit(result)(*given)
  made = quick_jit(sharding.on_mesh(mesh, result))(*sharding.shard_rows(given, mesh))
  for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)
  print(queries, keys)
'''


def test_streams_of_any_kind_are_attended_and_differentiated_alike_on_a_mesh():
  """Sharded tokens and those that every device has, as queries and as keys; lengths that the
  devices divide or do not."""
  root = pathlib.Path(__file__).parents[2]
  done = subprocess.run(
      [sys.executable, '-c', ON_A_MESH], cwd=root, capture_output=True, text=True, timeout=600,
      env=os.environ | {
          'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
          'PYTHONPATH': os.pathsep.join([str(root), str(root / 'tests')])})
  assert done.returncode == 0, done.stderr
  assert len(done.stdout.splitlines()) == 6
