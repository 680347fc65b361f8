"""LPIPS's distance against torch's own layers, and the small network that ships."""

import functools

import jax
import numpy as np
import pytest
import safetensors.numpy
from vgg import tensors

from avlink_jax.codecs import perceptual
from avlink_jax.codecs.mel import MelSpec, log_mel, normalise
from avlink_jax.codecs.perceptual import TAPS, VGG
from avlink_jax.data.impacts import Impacts
from avlink_jax.errors import UserError


def images(seed=0, size=(2, 36, 32, 1)):
  return np.random.default_rng(seed).uniform(0, 1.1, size).astype(np.float32)


@functools.cache
def clip_image(i=0):
  """(1, T, n_mels, 1) of a clip of impacts."""
  spec = MelSpec()
  mel = log_mel(normalise(Impacts('test').load(i).audio), spec)
  return (1 - mel / spec.silence)[None, ..., None]


def torch_lpips(image, other):
  """LPIPS from torch's layers: VGG16's Sequential, unit features, heads, mean over pixels."""
  torch = pytest.importorskip('torch')
  nn, layers, before = torch.nn, [], 3
  for index, channels in VGG:
    if len(layers) < index:  # a stage ends in a pooling
      layers.append(nn.MaxPool2d(2, 2))
    layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
    before = channels
  net = nn.Sequential(*layers)
  net.load_state_dict({name.removeprefix('features.'): torch.from_numpy(value)
                       for name, value in tensors().items() if name.startswith('features')})
  shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
  scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]

  def maps(x):
    x = (torch.from_numpy(2 * x - 1).permute(0, 3, 1, 2).expand(-1, 3, -1, -1) - shift) / scale
    for n, layer in enumerate(net):
      x = layer(x)
      if n - 1 in TAPS:
        yield x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)

  with torch.no_grad():
    return sum((torch.from_numpy(tensors()[f'lin{k}.model.1.weight']) * (x - y) ** 2).sum(
        1).mean((1, 2)) for k, (x, y) in enumerate(
            zip(maps(image), maps(other), strict=True))).numpy()


@functools.cache
def lpips(folder):
  safetensors.numpy.save_file(tensors(), folder / 'all.safetensors')
  return perceptual.load(str(folder / 'all.safetensors'))


@pytest.fixture(scope='module')
def network(tmp_path_factory):
  return lpips(tmp_path_factory.mktemp('vgg'))


def test_the_distance_is_lpipss(network):
  wanted = torch_lpips(images(0), images(1))
  assert (wanted > 1e-3).all()
  np.testing.assert_allclose(perceptual.distance(network, images(0), images(1)), wanted, rtol=1e-4)


def test_torch_files_are_read_too_and_in_two_parts(network, tmp_path):
  torch = pytest.importorskip('torch')
  whole = {name: torch.from_numpy(value) for name, value in tensors().items()}
  vgg = {k: v for k, v in whole.items() if k.startswith('features')}
  torch.save(vgg | {'classifier.0.weight': torch.zeros(2, 2)}, tmp_path / 'vgg16.pth')
  heads = {k: v.numpy() for k, v in whole.items() if k.startswith('lin')}
  safetensors.numpy.save_file(heads, tmp_path / 'heads.safetensors')
  read = perceptual.load(f'{tmp_path}/vgg16.pth,{tmp_path}/heads.safetensors')
  assert read.tensors.keys() == network.tensors.keys()
  for name, value in network.tensors.items():
    np.testing.assert_array_equal(read.tensors[name], value)


def without(name):
  return {k: v for k, v in tensors().items() if k != name}


@pytest.mark.parametrize('held, said', [
    (without('features.28.bias'), 'no features.28.bias'),
    (without('lin3.model.1.weight'), 'no lin3.model.1.weight'),
    (tensors() | {'features.2.weight': np.zeros((64, 3, 3, 3), np.float32)},
     r'features.2.weight has shape \(64, 3, 3, 3\), not \(64, 64, 3, 3\)')])
def test_other_weights_are_named(tmp_path, held, said):
  safetensors.numpy.save_file(held, tmp_path / 'other.safetensors')
  with pytest.raises(UserError, match=said):
    perceptual.load(str(tmp_path / 'other.safetensors'))


@pytest.mark.parametrize('name', ['broken.safetensors', 'broken.pth'])
def test_what_is_no_weights_file_is_told_in_a_line(tmp_path, name):
  with pytest.raises(UserError, match='is no file'):
    perceptual.load(str(tmp_path / name))
  (tmp_path / name).write_bytes(b'not weights at all')
  with pytest.raises(UserError, match='not a (safetensors file|torch checkpoint)') as caught:
    perceptual.load(str(tmp_path / name))
  assert '\n' not in str(caught.value)


def test_none_is_no_network():
  assert perceptual.load('none') is None


# The network that ships

def test_the_bundled_network_is_small():
  assert perceptual.BUNDLED.stat().st_size < 150_000
  network = perceptual.load('bundled')
  maps = network.features(clip_image())
  assert [m.shape[1:] for m in maps] == [
      (258, 32, 16), (129, 16, 24), (65, 8, 32), (33, 4, 48)]
  assert [len(h) for h in network.heads] == [16, 24, 32, 48]


def test_a_mel_is_like_itself_and_unlike_others():
  network = perceptual.load('bundled')
  same = perceptual.distance(network, clip_image(), clip_image())
  other = perceptual.distance(network, clip_image(), clip_image(1))
  assert same == 0 and other > 0.02
  np.testing.assert_allclose(
      other, perceptual.distance(network, clip_image(1), clip_image()), rtol=1e-5)


@pytest.mark.parametrize('axis', [1, 2])
def test_the_more_a_mel_is_smoothed_the_further_it_is(axis):
  network = perceptual.load('bundled')
  image, distances = clip_image(), []
  for width in (1, 3, 5, 9):
    smooth = np.mean([np.roll(image, k - width // 2, axis) for k in range(width)], axis=0)
    distances.append(float(perceptual.distance(network, image, smooth)[0]))
  assert distances == sorted(distances) and distances[1] > 1e-3


def test_gradients_are_finite_where_there_is_silence():
  """A layer that says nothing has no direction: the unit length of nothing."""
  silence = np.zeros((1, 32, 64, 1), np.float32)
  for image in (silence, clip_image()[:, :32]):
    slope = jax.grad(lambda x, y=image: perceptual.distance(
        perceptual.load('bundled'), x, y).sum())(silence)
    assert np.isfinite(slope).all()
