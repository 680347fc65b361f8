"""PANNs' CNN14 gives what its public implementations give, at 16 and at 32 kHz.

Random weights: at small widths against its layers written anew in torch, at the public ones against
`panns_inference` where that is installed.
"""

import jax
import librosa
import numpy as np
import pytest
from test_networks import TOLERANCE, noise, off, random_state

from avlink_jax.metrics import network_metrics
from avlink_jax.metrics.networks import cnn14
from avlink_jax.metrics.networks.registry import NETWORKS, PANNS, PANNS_32K

torch = pytest.importorskip('torch')
nn = torch.nn
RATES = [(PANNS, cnn14.AT_16K), (PANNS_32K, cnn14.AT_32K)]
WIDTHS, CLASSES = (2, 3, 4, 4, 5, 6), 7


def layers_anew():
  """Its layers under their public names, at small widths."""
  model = nn.ModuleDict({'bn0': nn.BatchNorm2d(64), 'fc1': nn.Linear(WIDTHS[-1], WIDTHS[-1]),
                         'fc_audioset': nn.Linear(WIDTHS[-1], CLASSES)})
  before = 1
  for k, width in enumerate(WIDTHS):
    model[f'conv_block{k + 1}'] = nn.ModuleDict({
        'conv1': nn.Conv2d(before, width, 3, padding=1, bias=False), 'bn1': nn.BatchNorm2d(width),
        'conv2': nn.Conv2d(width, width, 3, padding=1, bias=False), 'bn2': nn.BatchNorm2d(width)})
    before = width
  return model


def through(model, x):
  """Log-mels (B, T, 64) to (embedding, logits)."""
  x = model['bn0'](x[..., None].transpose(1, 2)).transpose(1, 2).permute(0, 3, 1, 2)
  for k in range(len(WIDTHS)):
    block = model[f'conv_block{k + 1}']
    for layer in ('1', '2'):
      x = torch.relu(block['bn' + layer](block['conv' + layer](x)))
    x = nn.functional.avg_pool2d(x, 2) if k < 5 else x
  x = x.mean(3)
  embedding = torch.relu(model['fc1'](x.amax(2) + x.mean(2)))
  return embedding, model['fc_audioset'](embedding)


def test_cnn14_is_its_layers_written_anew():
  model = layers_anew()
  weights, x = random_state(model), noise(2, 70, 64)
  with torch.no_grad():
    embedding, logits = through(model, torch.from_numpy(x))
  made = jax.jit(cnn14.forward)(weights, x)
  assert off(made['embedding'], embedding) < TOLERANCE and off(made['logits'], logits) < TOLERANCE


@pytest.mark.parametrize('network, recipe', RATES)
def test_its_log_mels_are_torchs_spectrum_in_slaneys_bands(network, recipe):
  wave = noise(network.rate // 2)
  spectrum = torch.stft(torch.from_numpy(wave), recipe.window, recipe.hop, return_complex=True,
                        window=torch.hann_window(recipe.window)).abs() ** 2
  bands = librosa.filters.mel(sr=network.rate, n_fft=recipe.window, n_mels=64, fmin=50,
                              fmax=recipe.highest)
  expected = 10 * np.log10(np.maximum(bands @ spectrum.numpy(), 1e-10)).T
  found = network.prepare(wave)
  assert found.shape == (1, 51, 64) and off(found[0], expected) < TOLERANCE
  assert network.prepare(wave[:9]).shape[1] >= 32  # five poolings leave a frame


@pytest.mark.parametrize('network, recipe', RATES)
def test_cnn14_is_panns_inference(network, recipe):
  models = pytest.importorskip('panns_inference.models')
  public = models.Cnn14(sample_rate=network.rate, window_size=recipe.window, hop_size=recipe.hop,
                        mel_bins=64, fmin=50, fmax=recipe.highest, classes_num=527)
  made_here = {name: value.clone() for name, value in public.state_dict().items()
               if 'extractor' in name}
  random_state(public)
  public.load_state_dict(made_here, strict=False)  # its filters are no weights
  weights = cnn14.rename({f'model.{k}': v.numpy() for k, v in public.state_dict().items()})
  wave = noise(2 * network.rate)
  with torch.no_grad():
    expected = public(torch.from_numpy(wave)[None])
  made = jax.jit(network.forward)(weights, network.prepare(wave))
  assert off(made['embedding'], expected['embedding']) < TOLERANCE
  assert off(jax.nn.sigmoid(made['logits']), expected['clipwise_output']) < TOLERANCE
  assert (made['embedding'].shape[-1], made['logits'].shape[-1]) == network.size


def test_each_rate_has_its_own_file_and_its_own_metrics():
  assert PANNS.file != PANNS_32K.file
  for kind in ('fd', 'kl', 'is'):
    names = [f'{kind}_panns', f'{kind}_panns_32k']
    assert [NETWORKS[network_metrics.METRICS[name][1]].rate for name in names] == [16000, 32000]
