"""Perceptual distance of two images in a fixed network's features (LPIPS), for the autoencoders
(ref. 27).

A network is an object with

    features(image)   (B, T, n_mels, 1) -> list of maps (B, T_l, n_l, C_l)
    heads             non-negative weights of each map's channels: list of (C_l,)
    floor             added to a pixel's squared norm

An image is a log-mel scaled so that 0 is silence and 1 a magnitude of one; LPIPS's network also
takes video frames, (B, H, W, 3) in [0, 1]. Two networks exist: LPIPS's VGG16, if its weights are
available, and a small bundled one that this project trains on audio of `impacts`
(`training/mel_features.py`).
"""

import dataclasses
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.errors import UserError
from avlink_jax.storage import foreign, weights

BUNDLED = weights.BUNDLED / 'nano' / 'mel_features.safetensors'


def distance(network, image, other):
  """LPIPS distance Σ_l mean over pixels of heads_l · (f̂_l(image) − f̂_l(other))², f̂ of unit length.

  Args: two images (B, T, n_mels, 1). Returns (B,).
  Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, Eq. 1.
  """
  def unit(x):
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + network.floor)

  return sum(jnp.mean((unit(x) - unit(y)) ** 2 @ head, axis=(1, 2)) for x, y, head in zip(
      network.features(image), network.features(other), network.heads, strict=True))


class MelFeatures(nn.Module):
  """Network of this project: 3×3 convolutions of stride 2 with ReLU; returns all their maps."""
  widths: tuple[int, ...] = (16, 24, 32, 48)

  @nn.compact
  def __call__(self, image):
    maps = [image]
    for width in self.widths:
      maps.append(nn.relu(nn.Conv(width, (3, 3), strides=2)(maps[-1])))
    return maps[1:]


@dataclasses.dataclass(frozen=True, eq=False)
class Bundled:
  """MelFeatures with equal weights for layers and channels; distances lie between 0 and 2."""
  params: dict
  floor = 1e-2  # layers' norms are near 1; keeps near-silence from being amplified

  @property
  def heads(self):
    widths = MelFeatures.widths
    return [np.full(width, 1 / len(widths), np.float32) for width in widths]

  def features(self, image):
    return MelFeatures().apply({'params': self.params}, image)


# VGG16 up to its last ReLU: index of each convolution in torchvision's `features`, channels out.
VGG = ((0, 64), (2, 64), (5, 128), (7, 128), (10, 256), (12, 256), (14, 256),
       (17, 512), (19, 512), (21, 512), (24, 512), (26, 512), (28, 512))
TAPS = (2, 7, 14, 21, 28)  # the last convolution of each of its five stages
# LPIPS's shift and scale of RGB in [−1, 1].
SHIFT = np.array((-0.030, -0.088, -0.188), np.float32)
SCALE = np.array((0.458, 0.448, 0.450), np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class LPIPS:
  """VGG16 with LPIPS's linear heads; tensors have torch's names and shapes."""
  tensors: dict
  floor = 1e-20

  @property
  def heads(self):
    return [self.tensors[f'lin{k}.model.1.weight'].reshape(-1) for k in range(len(TAPS))]

  def features(self, image):
    """Maps of an image in [0, 1], which is scaled to [−1, 1]; grey ones fill three channels."""
    x, maps = (2 * image - 1 - SHIFT) / SCALE, []
    for index, _ in VGG:
      kernel = self.tensors[f'features.{index}.weight'].transpose(2, 3, 1, 0)
      x = jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME',
                                       dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
      x = jax.nn.relu(x + self.tensors[f'features.{index}.bias'])
      if index in TAPS:
        maps.append(x)
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
    return maps


def load(source):
  """Loads the network that `codec_loss.perceptual` names; None for 'none'.

  'bundled' is MelFeatures. Otherwise one or two paths, separated by a comma, of files that
  storage/foreign.py reads: torchvision's VGG16 `features.N.weight`, `.bias` and lpips's
  `linK.model.1.weight`. Raises UserError: a file is missing, unreadable or has other contents.
  """
  if source == 'none':
    return None
  if source == 'bundled':
    tree, _ = weights.read(BUNDLED)
    like = jax.eval_shape(MelFeatures().init, jax.random.key(0), jnp.zeros((1, 64, 64, 1)))
    return Bundled(weights.fit(tree, like, BUNDLED)['params'])
  tensors = {}
  for path in source.split(','):
    if not pathlib.Path(path).is_file():
      raise UserError(f"codec_loss.perceptual: {path!r} is no file: give 'bundled', 'none', or the "
                      'weights of VGG16 and of the LPIPS heads')
    tensors |= foreign.read(path)
  return LPIPS(_checked(tensors, source))


def _checked(tensors, source):
  """Tensors that LPIPS reads. Raises UserError: one is missing or of another shape."""
  shapes, inputs = {}, 3
  for index, channels in VGG:
    shapes[f'features.{index}.weight'] = (channels, inputs, 3, 3)
    shapes[f'features.{index}.bias'] = (channels,)
    inputs = channels
  shapes |= {f'lin{k}.model.1.weight': (1, dict(VGG)[tap], 1, 1) for k, tap in enumerate(TAPS)}
  for name, shape in shapes.items():
    if name not in tensors:
      raise UserError(f'{source}: no {name} in it: VGG16 (torchvision names) and the LPIPS heads '
                      '(linK.model.1.weight) are needed, in one file or in two (path,path)')
    if tensors[name].shape != shape:
      raise UserError(f'{source}: {name} has shape {tensors[name].shape}, not {shape}')
  return {name: np.asarray(tensors[name], np.float32) for name in shapes}
