"""A training step and the sampler of the PyTorch model (torch_avlink.py): what avlink_jax's
tasks/flow.py, training/step.py and sampling/sampler.py do, for tasks that generate one modality.

Data are encoded inside the step, as there: pictures scaled, mels through the frozen 1D-VAE, words
through the frozen encoder. What a step of the trainer has beyond this is left out here, in
PyTorch's favour: counting and undoing steps whose numbers are not finite, metrics.
"""

import copy
import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.benchmarks.torch_avlink import MLP, Attention, Input, Link, Tower, state_dict


class Norm(nn.Module):
  def __init__(self, channels):
    super().__init__()
    self.norm = nn.GroupNorm(min(32, max(1, channels // 16)), channels, eps=1e-6)

  def forward(self, x):
    return self.norm(x)


class ResBlock(nn.Module):
  def __init__(self, channels, out):
    super().__init__()
    self.Norm_0, self.Conv_0 = Norm(channels), nn.Conv1d(channels, out, 3, padding=1)
    self.Norm_1, self.Conv_1 = Norm(out), nn.Conv1d(out, out, 3, padding=1)
    self.Conv_2 = nn.Identity() if channels == out else nn.Conv1d(channels, out, 1)

  def forward(self, x):
    h = self.Conv_0(F.silu(self.Norm_0(x)))
    return self.Conv_1(F.silu(self.Norm_1(h))) + self.Conv_2(x)


class AttentionBlock(nn.Module):
  def __init__(self, channels):
    super().__init__()
    self.Norm_0 = Norm(channels)
    self.Dense_0, self.Dense_1 = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

  def forward(self, x):
    q, k, v = self.Dense_0(self.Norm_0(x).transpose(1, 2))[:, None].chunk(3, dim=-1)
    y = F.scaled_dot_product_attention(q, k, v)[:, 0]
    return x + self.Dense_1(y).transpose(1, 2)


class Middle(nn.Module):
  def __init__(self, channels):
    super().__init__()
    self.ResBlock_0, self.ResBlock_1 = ResBlock(channels, channels), ResBlock(channels, channels)
    self.AttentionBlock_0 = AttentionBlock(channels)

  def forward(self, x):
    return self.ResBlock_1(self.AttentionBlock_0(self.ResBlock_0(x)))


class Encoder(nn.Module):
  """The 1D-VAE's encoder, `vae` (avlink_jax.codecs.mel_vae.MelVAE): mel (B, T, bins) -> the
  posterior's mean (B, T/stride, C). Float32 always."""

  def __init__(self, vae):
    super().__init__()
    self.vae = vae
    widths = [vae.width * m for m in vae.multipliers]
    self.layers, convs, blocks = [], 0, 0

    def conv(*args, **kwargs):
      nonlocal convs
      self.layers.append(name := f'Conv_{convs}')
      self.add_module(name, nn.Conv1d(*args, **kwargs))
      convs += 1

    conv(vae.n_mels, widths[0], 3, padding=1)
    channels = widths[0]
    for level, width in enumerate(widths):
      for _ in range(vae.blocks):
        self.layers.append(name := f'ResBlock_{blocks}')
        self.add_module(name, ResBlock(channels, width))
        channels, blocks = width, blocks + 1
      if level < len(widths) - 1:
        conv(width, width, 3, stride=2)
    self.Middle_0, self.Norm_0 = Middle(channels), Norm(channels)
    self.last = f'Conv_{convs}'
    self.add_module(self.last, nn.Conv1d(channels, 2 * vae.latent_channels, 3, padding=1))
    if vae.linear:
      self.linear = nn.Parameter(torch.empty(vae.stride * vae.n_mels, vae.latent_channels))

  def forward(self, mel):
    mel = F.pad(mel, (0, 0, 0, -mel.shape[1] % self.vae.stride), value=self.vae.silence)
    given = (mel - self.vae.centre) / self.vae.scale
    x = given.transpose(1, 2)
    for name in self.layers:
      layer = getattr(self, name)
      if getattr(layer, 'stride', None) == (2,):
        x = F.pad(x, (0, 1))
      x = layer(x)
    x = getattr(self, self.last)(F.silu(self.Norm_0(self.Middle_0(x))))
    mean = x.transpose(1, 2).chunk(2, dim=-1)[0]
    if self.vae.linear:
      mean = mean + given.reshape(*mean.shape[:2], -1) @ self.linear
    return mean


class Words(nn.Module):
  """`words` (avlink_jax.codecs.text.WordEncoder): int (B, L, 2) -> embeddings, mask (B, L)."""

  def __init__(self, words):
    super().__init__()
    self.depth, width = words.depth, words.width
    for i in range(2):
      self.add_module(f'word_{i}', nn.Embedding(2 + words.buckets, width))
    self.position = nn.Parameter(torch.zeros(words.max_words, width))
    for i in range(words.depth):
      self.add_module(f'Attention_{i}', Attention(width, words.heads))
      self.add_module(f'MLP_{i}', MLP(width, 4 * width, width))
    for i in range(2 * words.depth + 1):
      self.add_module(f'LayerNorm_{i}', nn.LayerNorm(width, eps=1e-6))

  def forward(self, words):
    mask = words[..., 0] != 0
    x = self.word_0(words[..., 0]) + self.word_1(words[..., 1]) + self.position
    for i in range(self.depth):
      y = getattr(self, f'LayerNorm_{2 * i}')(x)
      x = x + getattr(self, f'Attention_{i}')(y, mask[:, None, None])
      x = x + getattr(self, f'MLP_{i}')(getattr(self, f'LayerNorm_{2 * i + 1}')(x))
    return getattr(self, f'LayerNorm_{2 * self.depth}')(x), mask


class Given(nn.Module):
  """Text that comes embedded already, as T5's does."""

  def forward(self, text):
    return text['embedding'], text['mask']


class Model(nn.Module):
  """Everything that `task` (avlink_jax.tasks.FlowTask) runs, in `dtype`; `shapes` are of its data
  (avlink_jax.build.example_shapes). What is frozen takes no gradient and lies in `dtype`."""

  def __init__(self, task, shapes, dtype=torch.float32):
    super().__init__()
    self.flow, self.generate, self.dtype = task.config.flow, task.generate[0], dtype
    built, names = task.models, task.modalities
    self.towers = nn.ModuleDict({n: Tower(built.towers[n], shapes[n][:-1]) for n in names})
    self.texts = nn.ModuleDict({n: Words(text) if hasattr(text, 'buckets') else Given()
                                for n, text in built.texts.items() if n in names})
    self.codec = Encoder(built.modalities['audio'].codec.vae) if 'audio' in names else None
    if self.codec is not None:
      self.register_buffer('std', torch.ones(()))
    self.link = Link(built.link, self.towers) if task.linked else None
    self.own = [self.link] if task.linked else [self.towers[self.generate],
                                                self.texts[self.generate]]
    self.requires_grad_(False)
    for part in (self.towers, self.texts):
      part.to(dtype)
    for part in self.own:
      part.float().requires_grad_(True)

  def velocity(self, inputs):
    """{name: Input} -> velocity of what is generated."""
    if self.link is None:
      return self.towers[self.generate].alone(inputs[self.generate], self.dtype)
    return self.link(self.towers, inputs, (self.generate,), self.dtype)[self.generate]

  def unconditional(self, given):
    return self.towers[self.generate].alone(given, self.dtype)

  def clean(self, batch, name):
    """X_1 (B, T, ...)."""
    if name == 'video':
      return batch['video'].float() / 127.5 - 1
    return self.codec(batch['mel']) / self.std

  def mask(self, batch, name):
    """Where X_1 is real, bool (B, T)."""
    mask = batch[f'{name}_mask']
    if name == 'video':
      return mask
    stride = self.codec.vae.stride
    return F.pad(mask, (0, -mask.shape[1] % stride)).unflatten(1, (-1, stride)).any(-1)

  def loss(self, batch, null, draws=None):
    """Mean squared error of the velocity; `draws` {name: (X_0, t, dropped (B,))}, else random."""
    inputs = {}
    for name in self.towers:
      x1, mask = self.clean(batch, name), self.mask(batch, name)
      x0, t, dropped = draws[name] if draws else self.draw(name, x1)
      prompt = select(dropped, null, batch[f'{name}_text'])
      at = t.reshape(-1, *[1] * (x1.ndim - 1))
      inputs[name] = Input(at * x1 + (1 - at) * x0, t, *self.texts[name](prompt), mask)
      if name == self.generate:
        target, weight = x1 - x0, mask.reshape(*mask.shape, *[1] * (x1.ndim - 2))
    error = (self.velocity(inputs) - target) ** 2 * weight
    return error.sum() / (weight.sum().clamp(min=1) * target[0, 0].numel())

  def draw(self, name, x1):
    size, device, made = x1.shape[:1], x1.device, name == self.generate
    if made:
      t = torch.sigmoid(self.flow.location[name]
                        + self.flow.scale * torch.randn(size, device=device))
    else:
      t = torch.full(size, self.flow.condition_time[name], device=device)
    rate = self.flow.drop_generated if made else self.flow.drop_condition
    return torch.randn_like(x1), t, torch.rand(size, device=device) < rate


def select(chosen, one, many):
  """Rows of `one` (1, ...) where `chosen` (B,), of `many` (B, ...) elsewhere; tensors or dicts."""
  if isinstance(many, dict):
    return {key: select(chosen, one[key], many[key]) for key in many}
  return torch.where(chosen.reshape(-1, *[1] * (many.ndim - 1)), one, many)


def named(params, task):
  """Trained parameters of the JAX model, or their gradients, by the names that Model has."""
  if task.linked:
    return state_dict(params, 'link.')
  name, = task.generate
  return state_dict(params['dit'], f'towers.{name}.') | state_dict(params['text'], f'texts.{name}.')


def load(model, task, params, frozen):
  """Puts the JAX model's trained and frozen parameters (trees of arrays) into `model`."""
  flat = named(params, task)
  if task.linked:
    for name, tower in frozen['towers'].items():
      flat |= state_dict(tower['dit'], f'towers.{name}.')
      flat |= state_dict(tower['text'], f'texts.{name}.')
  if model.codec is not None:
    codec = frozen['codec']
    flat |= state_dict(codec['params']['encoder'], 'codec.') | {'std': codec['std']}
    if 'linear' in codec['params']:
      flat['codec.linear'] = codec['params']['linear']['encode']
  model.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in flat.items()})


@dataclasses.dataclass
class Trainer:
  """AdamW after clipping, a warm-up, and a moving average, as `train` (config.train) says."""
  model: Model
  train: object
  compiled: bool

  def __post_init__(self):
    train, self.steps = self.train, 0
    self.own = [p for part in self.model.own for p in part.parameters()]
    self.ema = [copy.deepcopy(p.data) for p in self.own]
    self.optimizer = torch.optim.AdamW(
        self.own, lr=train.learning_rate, betas=(train.beta1, train.beta2), eps=train.epsilon,
        weight_decay=train.weight_decay, fused=True)
    self.loss = torch.compile(self.model.loss) if self.compiled else self.model.loss

  def step(self, batch, null):
    """One update -> the loss."""
    for group in self.optimizer.param_groups:
      group['lr'] = self.train.learning_rate * min(1, self.steps / max(1, self.train.warmup_steps))
    loss = self.loss(batch, null)
    loss.backward()
    nn.utils.clip_grad_norm_(self.own, self.train.clip_norm)
    self.optimizer.step()
    self.optimizer.zero_grad(set_to_none=True)
    decay = min(self.train.ema_decay, (1 + self.steps) / (10 + self.steps))
    torch._foreach_lerp_(self.ema, [p.data for p in self.own], 1 - decay)
    self.steps += 1
    return loss.detach()


class Sampler:
  """Euler with guidance. The generated modality starts at `noise`, the others stand at their t."""

  def __init__(self, model, compiled):
    self.model = model
    self.velocity = torch.compile(self.guided) if compiled else self.guided

  def guided(self, x, t, standing, bare, guidance):
    """v_u + w·(v_c − v_u). `standing`: {name: Input} with the generated one's x and t to be
    replaced; `bare`: the generated one's with the null prompt."""
    model, t = self.model, t.expand(x.shape[0])
    inputs = {name: given._replace(x=x, t=t) if name == model.generate else given
              for name, given in standing.items()}
    conditional = model.velocity(inputs)
    unconditional = model.unconditional(bare._replace(x=x, t=t))
    return unconditional + guidance * (conditional - unconditional)

  @torch.no_grad()
  def __call__(self, batch, null, noise, times, guidance):
    """noise {name: X_0}, times (steps + 1,) -> X_1."""
    model, name, standing = self.model, self.model.generate, {}
    for n in model.towers:
      said = model.texts[n](batch[f'{n}_text'])
      if n == name:
        x = noise[n]
        t = torch.zeros(len(x), device=x.device)
        bare = Input(x, t, *(part.expand(len(x), *part.shape[1:])
                             for part in model.texts[n](null)), model.mask(batch, n))
      else:
        x1 = model.clean(batch, n)
        at = model.flow.condition_time[n]
        x, t = at * x1 + (1 - at) * noise[n], torch.full((len(x1),), at, device=x1.device)
      standing[n] = Input(x, t, *said, model.mask(batch, n))
    x = noise[name]
    for now, later in zip(times[:-1], times[1:], strict=True):
      x = x + (later - now) * self.velocity(x, now, standing, bare, guidance)
    return x
