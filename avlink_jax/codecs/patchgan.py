"""Patch discriminators of the autoencoders (ref. 27, after VQGAN), of mels as images and of video.

Also here: hinge losses, and the adaptive weight that makes the adversarial gradient as large as the
reconstruction's at the decoder's last layer.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from avlink_jax.codecs.causal import CausalConv, LocalNorm

LEAK = 0.2
WIDEST = 8  # largest multiple of the first width, in deeper layers (pix2pix)


class _PatchGAN(nn.Module):
  width: int
  layers: int

  @nn.compact
  def __call__(self, image):
    x = image
    conv = lambda channels, stride, bias: nn.Conv(  # noqa: E731
        channels, (4, 4), strides=stride, padding=1, use_bias=bias,
        kernel_init=nn.initializers.normal(0.02))
    for layer in range(self.layers + 1):
      multiple = min(2**layer, WIDEST)
      x = conv(multiple * self.width, 2 if layer < self.layers else 1, layer == 0)(x)
      if layer:
        x = nn.GroupNorm(num_groups=multiple)(x)
      x = nn.leaky_relu(x, LEAK)
    return conv(1, 1, True)(x)


@dataclasses.dataclass(frozen=True)
class PatchGAN:
  """pix2pix's discriminator: `layers` 4×4 convolutions of stride 2, two of stride 1.

  With three layers each logit depends on 70 × 70 pixels. The original's BatchNorm is replaced by
  GroupNorm (groups of `width` channels): without running state the discriminator is a pure function
  of its parameters, and examples are independent, so chips need no communication, and real and
  generated batches cannot be distinguished by their means.
  """
  width: int = 64
  layers: int = 3

  @property
  def _module(self):
    return _PatchGAN(self.width, self.layers)

  def init(self, key):
    side = 2 ** (self.layers + 2)  # the last two convolutions lose two rows and columns
    return self._module.init(key, jnp.zeros((1, side, side, 1)))['params']

  def __call__(self, params, image):
    """Images (B, T, n_mels, 1) -> logits (B, T/2^layers − 2, n_mels/2^layers − 2, 1), positive for
    patches taken to be real. T and n_mels are at least 3·2^layers."""
    return self._module.apply({'params': params}, image)


class _PatchGAN3D(nn.Module):
  width: int
  layers: int
  planes: bool

  @nn.compact
  def __call__(self, video):
    x = video
    conv = lambda channels, strides: CausalConv(  # noqa: E731
        channels, strides=strides, planes=self.planes)
    for layer in range(self.layers + 1):
      time, space = 2 if layer < min(self.layers, 2) else 1, 2 if layer < self.layers else 1
      x = conv(min(2**layer, WIDEST) * self.width, (time, space, space))(x)
      if layer:
        x = LocalNorm()(x)
      x = nn.leaky_relu(x, LEAK)
    return conv(1, (1, 1, 1))(x)


@dataclasses.dataclass(frozen=True)
class PatchGAN3D:
  """PatchGAN for video, of 3 × 3 × 3 convolutions: `layers` with spatial stride 2, the first two of
  them also with temporal stride 2, and two without stride.

  The norm is local, so a patch's logit depends on that patch alone. planes: as in codecs/causal.py.
  """
  width: int = 64
  layers: int = 3
  planes: bool = False

  @property
  def _module(self):
    return _PatchGAN3D(self.width, self.layers, self.planes)

  def init(self, key):
    side = 2**self.layers
    return self._module.init(key, jnp.zeros((1, 4, side, side, 3)))['params']

  def __call__(self, params, video):
    """Video (B, T, H, W, 3) -> logits (B, ⌊T/4⌋, H/2^layers, W/2^layers, 1). T is at least 4, and
    2^layers divides H and W."""
    return self._module.apply({'params': params}, video)


def discriminator_hinge(real, fake):
  """Hinge loss ½·(E[max(0, 1 − D(x))] + E[max(0, 1 + D(x̂))]) of two sets of logits: scalar."""
  return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake)))


def generator_hinge(fake):
  """Hinge loss −E[D(x̂)] from the logits of generated examples: scalar."""
  return -jnp.mean(fake)


def adaptive_weight(reconstruction, adversarial):
  """λ = ‖∇L_rec‖ / (‖∇L_adv‖ + 1e-4), clipped to [0, 1e4] (VQGAN, Eq. 7): scalar.

  Args: gradients of both losses with respect to the decoder's last layer.
  """
  ratio = optax.global_norm(reconstruction) / (optax.global_norm(adversarial) + 1e-4)
  return jnp.clip(ratio, 0.0, 1e4)
