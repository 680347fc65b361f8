"""A stand-in for the models of the page: clicks, or frames, at once."""

import pathlib
import time

import numpy as np

from avlink_jax.api import Sample
from avlink_jax.errors import UserError

RATE, STEPS = 16000, 3


def sample(id, source, generated, seed=0, av_align=None):
  """A generated clip of two seconds with two clicks."""
  wave = np.zeros(2 * RATE, np.float32)
  for at in (8000, 20000):
    wave[at:at + 800] = np.linspace(0.7, 0, 800) * np.random.default_rng(seed).uniform(-1, 1, 800)
  frames = np.random.default_rng(seed).integers(0, 256, (12, 36, 64, 3), dtype=np.uint8)
  return Sample(id, wave, RATE, frames, 6.0, {}, seed, source, (generated,),
                av_align)


class StandIn:
  """Model that notes what it was asked for; the prompt 'fail' is one that it refuses."""

  def __init__(self, generated, pause=0.0):
    """pause: seconds that a step takes."""
    self.generated, self.pause, self.calls, self.steps = generated, pause, [], 0

  def __call__(self, *, prompt, negative_prompt, seed, takes, on_step, **media):
    self.calls.append(dict(prompt=prompt, negative_prompt=negative_prompt, seed=seed, takes=takes))
    source, = media.values()
    if prompt == 'fail':
      raise UserError(f'{source}: refused; see /home/me/weights/nano.safetensors')
    for step in range(STEPS):
      time.sleep(self.pause)
      on_step(step + 1, STEPS)
      self.steps += 1
    stem = pathlib.Path(source).stem
    return [sample(f'{stem}_{i + 1}', str(source), self.generated, seed + i, i / takes)
            for i in range(takes)] if takes > 1 else [
                sample(stem, str(source), self.generated, seed)]
