"""Loading a published tower of full size: seconds, and how much memory of the host it takes.

    python -m tests.benchmarks.published FOLDER [--devices=8] [--dtype=bfloat16]

Unless FOLDER has one, random bfloat16 weights of Wan2.1-T2V-1.3B's sizes are written there, in two
shards (2.8 GB). They are loaded sharded on simulated devices, which are this host's memory too: so
what is reported as the peak contains all arrays once. Pages of the file that the system keeps are
not counted.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
import threading
import time

CONFIG = {'_class_name': 'WanTransformer3DModel', 'attention_head_dim': 128, 'ffn_dim': 8960,
          'freq_dim': 256, 'in_channels': 16, 'num_attention_heads': 12, 'num_layers': 30,
          'out_channels': 16, 'patch_size': [1, 2, 2], 'text_dim': 4096}
GIB = 2**30


def tower_of(folder):
  """The tower whose sizes a folder's config says."""
  import dataclasses

  from avlink_jax.model import wan_import
  from avlink_jax.model.tower import EvenSeconds
  from avlink_jax.model.wan import Wan
  return Wan(**dataclasses.asdict(wan_import.read_sizes(folder)), seconds=EvenSeconds(4.0))


def write(folder):
  """Writes random weights under the published names, in two shards and an index."""
  import flax
  import jax
  import ml_dtypes
  import numpy as np
  import safetensors.numpy

  from avlink_jax.model import wan_import
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(json.dumps(CONFIG))
  tower, rng = tower_of(folder), np.random.default_rng(0)
  shapes = flax.traverse_util.flatten_dict(jax.eval_shape(tower.init, jax.random.key(0)), sep='/')
  names = {}
  for ours, leaf in shapes.items():
    stacked = ours.startswith('blocks/')
    for block in range(tower.depth if stacked else 1):
      names[wan_import.their_name(ours).format(block)] = wan_import.their_shape(
          ours, leaf.shape[stacked:], tower.patch)
  index, stem = {}, 'diffusion_pytorch_model'
  for shard in range(2):
    file = f'{stem}-0000{shard + 1}-of-00002.safetensors'
    mine = sorted(names)[shard::2]
    safetensors.numpy.save_file(
        {name: (0.02 * rng.standard_normal(names[name], np.float32)).astype(ml_dtypes.bfloat16)
         for name in mine}, folder / file)
    index |= dict.fromkeys(mine, file)
  (folder / f'{stem}.safetensors.index.json').write_text(json.dumps({'weight_map': index}))


def anonymous_bytes():
  """Memory of this process that is no file's."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  return next(int(line.split()[1]) for line in lines if line.startswith('RssAnon')) * 1024


class Peak(threading.Thread):
  """The largest `anonymous_bytes` while it runs, looked at every 10 ms."""

  def __init__(self):
    super().__init__(daemon=True)
    self.start_bytes = self.bytes = anonymous_bytes()
    self.ended = threading.Event()

  def run(self):
    while not self.ended.wait(0.01):
      self.bytes = max(self.bytes, anonymous_bytes())


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--devices', type=int, default=8)
  parser.add_argument('--dtype', default='bfloat16')
  flags = parser.parse_args()
  os.environ['XLA_FLAGS'] = (f'{os.environ.get("XLA_FLAGS", "")} '
                             f'--xla_force_host_platform_device_count={flags.devices}')
  import jax
  import jax.numpy as jnp

  from avlink_jax.model import wan_import
  from avlink_jax.training import sharding
  folder = flags.folder / 'transformer'
  if not folder.exists():
    write(folder)
    sys.exit(f'{folder} is written: start this again to load it, with nothing else in memory')
  mesh, tower = sharding.make_mesh(fsdp=flags.devices), tower_of(folder)
  peak, started = Peak(), time.monotonic()
  peak.start()
  tree = wan_import.read(folder, tower, jnp.dtype(flags.dtype),
                         functools.partial(sharding.shardings, mesh=mesh))
  seconds = time.monotonic() - started
  peak.ended.set()
  on_devices = sum(shard.data.nbytes for x in jax.tree.leaves(tree) for shard in
                   x.addressable_shards)
  print(json.dumps({
      'devices': flags.devices, 'dtype': flags.dtype, 'seconds': round(seconds, 1),
      'parameters': sum(x.size for x in jax.tree.leaves(tree)),
      'GiB on devices': round(on_devices / GIB, 3),
      'GiB of the host at its peak, beyond the start': round(
          (peak.bytes - peak.start_bytes) / GIB, 3)}))


if __name__ == '__main__':
  main()
