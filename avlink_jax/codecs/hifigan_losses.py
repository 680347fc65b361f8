"""Discriminators and losses of HiFi-GAN (Kong et al. 2020, sections 2.3 and 2.4).

Multi-period discriminators get every p-th sample, multi-scale ones the average-pooled wave. The
losses are least-squares adversarial ones and feature matching. Kernels have no weight or spectral
normalisation, unlike the original's (`hifigan.py` says why).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from avlink_jax.model.frames import masked_mean

# (width, kernel, stride, groups) of each layer.
PAPER_SCALE_LAYERS = ((128, 15, 1, 1), (128, 41, 2, 4), (256, 41, 2, 16), (512, 41, 4, 16),
                      (1024, 41, 4, 16), (1024, 41, 1, 16), (1024, 5, 1, 1))


class Critic(nn.Module):
  """Stack of strided convolutions: (B, T, 1) -> each layer's output [(B, t, C), …], the last one
  being the logits (B, t, 1)."""
  layers: tuple[tuple[int, int, int, int], ...]

  @nn.compact
  def __call__(self, x):
    features = []
    for i, (width, kernel, stride, groups) in enumerate(self.layers):
      x = nn.Conv(width, (kernel,), (stride,), ((kernel // 2, kernel // 2),),
                  feature_group_count=groups, name=f'convs_{i}')(x)
      x = nn.leaky_relu(x, 0.1)
      features.append(x)
    return [*features, nn.Conv(1, (3,), padding=((1, 1),), name='conv_post')(x)]


def by_period(wave, period):
  """Takes every period-th sample: (B, S) -> (B·period, ⌈S/period⌉, 1), padded by reflection.

  The original's 2-D kernels are one sample wide across the period, so each offset is an example
  of its own."""
  wave = jnp.pad(wave, ((0, 0), (0, -wave.shape[1] % period)), mode='reflect')
  return wave.reshape(len(wave), -1, period).swapaxes(1, 2).reshape(len(wave) * period, -1, 1)


@dataclasses.dataclass(frozen=True)
class Discriminators:
  """Sizes of all discriminators and their pure functions; the defaults are the paper's.

  periods: those of the multi-period ones. period_widths: channels of their layers, with kernel 5
  and, except the last, stride 3. scales: number of multi-scale ones, each at half the sample rate
  of the previous. scale_layers: (width, kernel, stride, groups) of their layers.
  """
  periods: tuple[int, ...] = (2, 3, 5, 7, 11)
  period_widths: tuple[int, ...] = (32, 128, 512, 1024, 1024)
  scales: int = 3
  scale_layers: tuple[tuple[int, int, int, int], ...] = PAPER_SCALE_LAYERS

  def _views(self, wave):
    """Modules and inputs of the discriminators: {name: (critic, (B', T, 1))}."""
    last = len(self.period_widths) - 1
    layers = tuple((width, 5, 1 if i == last else 3, 1)
                   for i, width in enumerate(self.period_widths))
    views = {f'period_{p}': (Critic(layers), by_period(wave, p)) for p in self.periods}
    x = wave[..., None]
    for i in range(self.scales):
      x = nn.avg_pool(x, (4,), (2,), ((2, 2),)) if i else x
      views[f'scale_{i}'] = (Critic(self.scale_layers), x)
    return views

  def init(self, key):
    """Parameters {'period_P': …, 'scale_I': …}."""
    views = self._views(jnp.zeros((1, 1024)))
    keys = jax.random.split(key, len(views))
    return {name: critic.init(k, x)['params']
            for k, (name, (critic, x)) in zip(keys, views.items(), strict=True)}

  def apply(self, params, wave):
    """Wave (B, S) -> {name: [features of each layer, …, logits]}."""
    return {name: critic.apply({'params': params[name]}, x)
            for name, (critic, x) in self._views(wave).items()}


def discriminator_loss(real, fake):
  """Σ E[(D(x) − 1)²] + E[D(G(s))²] over discriminators (Eq. 1); args: results of `apply`."""
  return sum(jnp.mean((real[name][-1] - 1)**2) + jnp.mean(fake[name][-1]**2) for name in real)


def adversarial_loss(fake):
  """Σ E[(D(G(s)) − 1)²] over discriminators (Eq. 2)."""
  return sum(jnp.mean((features[-1] - 1)**2) for features in fake.values())


def feature_loss(real, fake):
  """Σ E|Dⁱ(x) − Dⁱ(G(s))| over discriminators and layers i (Eq. 4), including the logits as in the
  original code; real features get no gradient."""
  return sum(jnp.mean(jnp.abs(jax.lax.stop_gradient(r) - f))
             for name in real for r, f in zip(real[name], fake[name], strict=True))


def mel_loss(real, fake, mask):
  """E|φ(x) − φ(G(s))| (Eq. 3) over log-mels (B, T, n_mels) where mask (B, T) is True."""
  return masked_mean(jnp.abs(real - fake), mask)
