"""PaSST gives what its layers give, written anew in torch, at a small width under public names."""

import numpy as np
import pytest
from test_networks import TOLERANCE, channels_first, noise, off, random_state

from avlink_jax.metrics.networks import passt

torch = pytest.importorskip('torch')
nn = torch.nn
WIDTH, HEADS, CLASSES = 8, 2, 7


def layers_anew(bands, times):
  norm = lambda eps=1e-6: nn.LayerNorm(WIDTH, eps=eps)  # noqa: E731
  linear = nn.Linear
  model = nn.ModuleDict({
      'patch_embed': nn.ModuleDict({'proj': nn.Conv2d(1, WIDTH, 16, 10)}),
      'blocks': nn.ModuleList(nn.ModuleDict({
          'norm1': norm(), 'norm2': norm(),
          'attn': nn.ModuleDict({'qkv': linear(WIDTH, 3 * WIDTH), 'proj': linear(WIDTH, WIDTH)}),
          'mlp': nn.ModuleDict({'fc1': linear(WIDTH, 4 * WIDTH), 'fc2': linear(4 * WIDTH, WIDTH)})})
          for _ in range(2)),
      'norm': norm(), 'head': nn.Sequential(norm(1e-5), linear(WIDTH, CLASSES))})
  for name, shape in (('cls_token', (1, 1, WIDTH)), ('dist_token', (1, 1, WIDTH)),
                      ('new_pos_embed', (1, 2, WIDTH)),
                      ('freq_new_pos_embed', (1, WIDTH, bands, 1)),
                      ('time_new_pos_embed', (1, WIDTH, 1, times))):
    model.register_parameter(name, nn.Parameter(torch.zeros(shape)))
  return model


def through(model, x):
  """x (B, 1, bands, T) to (embedding, logits)."""
  x = model['patch_embed']['proj'](x)
  x = x + model.freq_new_pos_embed + model.time_new_pos_embed[..., :x.shape[-1]]
  tokens = torch.cat([model.cls_token, model.dist_token], 1) + model.new_pos_embed
  x = torch.cat([tokens.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
  for block in model['blocks']:
    q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
               for part in block['attn']['qkv'](block['norm1'](x)).chunk(3, -1))
    found = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    x = x + block['attn']['proj'](found)
    x = x + block['mlp']['fc2'](nn.functional.gelu(block['mlp']['fc1'](block['norm2'](x))))
  x = model['norm'](x)
  embedding = (x[:, 0] + x[:, 1]) / 2
  return embedding, model['head'](embedding)


def test_passt_is_its_layers_written_anew(monkeypatch):
  monkeypatch.setattr(passt, 'HEADS', HEADS)
  model = layers_anew(3, 6)  # more times than there are
  weights, x = random_state(model), noise(2, 36, 46, 1)
  with torch.no_grad():
    embedding, logits = through(model, channels_first(x))
  made = passt.forward(passt.rename({f'model.{name}': w for name, w in weights.items()}), x)
  assert off(made['embedding'], embedding) < TOLERANCE and off(made['logits'], logits) < TOLERANCE


@pytest.mark.parametrize('seconds', [3, 12])
def test_its_log_mels_are_torchs_spectrum_of_ten_seconds_in_kaldis_bands(seconds):
  audio = pytest.importorskip('transformers.audio_utils')
  wave = noise(seconds * 32000)
  given = wave[:320000]
  given = np.pad(given, (0, 320000 - len(given)))
  spectrum = torch.stft(torch.from_numpy(given[1:] - 0.97 * given[:-1]), 1024, 320, 800,
                        window=torch.hann_window(800, periodic=False), return_complex=True)
  bands = audio.mel_filter_bank(513, 128, 0.0, 15000.0, 32000, norm=None, mel_scale='kaldi',
                                triangularize_in_mel_space=True)
  expected = (np.log(bands.T @ (spectrum.abs().numpy() ** 2) + 1e-5) + 4.5) / 5
  found = passt.prepare(wave)
  assert found.shape == (1, 128, 1000, 1) and off(found[0, ..., 0], expected) < TOLERANCE
