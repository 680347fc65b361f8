"""Parts of a scene: shapes with a path in closed form, the camera, the backdrop.

Lengths are in frame heights, the origin is the frame's centre, x points right and y
down; times are seconds, angles radians (clockwise, as y points down).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Pose(NamedTuple):
  """Pose of a body at N times: centre, angle, and a factor on its size (0: absent)."""
  x: np.ndarray
  y: np.ndarray
  angle: np.ndarray
  grow: np.ndarray


Path = Callable[[np.ndarray], Pose]  # (N,) seconds -> Pose of (N,) arrays


@dataclasses.dataclass(frozen=True)
class Body:
  """A rounded rectangle (with corner = half the side: a disc or a capsule) on a path.

  Attributes:
    half: half the width and half the height.
    corner: radius of the corners.
    colour: (3,) RGB, 0..255.
    look: name of a material, which gives the texture, or 'plain'.
    path: times -> Pose.
    role: 'mover' (makes the sounds), 'fixture', 'shadow' or 'distractor' (never a sound).
  """
  half: tuple[float, float]
  corner: float
  colour: np.ndarray
  look: str
  path: Path
  role: str = 'fixture'

  def __post_init__(self):
    # Plain floats, as NumPy's would turn the float32 of all pixels into float64.
    object.__setattr__(self, 'half', tuple(float(side) for side in self.half))
    object.__setattr__(self, 'corner', float(self.corner))

  @property
  def is_disc(self) -> bool:
    return self.half == (self.corner, self.corner)


@dataclasses.dataclass(frozen=True)
class Camera:
  """A hand-held camera that sways and zooms gently. Rows: x, y, log of zoom."""
  amplitude: np.ndarray
  frequency: np.ndarray
  phase: np.ndarray

  def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre x, y and zoom, each (N,), at `times` (N,) seconds."""
    turn = 2 * np.pi * self.frequency[:, None] * times + self.phase[:, None]
    x, y, zoom = self.amplitude[:, None] * np.sin(turn)
    return x, y, np.exp(zoom)


@dataclasses.dataclass(frozen=True)
class Backdrop:
  """The wall behind: a vertical blend of two colours under a texture, and the light.

  Attributes:
    top, bottom: (3,) RGB, 0..255.
    pattern: 'waves', 'checks' or 'stripes'.
    wave: (3, 2) wave numbers x, y in radians per height.
    phase: (3,) radians.
    contrast: amplitude of the texture, relative to the colour.
    light: unit vector (x, y) towards the lamp.
  """
  top: np.ndarray
  bottom: np.ndarray
  pattern: str
  wave: np.ndarray
  phase: np.ndarray
  contrast: float
  light: tuple[float, float]


def still(x: float, y: float, angle: float = 0.) -> Path:
  """Path of a body at rest."""
  def path(times):
    one = np.ones_like(times)
    return Pose(x * one, y * one, angle * one, one)
  return path


def moving(position: Callable) -> Path:
  """Path made of `position`, times -> (x, y) or (x, y, angle) or (x, y, angle, grow)."""
  def path(times):
    values = tuple(position(times)) + (0., 1.)[len(position(times)) - 2:]
    return Pose(*(np.broadcast_to(value, times.shape).astype(float) for value in values))
  return path


def disc(radius, colour, look, path, role='mover') -> Body:
  """A disc."""
  return Body((radius, radius), radius, colour, look, path, role)


def box(half_x, half_y, colour, look, path, role='fixture', corner=.015) -> Body:
  """A rectangle with slightly rounded corners."""
  return Body((half_x, half_y), corner, colour, look, path, role)


def rod(half_length, half_width, colour, look, path, role='fixture') -> Body:
  """A thin bar with round ends."""
  return Body((half_length, half_width), half_width, colour, look, path, role)


def mirrored(body: Body) -> Body:
  """The body as seen in a mirror at x = 0."""
  def path(times):
    x, y, angle, grow = body.path(times)
    return Pose(-x, y, -angle, grow)
  return dataclasses.replace(body, path=path)
