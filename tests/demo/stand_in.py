"""A stand-in for the models of the page: clicks, or frames, at once."""

import pathlib

import numpy as np

from avlink_jax.api import Sample
from avlink_jax.errors import UserError

RATE = 16000


def sample(id, source, generated, seed=0):
  """A generated clip of two seconds with two clicks."""
  wave = np.zeros(2 * RATE, np.float32)
  for at in (8000, 20000):
    wave[at:at + 800] = np.linspace(0.7, 0, 800) * np.random.default_rng(seed).uniform(-1, 1, 800)
  frames = np.random.default_rng(seed).integers(0, 256, (12, 36, 64, 3), dtype=np.uint8)
  return Sample(id, wave, RATE, frames, 6.0, {}, seed, source, (generated,))


class StandIn:
  """Model that notes what it was asked for; the prompt 'fail' is one that it refuses."""

  def __init__(self, generated):
    self.generated, self.calls = generated, []

  def __call__(self, *, prompt, negative_prompt, seed, takes, progress, **media):
    self.calls.append(dict(prompt=prompt, negative_prompt=negative_prompt, seed=seed, takes=takes))
    source, = media.values()
    if prompt == 'fail':
      raise UserError(f'{source}: refused; see /home/me/weights/nano.safetensors')
    if progress:
      progress(1, 1)
    stem = pathlib.Path(source).stem
    return [sample(f'{stem}_{i + 1}' if takes > 1 else stem, str(source), self.generated, seed + i)
            for i in range(takes)]
