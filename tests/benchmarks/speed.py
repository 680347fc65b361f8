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

Model FLOPs are counted from shapes (avlink_jax/flops.py), nothing computed twice counted twice; the
share is of the best rate that a large matrix product reached here, of either library. Memory is the
device's peak on a GPU, and what the process grew by since its imports on a CPU.
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from avlink_jax import flops, flow, huge_pages, models, sampler, tasks
from avlink_jax.noise import gaussian
from avlink_jax.training import step as training
from tests import micro
from tests.benchmarks import contest, torch_training
from tests.benchmarks.step import config_of

LARGE = {'cpu': 2048, 'gpu': 8192}  # sides of the matrix product that shows the machine's rate


@dataclasses.dataclass(frozen=True)
class Words:
  """Embeddings as T5 would give, made up: the shapes are what costs."""
  width: int
  max_tokens: int

  def init(self, key):
    del key
    return {}

  def prepare(self, prompts):
    shape = (len(prompts), self.max_tokens)
    embedding = np.random.default_rng(0).standard_normal((*shape, self.width), np.float32)
    return {'embedding': embedding, 'mask': np.ones(shape, bool)}

  def encode(self, params, prepared):
    del params
    return prepared['embedding'], prepared['mask']


def build(config, dtype=jnp.float32):
  """(models, task) of a config, T5 replaced."""
  built = models.build(config, dtype)
  if config.text.encoder == 't5':
    built = dataclasses.replace(built, text=Words(config.text.width, config.text.max_tokens))
  return built, tasks.make(config, built)


def draws(task, key, size):
  """{name: (X_0, t, prompt dropped)} that FlowTask.loss draws for `key`, as numpy."""
  laws, shapes, made = task.config.flow, models.example_shapes(task.models), {}
  _, timing, key = jax.random.split(key, 3)
  for i, name in enumerate(task.modalities):
    noise, _, prompt = jax.random.split(jax.random.fold_in(key, i), 3)
    if name in task.generate:
      t = flow.logit_normal(timing, (size,), laws.location[name], laws.scale)
      rate = laws.drop_generated
    else:
      t, rate = task.condition_time(name, (size,)), laws.drop_condition
    made[name] = (gaussian(noise, (size, *shapes[name])), t,
                  jax.random.bernoulli(prompt, rate, (size,)))
  return jax.device_get(made)


def identity_tracks(task, size):
  """Each clip one window: sampler.generate's `tracks`."""
  lengths = {name: models.example_shapes(task.models)[name][0] for name in task.generate}
  return {name: (np.arange(size * n, dtype=np.int32).reshape(size, n), np.ones(n, np.float32))
          for name, n in lengths.items()}


def halves(tree, dtype):
  """Floating arrays in `dtype`."""
  return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == np.float32 else x, tree)


class Side:
  """What both contenders have: the models described, made-up weights and data, alike in both.

  mode: 'check' (float32, the plain attention), 'train' or 'sample'. size: examples a step, or
  clips sampled at once.
  """

  def __init__(self, config, mode, size, half):
    self.began = contest.resident()
    if mode == 'check':
      config = config.copy_and_resolve_references()
      config.attention = 'tiled'
    self.config, self.mode, self.size, self.half = config, mode, size, half
    self.models, self.task = build(config, jnp.bfloat16 if half else jnp.float32)
    self.frozen = micro.frozen_of(self.models)
    self.batch = micro.batch_of(self.models, size)
    self.noise = micro.noise_of(self.task, size)
    self.name, = self.task.generate

  def params(self):
    return micro.state_of(self.task, self.config, self.frozen).params


class Jax(Side):
  """The project's own training step and sampler."""

  def __init__(self, config, mode, size, half=False):
    super().__init__(config, mode, size, half)
    self.optimizer = training.make_optimizer(config)
    if half:
      self.frozen = halves(self.frozen, jnp.bfloat16)

  def platform(self):
    return jax.default_backend(), jax.devices()[0].device_kind

  def prepare(self):
    """Compiles and runs once -> seconds of both."""
    own = functools.partial(jax.tree.map, lambda x: jnp.array(x, copy=True))  # to be donated
    frozen, batch = jax.device_put((self.frozen, self.batch))
    start = time.perf_counter()
    if self.mode == 'train':
      state = own(micro.state_of(self.task, self.config, self.frozen))
      update = jax.jit(functools.partial(
          training.train_step, self.task, self.optimizer, self.config), donate_argnums=0)

      def run():
        nonlocal state
        state, metrics = update(state, frozen, batch)
        jax.block_until_ready((state, metrics))
    else:
      params = jax.device_put(self.params())
      generate = jax.jit(functools.partial(sampler.generate, self.task, self.config.sample.steps))
      given = jax.device_put((batch, *self._sampling()))
      run = lambda: jax.block_until_ready(generate(params, frozen, *given))  # noqa: E731
    self.run = run
    run()
    seconds = time.perf_counter() - start
    contest.forget_peak()
    return seconds

  def time(self, calls):
    return contest.timed(self.run, calls)

  def peak(self):
    """Bytes."""
    stats = jax.devices()[0].memory_stats()
    return stats['peak_bytes_in_use'] if stats else contest.peak_resident() - self.began

  def _sampling(self):
    shift = {self.name: self.config.sample.shift[self.name]}
    return (self.noise, identity_tracks(self.task, self.size), self.config.sample.guidance, shift)

  def flops(self):
    """Of a step, or of a whole sample, without what is computed again to save memory."""
    config = self.config.copy_and_resolve_references()
    config.attention, config.remat = 'reference', 'none'
    _, task = build(config)
    if self.mode == 'train':
      init = functools.partial(training.init, task, self.optimizer, 0)
      return flops.of(functools.partial(training.train_step, task, self.optimizer, config),
                      jax.eval_shape(init, self.frozen), self.frozen, self.batch)
    params = jax.eval_shape(lambda key: task.init(key, self.frozen), jax.random.key(0))
    return flops.of(functools.partial(sampler.generate, task, config.sample.steps),
                    params, self.frozen, self.batch, *self._sampling())

  def matrix_rate(self):
    """FLOP/s of a large matrix product."""
    n = LARGE['gpu' if jax.default_backend() == 'gpu' else 'cpu']
    x = jnp.ones((n, n), jnp.bfloat16 if self.half else jnp.float32)
    product = jax.jit(lambda x: x @ x)
    run = lambda: product(x).block_until_ready()  # noqa: E731
    run()
    return 2 * n**3 / min(contest.timed(run, 1)[0] for _ in range(10))

  def check(self, jit=jax.jit):
    """{'velocity', 'sample', 'loss', gradients by PyTorch's names}, and the draws behind them."""
    params, key = self.params(), jax.random.key(1)
    loss, gradients = jit(jax.value_and_grad(
        lambda p: self.task.loss(p, {}, self.frozen, self.batch, key)[0]))(params)
    one, four = (micro.sampling(self.task, steps, jit) for steps in (1, 4))
    said = {'velocity': one(params, self.frozen, self.batch, 1.0)[self.name]
                        - self.noise[self.name],
            'sample': four(params, self.frozen, self.batch, 5.0)[self.name], 'loss': loss}
    said |= torch_training.named(jax.device_get(gradients), self.task)
    return jax.device_get(said), draws(self.task, key, self.size)


class Torch(Side):
  """The same in PyTorch, eager or through torch.compile."""

  def __init__(self, config, mode, size, half=False, compiled=False, platform='cpu'):
    self.compiled = compiled
    self.device = 'cuda' if platform == 'gpu' else 'cpu'
    super().__init__(config, mode, size, half)
    torch.set_num_threads(contest.cores())
    self.model = torch_training.Model(
        self.task, models.example_shapes(self.models), torch.bfloat16 if half else torch.float32)
    torch_training.load(self.model, self.task, self.params(), self.frozen)
    self.model.to(self.device)
    self.batch, self.noise = self._put(self.batch), self._put(self.noise)
    self.null = self._put(self.models.text.prepare(['']))
    if mode != 'check':
      self.frozen = None

  def _put(self, tree):
    return jax.tree.map(
        lambda x: torch.from_numpy(np.array(x)).to(self.device), tree)

  def _times(self, steps):
    shift = self.config.sample.shift[self.name]
    return self._put(np.asarray(flow.time_grid(steps, shift)))

  def prepare(self):
    start = time.perf_counter()
    if self.mode == 'train':
      trainer = torch_training.Trainer(self.model, self.config.train, self.compiled)
      run = lambda: trainer.step(self.batch, self.null)  # noqa: E731
    else:
      sample = torch_training.Sampler(self.model, self.compiled)
      run = lambda: sample(self.batch, self.null, self.noise,  # noqa: E731
                           self._times(self.config.sample.steps), self.config.sample.guidance)
    self.run = lambda: (run(), self._wait())
    self.run()
    seconds = time.perf_counter() - start
    contest.forget_peak()
    return seconds

  def _wait(self):
    if self.device == 'cuda':
      torch.cuda.synchronize()

  def time(self, calls):
    return contest.timed(self.run, calls)

  def peak(self):
    if self.device == 'cuda':
      return torch.cuda.max_memory_allocated()
    return contest.peak_resident() - self.began

  def matrix_rate(self):
    n = LARGE['gpu' if self.device == 'cuda' else 'cpu']
    x = torch.ones(n, n, device=self.device,
                        dtype=torch.bfloat16 if self.half else torch.float32)
    run = lambda: (x @ x, self._wait())  # noqa: E731
    run()
    return 2 * n**3 / min(contest.timed(run, 1)[0] for _ in range(10))

  def check(self, drawn):
    loss = self.model.loss(self.batch, self.null, self._put(drawn))
    loss.backward()
    sample = torch_training.Sampler(self.model, compiled=False)
    made = lambda steps, guidance: sample(  # noqa: E731
        self.batch, self.null, self.noise, self._times(steps), guidance)
    said = {'velocity': made(1, 1.0) - self.noise[self.name], 'sample': made(4, 5.0),
            'loss': loss.detach()}
    # What feeds nothing has no gradient here and zeros there.
    said |= {name: torch.zeros_like(p) if p.grad is None else p.grad
             for name, p in self.model.named_parameters() if p.requires_grad}
    return {name: x.cpu().numpy() for name, x in said.items()}


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


def jax_process(*args):
  """A Jax in a process of its own."""
  # Takes what it needs of a GPU's memory: the others need theirs.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  if 'check' in args:
    jax.config.update('jax_default_matmul_precision', 'highest')
  return Jax(*args)


def torch_process(*args):
  """A Torch in a process of its own. Raises RuntimeError where JAX has a GPU that it lacks."""
  if 'gpu' in args and not torch.cuda.is_available():
    raise RuntimeError('JAX has a GPU and PyTorch sees none: install its CUDA build')
  jax.config.update('jax_platforms', 'cpu')  # it describes the models and makes their weights
  return Torch(*args)


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
