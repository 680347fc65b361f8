"""What is timed against each other (speed.py): the project's training step and sampler, and the
PyTorch model's, with the same made-up weights and data."""

import dataclasses
import functools
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from avlink_jax import build as models
from avlink_jax import flow, tasks
from avlink_jax.hardware import flops
from avlink_jax.model.noise import gaussian
from avlink_jax.sampling import sampler
from avlink_jax.training import step as training
from tests import micro
from tests.benchmarks import contest, torch_training

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
    words = Words(config.text.width, config.text.max_tokens)
    built = dataclasses.replace(built, modalities={
        name: dataclasses.replace(modality, text=words)
        for name, modality in built.modalities.items()})
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
      generate = jax.jit(functools.partial(sampler.generate, self.task, self.task.schedule))
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
    tracks = micro.identity_tracks(self.task, self.size)
    return self.noise, tracks, self.config.sample.guidance, shift

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
    return flops.of(functools.partial(sampler.generate, task, task.schedule),
                    params, self.frozen, self.batch, *self._sampling())

  def matrix_rate(self):
    """FLOP/s of a large matrix product."""
    n = LARGE['gpu' if jax.default_backend() == 'gpu' else 'cpu']
    x = jax.random.normal(jax.random.key(0), (n, n), jnp.bfloat16 if self.half else jnp.float32)
    product = jax.jit(lambda x: x @ x)
    return contest.matrix_rate(lambda: product(x).block_until_ready(), n)

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
    if mode == 'check':
      torch.backends.cudnn.allow_tf32 = False  # which PyTorch has for convolutions otherwise
    with torch.device(self.device):  # a model of full size takes long to initialise on a CPU
      self.model = torch_training.Model(
          self.task, models.example_shapes(self.models), torch.bfloat16 if half else torch.float32)
    torch_training.load(self.model, self.task, self.params(), self.frozen)
    self.model.to(self.device)
    self.batch, self.noise = self._put(self.batch), self._put(self.noise)
    self.null = self._put(self.models.modalities['audio'].text.prepare(['']))
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
    x = torch.randn(n, n, device=self.device,
                    dtype=torch.bfloat16 if self.half else torch.float32)
    return contest.matrix_rate(lambda: (x @ x, self._wait()), n)

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
