"""The same architecture in PyTorch, written for the comparison (tests/benchmarks/speed.py).

Towers, Fusion Blocks, the word encoder, the 1D-VAE's encoder, a training step and the sampler, as
one would write them for speed in PyTorch: fused attention, norms and AdamW, nothing computed or
differentiated that is not needed. Modules are called as in the JAX model, so that `state_dict` of
its weights loads as it is. Sizes, patches and positions are read from the JAX model's description
(avlink_jax.build.Models); no JAX runs here.

Tokens (B, N, C), attention heads first, key masks bool (B, 1, 1, S), True where a key may be seen.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from avlink_jax.model import rope
from avlink_jax.model.aided_fusion import AidedFusion
from avlink_jax.model.avlink import segment_lengths
from avlink_jax.model.patches import grid
from avlink_jax.model.prediction import DataPrediction
from avlink_jax.model.wide import Wide


def state_dict(tree, prefix=''):
  """The JAX model's parameters, a dict of dicts of arrays -> {'blocks.0.mlp.Dense_0.weight': array}
  as PyTorch lays weights out; stacked blocks are taken apart."""
  flat = {}
  for name, value in tree.items():
    if name == 'blocks':
      for i in range(len(next(iter(_leaves(value))))):
        flat |= state_dict(_row(value, i), f'{prefix}blocks.{i}.')
    elif isinstance(value, dict):
      flat |= state_dict(value, f'{prefix}{name}.')
    else:
      known = {'kernel': 'weight', 'scale': 'weight', 'embedding': 'weight'}
      flat[prefix + known.get(name, name)] = (
          np.moveaxis(value, (0, -1), (-1, 0)) if name == 'kernel' else np.asarray(value))
  return flat


def _leaves(tree):
  for value in tree.values():
    yield from _leaves(value) if isinstance(value, dict) else (value,)


def _row(tree, i):
  return {k: _row(v, i) if isinstance(v, dict) else v[i] for k, v in tree.items()}


class Linear(nn.Linear):
  """In the input's dtype, whatever the weights are kept in."""

  def forward(self, x):
    return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class MLP(nn.Module):
  def __init__(self, width, hidden, out):
    super().__init__()
    self.Dense_0, self.Dense_1 = Linear(width, hidden), Linear(hidden, out)

  def forward(self, x):
    return self.Dense_1(F.gelu(self.Dense_0(x), approximate='tanh'))


class RMSNorm(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.weight = nn.Parameter(torch.ones(width))

  def forward(self, x):
    return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), eps=1e-6)


def modulate(x, shift, scale):
  return F.layer_norm(x, (x.shape[-1],), eps=1e-6) * (1 + scale) + shift


def rotate(x, rotation):
  cos, sin = rotation
  x1, x2 = x.chunk(2, dim=-1)
  return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], dim=-1)


def time_features(t, dim=256, scale=1000.0, max_period=10_000.0):
  steps = torch.arange(dim // 2, device=t.device, dtype=torch.float32)
  angle = scale * t[:, None] * torch.exp(-math.log(max_period) / (dim // 2) * steps)
  return torch.cat([angle.cos(), angle.sin()], dim=-1)


class Attention(nn.Module):
  def __init__(self, width, heads, cross=False):
    super().__init__()
    self.heads, self.cross = heads, cross
    if cross:
      self.q, self.kv = Linear(width, width), Linear(width, 2 * width)
    else:
      self.qkv = Linear(width, 3 * width)
    self.q_norm, self.k_norm = RMSNorm(width // heads), RMSNorm(width // heads)
    self.out = Linear(width, width)

  def forward(self, x, mask=None, source=None, rotation=None):
    split = lambda y, n: y.unflatten(-1, (n, self.heads, -1)).permute(2, 0, 3, 1, 4)  # noqa: E731
    if self.cross:
      q, = split(self.q(x), 1)
      k, v = split(self.kv(source), 2)
    else:
      q, k, v = split(self.qkv(x), 3)
    q, k = self.q_norm(q), self.k_norm(k)
    if rotation is not None:
      q, k = rotate(q, rotation), rotate(k, rotation)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
  def __init__(self, width, heads, mlp):
    super().__init__()
    self.modulation = Linear(width, 7 * width)
    self.self_attention = Attention(width, heads)
    self.text_attention = Attention(width, heads, cross=True)
    self.mlp = MLP(width, mlp, width)

  def forward(self, x, stream):
    vectors = self.modulation(F.silu(stream.time))[:, None].chunk(7, dim=-1)
    shift1, scale1, gate1, gate2, shift3, scale3, gate3 = vectors
    x = x + gate1 * self.self_attention(modulate(x, shift1, scale1), stream.mask,
                                        rotation=stream.rotation)
    y = F.layer_norm(x, (x.shape[-1],), eps=1e-6)
    x = x + gate2 * self.text_attention(y, stream.text_mask, stream.text)
    return x + gate3 * self.mlp(modulate(x, shift3, scale3))


class Input(NamedTuple):
  """x (B, T, [H, W,] channels) at flow time t (B,); mask (B, T); text (B, L, C), (B, L)."""
  x: torch.Tensor
  t: torch.Tensor
  text: torch.Tensor
  text_mask: torch.Tensor
  mask: torch.Tensor


class Stream(NamedTuple):
  """What a tower's blocks look at beside the tokens."""
  time: torch.Tensor
  text: torch.Tensor
  text_mask: torch.Tensor
  mask: torch.Tensor
  rotation: tuple[torch.Tensor, torch.Tensor]


class Embed(nn.Module):
  def __init__(self, dit, hidden, patch):
    super().__init__()
    self.patch = Linear(patch, dit.width)
    self.wide = MLP(patch, hidden, dit.width) if hidden else None
    self.time = MLP(256, dit.width, dit.width)
    self.text = MLP(dit.text_width, dit.width, dit.width)

  def forward(self, patches, t, text):
    tokens = self.patch(patches)
    if self.wide is not None:
      tokens = tokens + self.wide(patches)
    return tokens, self.time(time_features(t).to(tokens.dtype)), self.text(text)


class Head(nn.Module):
  def __init__(self, dit, hidden, patch):
    super().__init__()
    self.modulation, self.out = Linear(dit.width, 2 * dit.width), Linear(dit.width, patch)
    self.hidden = hidden
    if hidden:
      self.seen, self.gate = Linear(patch, hidden), Linear(dit.width, hidden)
      self.wide, self.wide_out = Linear(dit.width, hidden), Linear(hidden, patch)

  def forward(self, tokens, time, patches):
    time = F.silu(time)
    x = modulate(tokens, *self.modulation(time)[:, None].chunk(2, dim=-1))
    out = self.out(x)
    if self.hidden:
      seen = self.seen(patches) * (1 + self.gate(time)[:, None])
      out = out + self.wide_out(F.gelu(self.wide(x) + seen, approximate='tanh'))
    return out.float()


class Rotation(nn.Module):
  """cos and sin of angles (N, D/2), kept on the device."""

  def __init__(self, angles):
    super().__init__()
    for name, f in (('cos', np.cos), ('sin', np.sin)):
      self.register_buffer(name, torch.from_numpy(f(np.asarray(angles))), persistent=False)

  def of(self, dtype):
    return self.cos.to(dtype), self.sin.to(dtype)


class Tower(nn.Module):
  """`tower` says what it is made of (avlink_jax.model.dit.DiT, in what wraps it), for data of
  `shape` (T, [H, W])."""

  def __init__(self, tower, shape):
    super().__init__()
    self.predicts_data = isinstance(tower, DataPrediction)
    if self.predicts_data:
      self.detail, tower = tower.detail, tower.tower
    self.hidden, dit = (tower.hidden, tower.tower) if isinstance(tower, Wide) else (0, tower)
    self.dit, self.shape, self.grid = dit, shape, grid(shape, dit.patch)
    patch = math.prod(dit.patch) * dit.channels
    self.embed, self.head = Embed(dit, self.hidden, patch), Head(dit, self.hidden, patch)
    self.blocks = nn.ModuleList(Block(dit.width, dit.heads, dit.mlp) for _ in range(dit.depth))
    positions = np.stack([a.ravel() for a in np.meshgrid(
        *map(np.arange, self.grid), indexing='ij')], axis=-1)
    self.rotation = Rotation(rope.angles(positions, dit.width // dit.heads, dit.rope_base))

  def begin(self, given, dtype):
    """Input -> tokens, Stream."""
    first, *space = self.grid
    mask = F.pad(given.mask, (0, first * self.dit.patch[0] - given.mask.shape[1]))
    mask = mask.unflatten(1, (first, -1)).any(-1).repeat_interleave(math.prod(space), dim=1)
    tokens, time, text = self.embed(
        self.patches(given.x.to(dtype)), given.t, given.text.to(dtype))
    return tokens, Stream(time, text, given.text_mask[:, None, None], mask[:, None, None],
                          self.rotation.of(dtype))

  def run(self, first, last, tokens, stream):
    for block in self.blocks[first:last]:
      tokens = block(tokens, stream)
    return tokens

  def end(self, tokens, stream, given):
    """Velocity, shaped as the data."""
    t = given.t.reshape(-1, *[1] * (given.x.ndim - 1))
    patches = self.patches(given.x.to(tokens.dtype)) if self.hidden else None
    out = self.unpatchify(self.head(tokens, stream.time, patches))
    if not self.predicts_data:
      return out
    gain = t * self.detail**2 / ((t * self.detail) ** 2 + (1 - t) ** 2 + 1e-12)
    x1 = out + gain * (given.x - t * out)
    return (x1 - given.x) / (1 - t.clamp(max=0.95))

  def alone(self, given, dtype):
    tokens, stream = self.begin(given, dtype)
    return self.end(self.run(0, None, tokens, stream), stream, given)

  def patches(self, x):
    padding = [(0, g * p - n) for g, p, n in
               zip(self.grid, self.dit.patch, self.shape, strict=True)]
    x = F.pad(x, (0, 0, *(n for pair in reversed(padding) for n in pair)))
    for axis, size in enumerate(self.dit.patch):
      x = x.unflatten(1 + 2 * axis, (-1, size))
    n = len(self.grid)
    x = x.permute(0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 * n + 1)
    return x.flatten(n + 1).flatten(1, n)

  def unpatchify(self, tokens):
    n = len(self.grid)
    x = tokens.unflatten(1, self.grid).unflatten(-1, (*self.dit.patch, -1))
    x = x.permute(0, *(a for i in range(n) for a in (1 + i, 1 + n + i)), 2 * n + 1)
    for axis, size in enumerate(self.shape):
      x = x.flatten(1 + axis, 2 + axis).narrow(1 + axis, 0, size)
    return x


class FusionBlock(nn.Module):
  """One of `fusion` (avlink_jax.model.fusion.Fusion, aided or not) for towers of `widths`."""

  def __init__(self, fusion, widths):
    super().__init__()
    self.contrast = 0
    if isinstance(fusion, AidedFusion):
      self.contrast, fusion = fusion.contrast, fusion.fusion
    self.width = fusion.width
    for m, width in enumerate(widths):
      self.add_module(f'modulation_in_{m}', Linear(256 * len(widths), fusion.rank))
      self.add_module(f'modulation_out_{m}', Linear(fusion.rank, 4 * fusion.width + width))
      self.add_module(f'in_{m}', Linear(width, fusion.width))
      self.add_module(f'out_{m}', MLP(fusion.width, fusion.mlp, width))
    self.attention = Attention(fusion.width, fusion.heads)

  def forward(self, tokens, times, masks, places, rotation, wanted):
    """Tokens of each stream -> what replaces them; None of streams that are not `wanted`."""
    common, modulated, ways_back = [], [], []
    for m, x in enumerate(tokens):
      low = F.silu(getattr(self, f'modulation_in_{m}')(times))
      vectors = getattr(self, f'modulation_out_{m}')(low)[:, None]
      shift, scale, *back = vectors.split([self.width] * 4 + [x.shape[-1]], dim=-1)
      if self.contrast:
        seen = raise_changes(x, masks[m], places[m], self.contrast)
      else:
        seen = x
      common.append(getattr(self, f'in_{m}')(seen))
      modulated.append(modulate(common[-1], shift, scale))
      ways_back.append(back)
    joint = self.attention(torch.cat(modulated, dim=1), torch.cat(masks, dim=-1),
                           rotation=rotation)
    attended = joint.split([x.shape[1] for x in tokens], dim=1)
    out = []
    for m, (x, h, y) in enumerate(zip(tokens, common, attended, strict=True)):
      shift, scale, gate = ways_back[m]
      out.append(x + gate * getattr(self, f'out_{m}')(modulate(h + y, shift, scale))
                 if wanted[m] else None)
    return out


def raise_changes(x, mask, places, contrast):
  y = x.unflatten(1, (-1, places))
  weight = mask.reshape(*y.shape[:3], 1).to(x.dtype)
  rest = (y * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
  return (rest + (1 + contrast) * (y - rest)).flatten(1, 2)


class Link(nn.Module):
  """AV-Link: towers {name: Tower} joined by Fusion Blocks, `link` (model.avlink.AVLink)."""

  def __init__(self, link, towers):
    super().__init__()
    fusion, names = link.fusion, list(towers)
    self.blocks = nn.ModuleList(
        FusionBlock(fusion, [towers[n].dit.width for n in names]) for _ in range(fusion.blocks))
    self.lengths = {n: segment_lengths(towers[n].dit.depth, fusion.blocks, link.placement)
                    for n in names}
    self.places = [math.prod(towers[n].grid[1:]) for n in names]
    seconds = np.concatenate([towers[n].dit.token_seconds(towers[n].shape) for n in names])
    self.rotation = Rotation(fusion.angles(seconds))
    plain = fusion.fusion if isinstance(fusion, AidedFusion) else fusion
    self.remat = link.remat or plain.remat  # as coarse as `segment` in either case

  def forward(self, towers, inputs, outputs, dtype):
    """{name: Input} -> {name: velocity} of `outputs`; blocks that feed none of them do not run."""
    names, tokens, streams = list(inputs), {}, {}
    for n in names:
      x, streams[n] = towers[n].begin(inputs[n], dtype)
      tokens[n] = towers[n].run(0, self.lengths[n][0], x, streams[n])
    times = torch.cat([time_features(inputs[n].t) for n in names], dim=-1).to(dtype)
    masks = [streams[n].mask for n in names]
    last = len(self.blocks) - 1

    def step(i, *given):
      wanted = [i < last or n in outputs for n in names]
      fused = self.blocks[i](given, times, masks, self.places, self.rotation.of(dtype), wanted)
      after = []
      for n, x in zip(names, fused, strict=True):
        first = sum(self.lengths[n][:i + 1])
        after.append(None if x is None else
                     towers[n].run(first, first + self.lengths[n][i + 1], x, streams[n]))
      return after

    current = [tokens[n] for n in names]
    for i in range(len(self.blocks)):
      current = (checkpoint(step, i, *current, use_reentrant=False)
                 if self.remat and torch.is_grad_enabled() else step(i, *current))
    return {n: towers[n].end(x, streams[n], inputs[n])
            for n, x in zip(names, current, strict=True) if n in outputs}
