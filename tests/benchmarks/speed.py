"""Speed of a training step and of sampling, against the machine's own matrix rate and PyTorch.

    python -m tests.benchmarks.speed [--scale=nano] [--batch=N] [--clips=N] [--rounds=N] TASK

TASK is v2a, a2v, t2a or t2v, with changes of its config if wanted: v2a:remat=block. On a CPU all
computes in float32, on one NVIDIA GPU in bfloat16 with float32 masters (PyTorch too), where at
paper scale the largest training batch that fits both is taken and one clip is sampled.

First the two implementations are checked to give the same from the same weights, in float32:
velocity, a 4-step sample, a training step's loss and all its gradients. Then JAX, PyTorch eager and
PyTorch compiled take turns, each in a process of its own with as many threads as this one may use
cores. A step is the whole one, from uint8 pictures, mels and words: 1D-VAE and word encoder
included (T5's embeddings are given), AdamW, clipping, moving average. Inputs lie on the device.
All of them have the huge pages that avlink_jax.main asks for.

Model FLOPs are counted from shapes (avlink_jax/hardware/flops.py), nothing computed twice counted
twice; the share is of the best rate that a large matrix product reached here, of either library.
Memory is the device's peak on a GPU, and what the process grew by since its imports on a CPU.
"""

import argparse
import json
import os
import sys

import numpy as np

from avlink_jax.hardware import huge_pages
from tests.benchmarks import contest
from tests.benchmarks.contenders import jax_process, torch_process
from tests.benchmarks.step import config_of


def difference(ours, theirs):
  """{'velocity', 'sample', 'loss', 'gradients': greatest difference, of the greatest value}; an
  array of gradients counts as no smaller than a thousandth of the greatest of them."""
  plain = ('velocity', 'sample', 'loss')
  size = {name: np.abs(x).max() for name, x in ours.items()}
  off = {name: np.abs(x - theirs[name]).max() for name, x in ours.items()}
  gradients = [name for name in ours if name not in plain]
  floor = max(size[name] for name in gradients) / 1000
  return {name: float(off[name] / size[name]) for name in plain} | {
      'gradients': float(max(off[name] / max(size[name], floor) for name in gradients))}


def check(config, size=2):
  """`difference` of both implementations in float32. Raises SystemExit above 1e-3."""
  here = contest.Worker(jax_process, config, 'check', size)
  platform = here('platform')
  ours, drawn = here('check')
  here.close()
  there = contest.Worker(torch_process, config, 'check', size, False, False, platform[0])
  found = difference(ours, there('check', drawn))
  there.close()
  if not max(found.values()) <= 1e-3:
    raise SystemExit(f'JAX and PyTorch do not give the same: {found}')
  return platform, found


def contenders(config, mode, size, half, platform):
  """{name: Worker}, prepared; and how many seconds that took each."""
  workers = {
      'JAX': contest.Worker(jax_process, config, mode, size, half),
      'PyTorch eager': contest.Worker(torch_process, config, mode, size, half, False, platform),
      'PyTorch compiled': contest.Worker(torch_process, config, mode, size, half, True, platform)}
  try:
    return workers, {name: worker('prepare') for name, worker in workers.items()}
  except RuntimeError:
    close(workers)
    raise


def close(workers):
  for worker in workers.values():
    worker.close()


def fitting(config, mode, size, half, platform):
  """`contenders` with the largest size, halved from `size` on, that does not run out of memory."""
  while True:
    try:
      return size, *contenders(config, mode, size, half, platform)
    except RuntimeError as error:
      full = 'RESOURCE_EXHAUSTED' in str(error) or 'OutOfMemory' in str(error)
      if not full or size == 1:
        raise
      size //= 2


def measure(config, mode, size, given, platform):
  """A contest's rows, as numbers."""
  half = platform == 'gpu'
  size, workers, compiling = fitting(config, mode, size, half, platform)
  operations = workers['JAX']('flops')
  rate = max(workers[name]('matrix_rate') for name in ('JAX', 'PyTorch eager'))
  # Turns of a second or so, longer than what passes by chance.
  calls = max(1, round(1.0 / workers['JAX']('time', 1)[0]))
  times = contest.rounds(workers, given.rounds, calls)
  rows = {}
  for name, worker in workers.items():
    seconds = contest.median(times[name], 0)
    rows[name] = dict(
        seconds=seconds, processor_seconds=contest.median(times[name], 1),
        clips_a_second=size / seconds, tflops=operations / seconds / 1e12,
        share=operations / seconds / rate, peak_bytes=worker('peak'),
        first_call_seconds=compiling[name],
        against_jax=contest.ratio(times['JAX'], times[name], 0),
        against_jax_processor=contest.ratio(times['JAX'], times[name], 1))
  close(workers)
  return dict(size=size, flops=operations, matrix_rate=rate, rounds=given.rounds,
              calls=calls, rows=rows)


def table(mode, measured, platform):
  """Lines to read."""
  what = 'training step' if mode == 'train' else 'sampling'
  yield (f'\n{what}, {measured["size"]} clips at once: {measured["flops"] / 1e9:,.1f} GFLOP; '
         f'matrix products reach {measured["matrix_rate"] / 1e12:.3f} TFLOP/s; medians of '
         f'{measured["rounds"]} rounds of {measured["calls"]}')
  yield (f'{"":17} {"seconds":>8} {"clips/s":>8} {"TFLOP/s":>8} {"share":>6} {"GiB":>6} '
         f'{"first call s":>12}  time against JAX')
  for name, row in measured['rows'].items():
    middle, low, high = row['against_jax']
    against = f'{middle:.2f} [{low:.2f}, {high:.2f}]'
    if platform == 'cpu':
      middle, low, high = row['against_jax_processor']
      against += f', in processor seconds {middle:.2f} [{low:.2f}, {high:.2f}]'
    yield (f'{name:17} {row["seconds"]:8.3f} {row["clips_a_second"]:8.2f} {row["tflops"]:8.3f} '
           f'{row["share"]:6.1%} {row["peak_bytes"] / 2**30:6.2f} '
           f'{row["first_call_seconds"]:12.1f}  {against if name != "JAX" else ""}')


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('task')
  parser.add_argument('--scale', default='nano')
  parser.add_argument('--batch', type=int, help='of training; default: the config\'s on a CPU, on '
                      'a GPU the largest power of two that fits')
  parser.add_argument('--clips', type=int, help='sampled at once; default: 16, at paper scale 1')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--only', choices=('train', 'sample'))
  given = parser.parse_args()
  config = config_of(given.task, given.scale)
  (platform, kind), found = check(config)
  print(f'{given.task} {given.scale} on {contest.cores()} cores, {kind}; load '
        f'{os.getloadavg()[0]:.1f}')
  print('JAX and PyTorch differ by', ', '.join(f'{n} {x:.1e}' for n, x in found.items()))
  sizes = {'train': given.batch or (config.train.batch_size if platform == 'cpu' else 64),
           'sample': given.clips or (1 if given.scale == 'paper' else 16)}
  for mode in (given.only,) if given.only else ('train', 'sample'):
    measured = measure(config, mode, sizes[mode], given, platform)
    print('\n'.join(table(mode, measured, platform)), flush=True)
    print(json.dumps({'mode': mode, **measured}), file=sys.stderr)


if __name__ == '__main__':
  huge_pages.ask()
  main()
