"""Materials: how each rings when struck, its colours and its names."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Material:
  """One material.

  Attributes:
    adjective: as in 'a wooden floor'.
    pitch: range of the lowest partial in Hz; each clip draws its own.
    ratios: frequencies of the partials over the lowest.
    decay: seconds in which the lowest partial falls by 60 dB; higher ones fall faster.
    hardness: 0 (soft, dull contact) .. 1 (hard, bright contact).
    noise: level of the burst at the contact, relative to the partials.
    glide: relative rise of pitch per second (bubbles of water sing upwards).
    heard: what a strike on it sounds like.
    colours: names of the colours it comes in as a fixture.
  """
  adjective: str
  pitch: tuple[float, float]
  ratios: tuple[float, ...]
  decay: float
  hardness: float
  noise: float
  heard: str
  colours: tuple[str, ...]
  glide: float = 0.0


# Ratios: free bars for wood and metal, a membrane for skin; the rest by ear.
MATERIALS = {
  'wood': Material('wooden', (300, 620), (1, 2.57, 4.12, 6.3), .16, .6, .7,
                   'dry knocks', ('brown', 'tan')),
  'metal': Material('metal', (620, 1250), (1, 1.47, 2.09, 2.76, 3.9, 5.4), .42, 1., .5,
                    'ringing clanks', ('steel grey', 'blue-grey')),
  'glass': Material('glass', (1500, 2500), (1, 2.32, 3.1), .28, .95, .4,
                    'bright clinks', ('pale blue', 'pale green')),
  'rubber': Material('rubber', (90, 170), (1, 1.9, 2.9), .13, .2, .9,
                     'soft thuds', ('dark grey', 'dark red')),
  'stone': Material('stone', (800, 1400), (1, 1.71, 2.43, 3.9), .09, .9, .9,
                    'hard clacks', ('grey', 'pale yellow')),
  'water': Material('water', (480, 1050), (1, 1.63, 2.9), .16, .45, .8,
                    'wet plops', ('sea-blue', 'sea-green'), glide=2.5),
  'skin': Material('drum', (90, 210), (1, 1.59, 2.14, 2.3, 2.65, 2.92), .34, .5, .8,
                   'drum beats', ('cream',)),
  'plastic': Material('plastic', (450, 900), (1, 1.83, 3.4), .1, .65, .7,
                      'light taps', ('cream', 'dark red')),
}

# Strong, nameable colours of what moves (RGB, 0..255) ...
VIVID = {
  'red': (220, 48, 44), 'orange': (242, 132, 30), 'yellow': (246, 208, 48),
  'green': (52, 168, 76), 'blue': (44, 96, 214), 'purple': (136, 68, 190),
  'pink': (240, 118, 168), 'white': (244, 244, 240), 'black': (34, 34, 42),
}
# ... and the quieter ones of what stands.
QUIET = {
  'brown': (126, 82, 48), 'tan': (190, 148, 98), 'steel grey': (150, 162, 178),
  'blue-grey': (92, 106, 126), 'pale blue': (186, 220, 230), 'pale green': (176, 222, 200),
  'dark grey': (66, 64, 70), 'dark red': (150, 74, 56), 'grey': (136, 134, 132),
  'pale yellow': (196, 180, 148), 'sea-blue': (58, 130, 200), 'sea-green': (44, 140, 150),
  'cream': (236, 224, 196),
}


def luminance(rgb) -> float:
  """Brightness 0..1 of an RGB colour (0..255), Rec. 709 weights."""
  return float(np.dot(rgb, (.2126, .7152, .0722)) / 255)


def is_dark(rgb) -> bool:
  """Tells whether a colour contrasts with a light wall (else with a dark one)."""
  return luminance(rgb) < .45


def vivid(rng, avoid: str = '', like=None) -> tuple[str, np.ndarray]:
  """Draws a strong colour: its name and its RGB with a little variation.

  Args:
    rng: numpy Generator.
    avoid: name of a colour that is taken.
    like: RGB of what moves before the same wall; None where no contrast to it is needed.
  """
  names = [name for name in VIVID if name != avoid
           and (like is None or is_dark(VIVID[name]) == is_dark(like))]
  name = names[rng.integers(len(names))]
  return name, np.clip(np.array(VIVID[name]) * rng.uniform(.92, 1.06, 3), 0, 255)


def quiet(rng, material: str) -> tuple[str, np.ndarray]:
  """Draws one of the colours in which a material comes as a fixture."""
  names = MATERIALS[material].colours
  name = names[rng.integers(len(names))]
  return name, np.clip(np.array(QUIET[name]) * rng.uniform(.88, 1.08), 0, 255)
