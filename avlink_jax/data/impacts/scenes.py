"""Draws a complete scene: an act, distractors, the light, the camera, the captions.

A scene is a function of (rng, duration) only. Resolution and frame rate are chosen when it is
rendered (`render.py`), the sample rate when it is synthesised (`audio.py`).
"""

import dataclasses
import math

import numpy as np

from avlink_jax.data.impacts import bodies, captions, kinds, materials

FAINTEST = .3  # of the hardest contact's strength


@dataclasses.dataclass(frozen=True)
class Scene:
  """Content of one clip, for video and audio.

  Attributes:
    kind: a name in `kinds.KINDS`.
    bodies: in the order in which they are painted.
    backdrop, camera: see `bodies`.
    events: float64 (E,) seconds of the contacts, increasing.
    strengths: (E,) loudness of each contact, in (0, 1], the hardest is 1.
    pairs, pair: which materials may meet here, and which do in each contact.
    audio_caption, video_caption: ASCII, at most 90 bytes.
  """
  kind: str
  bodies: tuple
  backdrop: bodies.Backdrop
  camera: bodies.Camera
  events: np.ndarray
  strengths: np.ndarray
  pairs: tuple
  pair: np.ndarray
  audio_caption: str
  video_caption: str


def draw(rng, duration: float) -> Scene:
  """Draws a scene of a random kind.

  Args:
    rng: numpy Generator, the only source of randomness.
    duration: seconds, at least 2.

  Returns:
    A Scene with at least two contacts.
  """
  names = sorted(kinds.KINDS)
  kind = names[rng.integers(len(names))]
  act = kinds.KINDS[kind](rng, duration)
  others, about = distractors(rng, duration, act.words['colour'])
  parts = [*others, *act.bodies]
  if rng.random() < .5:
    parts = [bodies.mirrored(body) for body in parts]
  # Loudness grows slower than speed, so that the gentlest contact is still heard.
  strengths = np.maximum((act.speeds / act.speeds.max()) ** .8, FAINTEST)
  audio, video = captions.write(rng, kind, act.words, about)
  return Scene(kind, tuple(parts), draw_backdrop(rng, act.colour), draw_camera(rng), act.times,
               strengths, tuple(act.pairs), act.pair, audio, video)


def distractors(rng, duration: float, avoid: str) -> tuple[list, str]:
  """Draws up to two bodies that move beside the scene, touch nothing and make no sound.

  Returns:
    The bodies, and a phrase about the first one ('' where there is none).
  """
  count = rng.choice(3, p=(.4, .4, .2))
  others, about = [], ''
  for side in rng.permutation((-1, 1))[:count]:
    name, colour = materials.vivid(rng, avoid=avoid)
    size = rng.uniform(.04, .065)
    shape, corner = (('square', .01), ('disc', size))[rng.integers(2)]
    verb, path = _drift(rng, duration, side * rng.uniform(.73, .77))
    # Paler than what acts, as if further away.
    others.append(bodies.Body((size, size), corner, .6 * colour + 60, 'plain', path, 'distractor'))
    about = about or f'a {name} {shape} {verb}'
  return others, about


def _drift(rng, duration, x):
  """Draws a slow path beside the scene: its verb, and the path."""
  rate, phase, turn = rng.uniform(.12, .3), rng.uniform(0, 2 * np.pi), rng.uniform(-.8, .8)
  # It keeps above every floor (y >= 0.24).
  y, sway = rng.uniform(-.24, 0.), rng.uniform(.06, .14)
  if rng.random() < .5:
    return 'hovers', bodies.moving(lambda t: (
      x + .01 * np.sin(2.3 * rate * t), y + sway * np.sin(2 * np.pi * rate * t + phase), turn * t))
  slope = rng.choice((-1, 1)) * rng.uniform(.35, .5) / duration
  return 'drifts by', bodies.moving(lambda t: (
    x + 0 * t, -.12 + slope * (t - duration / 2), turn * t))


def draw_camera(rng) -> bodies.Camera:
  """Draws a camera that sways by up to 3 % of the height and zooms by up to 3 %."""
  return bodies.Camera(rng.uniform(0, (.03, .02, .03)), rng.uniform(.06, .2, 3),
                       rng.uniform(0, 2 * np.pi, 3))


def draw_backdrop(rng, colour) -> bodies.Backdrop:
  """Draws a muted wall, light behind a dark `colour` and dark behind a light one."""
  light = materials.is_dark(colour)
  level, richness = (rng.uniform(168, 222), .18) if light else (rng.uniform(46, 84), .36)
  hue = rng.uniform(0, 2 * np.pi) + np.array((0., 2.1, 4.2))
  level = level * (1 + richness * rng.uniform(.3, 1) * np.cos(hue))
  angle = rng.uniform(-2.4, -.75)
  waves = rng.uniform(12, 30, 3)[:, None] * _directions(rng.uniform(0, np.pi, 3))
  pattern = ('waves', 'checks', 'stripes')[rng.integers(3)]
  return bodies.Backdrop(np.clip(level * rng.uniform(.92, 1.12), 0, 245),
                         np.clip(level * rng.uniform(.76, .95), 0, 245), pattern, waves,
                         rng.uniform(0, 2 * np.pi, 3), float(rng.uniform(.03, .07)),
                         (math.cos(angle), math.sin(angle)))


def _directions(angles):
  """Unit vectors (..., 2)."""
  return np.stack([np.cos(angles), np.sin(angles)], -1)
