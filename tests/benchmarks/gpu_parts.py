"""The parts of gpu.py: what each does, in a process of its own.

    python -m tests.benchmarks.gpu_parts PART OUT [--dry]

Writes {'results': …} into OUT/PART.json, again whenever there is more of it.
"""

import functools
import json
import math
import pathlib
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.codecs.codec import weights_shapes
from avlink_jax.model import attention
from avlink_jax.storage import weights
from avlink_jax.storage.atomic import write_text
from avlink_jax.train import train
from tests import micro, runs
from tests.benchmarks import full_size, public_sizes
from tests.benchmarks.attention import milliseconds

BATCH = 4  # examples of a training step at full size
CALLS = 3  # of a step that is timed; of a sample, which is steps enough, one
FAST = {'steps': 8, 'refresh': 4}  # of `sample`
STEPS = 300  # of training at scale small
SIDE = {'gpu': 8192, 'cpu': 1024}  # of matrices that show the chip's rate
# (batch, heads, queries, keys, channels of a head) of paper scale's towers and Fusion Blocks, its
# audio tower, its prompts, and of the public video tower.
SHAPES = {'video': (1, 16, 17_856, 17_856, 64), 'fusion': (1, 16, 17_985, 17_985, 64),
          'audio': (4, 16, 129, 129, 64), 'text': (1, 16, 17_856, 128, 64),
          'public': (1, 12, 8_190, 8_190, 128)}
TINY_SHAPES = {'video': (2, 2, 40, 40, 8), 'text': (2, 2, 40, 5, 8)}
TOLERANCE = 2e-2  # of bfloat16's results, by their norms: its rounding is 4e-3


def machine(dry, record):
  """Versions, chip, and the rate of matrix products by JAX and by PyTorch."""
  import torch
  device, side = jax.devices()[0], SIDE['gpu' if jax.default_backend() == 'gpu' else 'cpu']
  try:
    driver = subprocess.run(
        ['nvidia-smi', '--query-gpu=name,driver_version,memory.total', '--format=csv,noheader'],
        capture_output=True, text=True).stdout.strip()
  except FileNotFoundError:
    driver = ''
  about = {
      'chip': device.device_kind, 'driver': driver,
      'memory_bytes': (device.memory_stats() or {}).get('bytes_limit'),
      'versions': {'python': platform.python_version(), 'jax': jax.__version__,
                   'torch': torch.__version__, 'cuda of torch': torch.version.cuda,
                   'backend': device.client.platform_version}}
  record(about)
  rates = {'JAX': full_size.matrix_rate(side, jnp.bfloat16)}
  from tests.benchmarks import contest
  x = torch.randn(side, side, device='cuda' if jax.default_backend() == 'gpu' else 'cpu',
                  dtype=torch.bfloat16)
  wait = torch.cuda.synchronize if x.is_cuda else lambda: None
  rates['PyTorch'] = contest.matrix_rate(lambda: (x @ x, wait()), side)
  record(about | {'matrix_rate': rates})


def kernels(dry, record):
  """This platform's attention against the reference in float32, forward and backward: the norm of
  what they differ by over the reference's. Raises AssertionError above TOLERANCE."""
  chosen, dtype, rows = attention.choose(), jnp.bfloat16, {}
  kernel = attention.IMPLEMENTATIONS[chosen]

  def both(function, q, k, v, mask, g):
    out, back = jax.vjp(lambda q, k, v: function(q, k, v, mask), q, k, v)
    return out, *back(g.astype(out.dtype))

  for name, (batch, heads, queries, keys, dim) in (TINY_SHAPES if dry else SHAPES).items():
    rng = np.random.default_rng(0)
    normal = lambda n, h=heads: jnp.asarray(  # noqa: B023,E731
        rng.standard_normal((batch, h, n, dim), np.float32), dtype)  # noqa: B023
    q, k, v, g = normal(queries), normal(keys), normal(keys), normal(queries)
    real = [keys] + [max(1, keys * 9 // 10)] * (batch - 1) if batch > 1 else [keys * 9 // 10]
    mask = jnp.arange(keys) < jnp.array(real)[:, None]
    few = [x[:, :2] for x in (q, k, v, g)]  # heads: the reference holds all logits
    found = jax.jit(functools.partial(both, kernel))(*few[:3], mask, few[3])
    exact = jax.jit(functools.partial(both, attention.reference))(
        *(x.astype(jnp.float32) for x in few[:3]), mask, few[3].astype(jnp.float32))
    off = {part: float(jnp.linalg.norm((a.astype(jnp.float32) - b).ravel())
                       / jnp.linalg.norm(b.ravel()))
           for part, a, b in zip(('out', 'dq', 'dk', 'dv'), found, exact, strict=True)}
    forward = jax.jit(lambda q, k, v, mask: kernel(q, k, v, mask))
    gradient = jax.jit(functools.partial(both, kernel))
    times = [milliseconds(forward, q, k, v, mask, repeats=5),
             milliseconds(gradient, q, k, v, mask, g, repeats=5)]
    work = 4 * batch * heads * queries * keys * dim  # forward; the gradient takes 2.5 times as much
    rows[name] = {'shape': [batch, heads, queries, keys, dim], 'off': off,
                  'forward_ms': times[0], 'forward_and_backward_ms': times[1],
                  'forward_tflops': work / times[0] / 1e9,
                  'forward_and_backward_tflops': 3.5 * work / times[1] / 1e9}
    record({'kernel': chosen, 'dtype': 'bfloat16', 'by_shape': rows,
            'worst': max(x for row in rows.values() for x in row['off'].values())})
  worst = max(x for row in rows.values() for x in row['off'].values())
  assert worst < TOLERANCE, f'{chosen} and the reference differ by {worst}'


def small(task, out, dry, record):
  """A run of configs/TASK.py:small by the real loop on impacts, from scratch; V2A's towers are
  those that the runs of T2A and T2V left. The 1D-VAE is an untrained one."""
  folder = out / 'small'
  folder.mkdir(parents=True, exist_ok=True)
  frozen = {'codec': folder / 'codec.safetensors', 'audio': folder / 't2a',
            'video': folder / 't2v'}
  if task == 'v2a' and (missing := [path for name, path in frozen.items() if name != 'codec'
                                    and not (path / 'weights.safetensors').exists()]):
    raise SystemExit(f'no {missing[0]}/weights.safetensors: small-t2a and small-t2v come first')
  sources = {name: str(path) for name, path in frozen.items()}
  sources = {name: sources[name] for name in {
      't2a': ('codec',), 't2v': (), 'v2a': ('codec', 'audio', 'video')}[task]}
  config = small_config(task, sources, dry)
  if 'codec' in sources and not frozen['codec'].exists():
    write_codec(config, frozen['codec'])
  try:
    train(config, folder / task)
  finally:
    rows = [json.loads(row) for row in (folder / task / 'metrics.jsonl').read_text().splitlines()]
    losses = [[row['step'], row['loss']] for row in rows if 'loss' in row]
    first, last = (np.mean([loss for _, loss in part]) for part in (losses[:3], losses[-3:]))
    record({'task': task, 'steps': config.train.steps, 'batch': config.train.batch_size,
            'losses': losses, 'first_loss': first, 'last_loss': last,
            'validation': [[row['step'], row['validation/loss']] for row in rows
                           if 'validation/loss' in row],
            'steps_per_second': max(row.get('steps_per_second', 0) for row in rows),
            'mfu': max((row['mfu'] for row in rows if 'mfu' in row), default=None),
            'bad_steps': max(row.get('bad_steps', 0) for row in rows)})
  assert math.isfinite(last), 'the loss is not finite'


def small_config(task, sources, dry):
  """Config of `small`, or of a micro run."""
  if dry:
    return runs.config_of(task, sources, **{
        'train.steps': 4, 'validation.every': 2, 'validation.count': 2, 'validation.levels': 2})
  config = runs.shipped(task, 'small')
  config.text.encoder = 'words'  # T5's weights may not be here
  config.data.impacts_clips = 512  # which are rendered once
  config.train.update(steps=STEPS, warmup_steps=50, decay_steps=0, log_every=10, sample_every=0)
  config.checkpoint.every = config.validation.every = 100
  config.sample.update(count=1, batch_size=1, steps=8, upsample=False)
  config.frozen.update(sources)
  return config


def write_codec(config, path):
  """A random 1D-VAE of the config's sizes, whose latents of noise have the deviation 1."""
  codec = micro.build(config)[0].modalities['audio'].codec
  params = micro.random_like(weights_shapes(codec)['params'], 0)
  mel = np.random.default_rng(0).normal(-5, 2, (4, 400, codec.spec.n_mels)).astype(np.float32)
  latents = jax.jit(lambda params: codec.encode(
      {'params': params, 'std': jnp.ones(())}, {'mel': mel}))(params)
  weights.save(path, {'params': params, 'stats': {'std': np.asarray(latents.std())}}, {})


def paper_config(dry, **changes):
  """V2A at paper scale; T5's embeddings are made up."""
  if dry:
    config = micro.micro_config('v2a', remat='block', **{
        'text.encoder': 't5', 'text.max_tokens': 5, 'fusion.contrast': 0.0,
        'fusion.nearness': 0.0, 'sample.steps': 8})
  else:
    config = runs.shipped('v2a', 'paper')
  config.train.batch_size, config.sample.batch_size = BATCH, 1
  config.update_from_flattened_dict(changes)
  return config


def paper_sample(dry, record, **changes):
  """Sampling of one clip, guidance included."""
  config = paper_config(dry, **changes)
  record({'clips': 1, 'sample_steps': config.sample.steps, 'refresh': config.sample.refresh}
         | full_size.measured(full_size.sample_job(config), 1))


def paper_train(dry, record):
  config = paper_config(dry)
  record({'batch': BATCH, 'remat': config.remat}
         | full_size.measured(full_size.train_job(config), CALLS))


def in_torch(mode, compiled, dry, record):
  """The same in PyTorch, its weights made up as well."""
  from tests.benchmarks import contenders
  size, calls = (BATCH, CALLS) if mode == 'train' else (1, 1)
  side = contenders.torch_process(
      paper_config(dry), mode, size, True, compiled, 'cpu' if dry else 'gpu')
  first = side.prepare()
  record({'batch' if mode == 'train' else 'clips': size, 'first_call_seconds': first,
          'seconds': [side.time(1)[0] for _ in range(calls)], 'peak_bytes': side.peak()})


def public(mode, dry, record, out):
  """Between towers of the public models' sizes, from prepared latents and embeddings."""
  config = runs.shipped('v2a', 'public')
  public_sizes.use(config, out / 'public', tiny=dry)
  config.train.batch_size, config.sample.batch_size = BATCH, 1
  job, calls = ((full_size.train_job, CALLS) if mode == 'train' else (full_size.sample_job, 1))
  made = job(config, latents=True)
  towers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(made.shapes[1]['towers']))
  record({'batch': BATCH if mode == 'train' else 1, 'tower_parameters': towers,
          'sample_steps': config.sample.steps} | full_size.measured(made, calls))


def parity(dry, record):
  """Greatest differences of JAX and PyTorch in float32 at nano scale; SystemExit above 1e-3."""
  from tests.benchmarks import speed
  config = micro.micro_config('v2a') if dry else runs.shipped('v2a')
  (_, chip), found = speed.check(config)
  record({'chip': chip, 'worst': max(found.values()), 'off': found})


def parts(out, dry, record):
  """{name: function without arguments}."""
  every = {'machine': (machine, dry, record), 'attention': (kernels, dry, record),
           'paper-sample': (paper_sample, dry, record), 'paper-train': (paper_train, dry, record),
           'parity': (parity, dry, record)}
  made = {name: functools.partial(*call) for name, call in every.items()}
  made['paper-sample-fast'] = functools.partial(
      paper_sample, dry, record, **{f'sample.{key}': value for key, value in FAST.items()})
  for task in ('t2a', 't2v', 'v2a'):
    made[f'small-{task}'] = functools.partial(small, task, out, dry, record)
  for mode in ('train', 'sample'):
    made[f'public-{mode}'] = functools.partial(public, mode, dry, record, out)
    for name, compiled in (('torch', False), ('torch-compiled', True)):
      made[f'paper-{mode}-{name}'] = functools.partial(in_torch, mode, compiled, dry, record)
  return made


def main():
  part, out, *flags = sys.argv[1:]
  out, dry = pathlib.Path(out), '--dry' in flags
  if not (dry or part.endswith(('-torch', '-compiled', 'parity')) or (
      jax.default_backend() == 'gpu')):
    sys.exit('JAX sees no GPU here: --dry runs all of it at tiny sizes on a CPU')
  record = lambda results: write_text(  # noqa: E731
      out / f'{part}.json', json.dumps({'results': results}, default=float))
  parts(out, dry, record)[part]()


if __name__ == '__main__':
  main()
