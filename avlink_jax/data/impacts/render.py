"""Renders a scene as frames of any size at any times, anti-aliased from exact distances.

Colours are planes (3, N, H, W) of float32, 0..255, until the frames are done: a
factor for all three colours is then one broadcast.
"""

import numpy as np

from avlink_jax.data.impacts import surfaces

CHUNK = 1 << 20  # pixels rendered at once, so that large frames need little memory
RIM = .022       # heights: width of the darker rim that sets a body off from what is behind
SHADOW = .35     # opacity of a shadow


def render(scene, times: np.ndarray, height: int, width: int, window=None) -> np.ndarray:
  """Renders a scene at the given times.

  Args:
    scene: a `scenes.Scene`.
    times: (N,) seconds.
    height, width: pixels. The frame height is the unit of length, so that a wider frame
      shows more at its sides and nothing else changes.
    window: (top, left, height, width) of the part that is painted, to the bit what it is in the
      whole picture; by default all of it.

  Returns:
    uint8 (N, height, width, 3) RGB, of the window's height and width.
  """
  times, window = np.asarray(times, float), window or (0, 0, height, width)
  frames = np.empty((len(times), *window[2:], 3), np.uint8)
  step = max(1, CHUNK // (window[2] * window[3]))
  for start in range(0, len(times), step):
    part = slice(start, start + step)
    planes = _paint(scene, times[part], height, width, window)
    for channel, plane in enumerate(planes):
      frames[part, ..., channel] = plane
  return frames


def _paint(scene, times, height, width, window):
  """Planes float32 (3, N, h, w) of the window at (N,) seconds, clipped and rounded to 0..255."""
  top, left, high, wide = window
  x, y, zoom = scene.camera.at(times)
  scale = zoom * height
  origin = width / 2 - x * scale, height / 2 - y * scale  # where the scene's middle lies, in pixels
  columns = _offsets(np.arange(left, left + wide), origin[0], scale)
  rows = _offsets(np.arange(top, top + high), origin[1], scale)
  planes = surfaces.wall(scene.backdrop, columns[:, None, :], rows[:, :, None])
  for body in scene.bodies:
    pose = body.path(times)
    px, py = (pose.x - x) * scale + width / 2, (pose.y - y) * scale + height / 2
    _paint_body(planes, body, pose, (px, py, scale), (top, left), scene.backdrop.light)
  planes += .5
  return np.clip(planes, 0, 255, out=planes)


def _offsets(pixels, centre, scale):
  """Offsets of the middles of pixels (..., P) from centre (N,) pixels: float32 (N, P) heights."""
  return ((pixels + .5 - centre[:, None]) / scale[:, None]).astype(np.float32)


def _paint_body(planes, body, pose, place, corner, light):
  """Blends one body into planes (3, N, H, W) in place, within windows that just contain it.

  `place` are its middle's pixels px, py and the pixels a height, each (N,); `corner` is the pixel
  (row, column) at which the planes begin.
  """
  _, number, height, width = planes.shape
  (px, py, scale), (top, left) = place, corner
  cos, sin = np.cos(pose.angle), np.sin(pose.angle)
  (a, b), reach = body.half, pose.grow * scale
  columns = _window(px, reach * (a * np.abs(cos) + b * np.abs(sin)) + 1, left, width)
  rows = _window(py, reach * (a * np.abs(sin) + b * np.abs(cos)) + 1, top, height)
  if columns is None or rows is None:
    return
  gx, gy = _offsets(columns, px, scale)[:, None, :], _offsets(rows, py, scale)[:, :, None]
  turn = (cos, sin) if pose.angle.any() else None
  cover, value = shade(body, gx, gy, turn, pose.grow, scale, light)
  columns, rows = columns - left, rows - top
  if len(columns) == len(rows) == 1:
    behind = planes[:, :, rows[0, 0]:rows[0, -1] + 1, columns[0, 0]:columns[0, -1] + 1]
    behind += cover * (value - behind)
  else:
    first = np.arange(number)[:, None] * height
    index = (first + rows)[:, :, None] * width + columns[:, None, :]
    flat = planes.reshape(3, -1)
    behind = flat.take(index, axis=1)
    behind += cover * (value - behind)
    flat[:, index] = behind


def _window(centre, half, begin, size):
  """Pixels within [begin, begin + size) that hold centre +- half, both (N,) pixels.

  Returns:
    (1, P) where one window serves all frames (a body at rest moves with the camera only), else
    (N, P) windows of one length; None where the body is outside.
  """
  end = begin + size
  first, last = np.floor(centre - half), np.ceil(centre + half)
  visible = (last > begin) & (first < end) & (half > 1)
  if not visible.any():
    return None
  first, last = np.maximum(first[visible], begin), np.minimum(last[visible], end)
  length, whole = int((last - first).max()), (int(first.min()), int(last.max()))
  if whole[1] - whole[0] <= length + 4:
    return np.arange(*whole)[None]
  start = np.full(len(visible), begin)
  start[visible] = np.minimum(first, end - length)
  return start[:, None] + np.arange(length)


def shade(body, gx, gy, turn, grow, scale, light):
  """Coverage of each pixel by a body, and its colour there.

  Args:
    body: a `bodies.Body`.
    gx, gy: (N, 1, w) and (N, h, 1) offsets from its centre in heights.
    turn: cosine and sine (N,) of its angle; None where it is upright throughout.
    grow: (N,) factor on its size.
    scale: (N,) pixels a height.
    light: unit vector (x, y) towards the lamp.

  Returns:
    float32 (N, h, w) in [0, 1], and planes (3, N, h, w) (or what broadcasts to them).
  """
  lx, ly = gx, gy
  if turn:
    cos, sin = (_column(value) for value in turn)
    lx, ly = cos * gx + sin * gy, cos * gy - sin * gx
  grow, scale = _column(grow), _column(scale)
  depth = _depth(body, lx, ly, grow)
  # What is thinner than a pixel stays faint.
  thin = np.minimum(1, 2 * min(body.half) * grow * scale)
  cover = np.clip(depth * scale + np.float32(.5), 0, 1) * thin
  colour = body.colour.astype(np.float32)[:, None, None, None]
  if body.role == 'shadow':
    return cover * np.float32(SHADOW), colour
  size = max(min(body.half), .04)
  lit = surfaces.lambert(gx, gy, size, light) * (1 + surfaces.texture(body, lx, ly))
  lit *= .66 + np.clip(depth * np.float32(.34 / RIM), 0, .34)
  value = lit * colour
  if body.is_disc:
    gloss = surfaces.gloss(body.look, gx, gy, size, light)
    if gloss is not None:
      value += gloss
  return cover, value


def _column(value):
  """Reshapes (N,) to float32 (N, 1, 1)."""
  return value.astype(np.float32)[:, None, None]


def _depth(body, lx, ly, grow):
  """Distance (N, h, w) in heights to the body's edge, positive inside."""
  if body.is_disc:
    return body.corner * grow - np.sqrt(lx * lx + ly * ly)
  qx = np.abs(lx) - (body.half[0] - body.corner) * grow
  qy = np.abs(ly) - (body.half[1] - body.corner) * grow
  inner = np.maximum(qx, qy)
  if not body.corner:
    return -inner
  outer = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2)
  return body.corner * grow - outer - np.minimum(inner, 0)
