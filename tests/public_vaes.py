"""Tiny random autoencoders in published layouts: Wan's, written by diffusers, and a continuous DAC,
written by a small one in torch.

`save_wan_vae(folder)` and `save_dac(folder)` write a model's `vae/` and return the torch model.
"""

import json
import math
import pathlib

import torch
from torch import nn
from torch.nn.utils import weight_norm

WAN = {'base_dim': 6, 'z_dim': 16, 'dim_mult': [1, 2, 2, 2], 'num_res_blocks': 1,
       'temperal_downsample': [False, True, True]}
DAC_SIZES = {'encoder_dim': 2, 'encoder_rates': [2, 3, 4, 5, 8], 'latent_dim': 128,
             'decoder_dim': 64, 'decoder_rates': [8, 5, 4, 3, 2], 'sample_rate': 48_000,
             'continuous': True}
PICKLED = 'vae_128d_48k.pth'


def save_wan_vae(folder, seed=0, **changes):
  """Writes FOLDER/vae of a random AutoencoderKLWan of sizes WAN with `changes`; returns it."""
  from diffusers import AutoencoderKLWan
  torch.manual_seed(seed)
  vae = AutoencoderKLWan(**{**WAN, **changes}).eval()
  with torch.no_grad():
    for name, x in vae.named_parameters():
      x += 0.1 * torch.randn(x.shape)
      if name.endswith('gamma'):
        x += 0.1 * torch.randn(x.shape)
  vae.save_pretrained(pathlib.Path(folder, 'vae'))
  return vae


class Snake(nn.Module):
  def __init__(self, channels):
    super().__init__()
    self.alpha = nn.Parameter(1 + 0.3 * torch.rand(1, channels, 1))

  def forward(self, x):
    return x + torch.sin(self.alpha * x) ** 2 / (self.alpha + 1e-9)


def conv(inner, outer, width=1, **options):
  """Weight-normalised convolution, with lengths and biases of some size."""
  layer = weight_norm(options.pop('kind', nn.Conv1d)(inner, outer, width, **options))
  with torch.no_grad():
    layer.weight_g *= 0.7 + 0.6 * torch.rand(layer.weight_g.shape)
    layer.bias += 0.1 * torch.randn(layer.bias.shape)
  return layer


class Blocks(nn.Module):
  """A sequence, called `block` or `model` as in the published weights."""

  def __init__(self, name, *layers):
    super().__init__()
    self.name = name
    self.add_module(name, nn.Sequential(*layers))

  def forward(self, x):
    return getattr(self, self.name)(x)


class Skip(Blocks):
  def forward(self, x):
    return x + super().forward(x)


def units(channels):
  return [Skip('block', Snake(channels), conv(channels, channels, 7, dilation=d, padding=3 * d),
               Snake(channels), conv(channels, channels)) for d in (1, 3, 9)]


def strided(inner, outer, stride, **options):
  return conv(inner, outer, 2 * stride, stride=stride, padding=math.ceil(stride / 2), **options)


class TorchDAC(nn.Module):
  """The continuous DAC, by its published description; names as in the published weights."""

  def __init__(self, sizes):
    super().__init__()
    width, latent, c = sizes['encoder_dim'], sizes['latent_dim'], sizes['decoder_dim']
    layers = [conv(1, width, 7, padding=3)]
    for rate in sizes['encoder_rates']:
      layers.append(Blocks('block', *units(width), Snake(width), strided(width, 2 * width, rate)))
      width *= 2
    self.encoder = Blocks('block', *layers, Snake(width), conv(width, latent, 3, padding=1))
    self.quant_conv = nn.Conv1d(latent, 2 * latent, 1)
    self.post_quant_conv = nn.Conv1d(latent, latent, 1)
    layers = [conv(latent, c, 7, padding=3)]
    for rate in sizes['decoder_rates']:
      up = strided(c, c // 2, rate, kind=nn.ConvTranspose1d, output_padding=rate % 2)
      layers.append(Blocks('block', Snake(c), up, *units(c // 2)))
      c //= 2
    self.decoder = Blocks('model', *layers, Snake(c), conv(c, 1, 7, padding=3), nn.Tanh())
    self.hop = math.prod(sizes['encoder_rates'])

  def encode(self, wave):
    """Posterior's mean (B, C, ⌈S/hop⌉) of wave (B, 1, S)."""
    wave = nn.functional.pad(wave, (0, -wave.shape[-1] % self.hop))
    return self.quant_conv(self.encoder(wave)).chunk(2, dim=1)[0]

  def decode(self, z):
    """Wave (B, 1, T·hop) of latents (B, C, T)."""
    return self.decoder(self.post_quant_conv(z))


def save_dac(folder, seed=0, pickled=True, **changes):
  """Writes FOLDER/vae of a random DAC of sizes DAC_SIZES with `changes`; returns it.

  pickled: one checkpoint that holds its sizes; else safetensors beside a config.json."""
  torch.manual_seed(seed)
  sizes = {**DAC_SIZES, **changes}
  dac, vae = TorchDAC(sizes).eval(), pathlib.Path(folder, 'vae')
  vae.mkdir(parents=True, exist_ok=True)
  if pickled:
    torch.save({'state_dict': dac.state_dict(), 'metadata': {'kwargs': sizes}}, vae / PICKLED)
  else:
    from safetensors.torch import save_file
    save_file(dac.state_dict(), vae / 'diffusion_pytorch_model.safetensors')
    (vae / 'config.json').write_text(json.dumps({'_class_name': 'DAC', **sizes}))
  return dac
