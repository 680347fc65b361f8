"""Surfaces: the wall behind, light and gloss, the textures of materials."""

import numpy as np

GLOSS = {'metal': .7, 'glass': .85, 'water': .8, 'plastic': .45, 'stone': .15, 'wood': .15,
         'rubber': .15}


def wall(backdrop, x, y) -> np.ndarray:
  """Colours of the wall behind everything.

  Args:
    backdrop: a `bodies.Backdrop`.
    x, y: float32 (N, 1, W) and (N, H, 1) heights.

  Returns:
    float32 planes (3, N, H, W), 0..255.
  """
  # The lamp brightens one side.
  light = _waves(backdrop, x, y) + (1 + .1 * (backdrop.light[0] * x + backdrop.light[1] * y))
  top, bottom = (colour.astype(np.float32)[:, None, None, None]
                 for colour in (backdrop.top, backdrop.bottom))
  return light * (top + (bottom - top) * np.clip(y + .5, 0, 1))


def _waves(backdrop, x, y):
  """Texture of the wall, about 0: products of sines, at one multiplication a pixel."""
  wave, phase = backdrop.wave.astype(np.float32), backdrop.phase.astype(np.float32)
  if backdrop.pattern == 'waves':
    total = 0.
    for (kx, ky), start in zip(wave, phase, strict=True):
      a, b = kx * x + start, ky * y
      total = total + np.sin(a) * np.cos(b) + np.cos(a) * np.sin(b)
    return .6 * backdrop.contrast * total
  k = np.hypot(*wave[0])
  across = backdrop.contrast * np.tanh(3 * np.sin(k * x + phase[0]))
  if backdrop.pattern == 'stripes':
    return across
  return across * np.tanh(3 * np.sin(k * y + phase[1]))


def lambert(gx, gy, size: float, light):
  """Brightness about 1 of a body that faces the lamp on one side."""
  return 1 + np.clip(gx * (light[0] / size) + gy * (light[1] / size), -1, 1) * .2


def gloss(look: str, gx, gy, size: float, light):
  """Reflection of the lamp on a ball, 0..255; None where the material is matt."""
  if look not in GLOSS:
    return None
  away = (gx / size - .42 * light[0]) ** 2 + (gy / size - .42 * light[1]) ** 2
  return 255 * GLOSS[look] * np.clip(1 - away / .16, 0, 1) ** 2


def texture(body, lx, ly):
  """Relative brightness, about 0, of a body's material at local offsets lx, ly in heights."""
  match body.look:
    case 'wood':
      return .13 * np.sin(62 * ly + 1.5 * np.sin(9 * lx))
    case 'stone':
      return .1 * np.sin(43 * lx + 2 * np.sin(31 * ly)) * np.sin(47 * ly)
    case 'metal':
      return .14 * np.cos(9 * (lx + ly))
    case 'rubber' if body.is_disc:
      # A pale band that shows how it turns.
      return .7 * np.clip(1.5 - np.abs(ly) / .022, 0, 1)
    case 'water' if not body.is_disc:
      return .1 * np.sin(24 * lx) * np.cos(50 * ly)
  return 0.
