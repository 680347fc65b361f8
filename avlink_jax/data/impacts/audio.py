"""Audio of a scene: modal synthesis of its contacts in a quiet room."""

import numpy as np

from avlink_jax.data.impacts import materials

RING = .6        # seconds of a response
LOUD = 6.9       # e^-6.9 is -60 dB


def synthesise(scene, rng, duration: float, sample_rate: int) -> np.ndarray:
  """Synthesises a scene's contacts, and nothing else but faint room noise.

  Args:
    scene: a `scenes.Scene`.
    rng: numpy Generator.
    duration: seconds.
    sample_rate: Hz.

  Returns:
    float32 (round(duration * sample_rate),) in [-0.9, 0.9]; sample 0 sounds at 0 s.
  """
  samples = round(duration * sample_rate)
  length = round(RING * sample_rate)
  wave = np.zeros(samples + length, np.float32)
  room = rng.uniform(.15, .4), 10 ** (rng.uniform(-44, -32) / 20)
  responses = [response(rng, *pair, room, sample_rate) for pair in scene.pairs]
  for time, strength, pair in zip(scene.events, scene.strengths, scene.pair, strict=True):
    body, edge = responses[pair]
    start = round(time * sample_rate)
    # The edge grows with the square: a harder contact is louder and brighter.
    wave[start:start + length] += np.float32(strength) * (body + np.float32(strength) * edge)
  wave = wave[:samples]
  wave *= rng.uniform(.5, .9) * .98 / np.abs(wave).max()
  hiss = rng.standard_normal(samples, np.float32)
  hiss[1:] += np.float32(rng.uniform(0, .9)) * hiss[:-1]
  level = np.abs(wave).max() * 10 ** (rng.uniform(-72, -60) / 20)
  wave += np.float32(level) * hiss
  return np.clip(wave, -.9, .9)


def response(rng, mover: str, struck: str, room, sample_rate: int):
  """Impulse response of a contact between two materials.

  Args:
    rng: numpy Generator; draws pitch and the small differences from one object to the next.
    mover, struck: names of materials.
    room: seconds of reverberation, and its level relative to the contact.
    sample_rate: Hz.

  Returns:
    Two float32 (RING * sample_rate,): the body of the sound, and the edge that hard contacts add.
  """
  first, second = materials.MATERIALS[mover], materials.MATERIALS[struck]
  hardness = (first.hardness * second.hardness) ** .5
  # The softer of the two decides how long they touch, and so up to where partials are excited.
  limit = 250 * 2 ** (5 * min(first.hardness, second.hardness))
  time = np.arange(round(RING * sample_rate), dtype=np.float32) / np.float32(sample_rate)
  body, edge = np.zeros_like(time), np.zeros_like(time)
  for material, level in ((second, 1.), (first, .5)):
    pitch = rng.uniform(*material.pitch)
    for ratio in material.ratios:
      frequency = pitch * ratio * rng.uniform(.985, 1.015)
      if frequency > .45 * sample_rate:
        continue
      decay = material.decay * ratio ** -.5 * rng.uniform(.85, 1.15)
      partial = _partial(time, frequency, decay, material.glide)
      partial *= level * ratio ** -.5 / (1 + (frequency / limit) ** 2) * rng.uniform(.7, 1.2)
      # High partials belong to the edge.
      share = np.float32(np.clip(np.log2(frequency / 400) / 4, 0, 1))
      body[:len(partial)] += (1 - share) * partial
      edge[:len(partial)] += share * partial
  noise = rng.standard_normal(len(time), np.float32)
  burst = noise * np.exp(-time / np.float32(.003 + .006 * (1 - hardness)))
  level = .5 * (first.noise + second.noise)
  body += level * .5 * burst
  edge += level * hardness * burst
  reverberation, depth = room
  body += np.float32(depth) * np.roll(noise, 97) * np.exp(-LOUD / reverberation * time)
  return body, edge


def _partial(time, frequency, decay, glide):
  """Decaying sine that starts at 0, cut at -60 dB; `glide` is its relative rise a second."""
  time = time[:int(np.searchsorted(time, min(decay, time[-1])))]
  turns = np.float32(2 * np.pi * frequency) * (time + np.float32(.5 * glide) * time * time)
  return np.sin(turns) * np.exp(np.float32(-LOUD / decay) * time)
