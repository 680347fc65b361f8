"""Lines over an axis as SVG: points with their intervals, ticks at round numbers, a legend."""

import html
import math
import typing

WIDTH, HEIGHT = 780, 380  # pixels
LEFT, RIGHT, TOP, BOTTOM = 64, 176, 40, 52  # margins; the legend stands in the right one
COLOURS = ('#0b62a4', '#c8501e', '#2e7d32', '#7b3fa0', '#8a6d00', '#00838f', '#ad1457')


class Line(typing.NamedTuple):
  """points: [(x, y, low, high)], low and high None where there is no interval; dashed: what
  chance would give, in the colour of the line before it."""
  label: str
  points: list
  dashed: bool = False


def ticks(low, high, about=6):
  """Round numbers within [low, high], about so many."""
  span = max(high - low, 1e-12)
  unit = 10.0 ** math.floor(math.log10(span / about))
  step = unit * next(k for k in (1, 2, 5, 10) if span / (unit * k) <= about)
  return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def svg(lines, *, title, x_label, y_label):
  """An SVG document as text; lines without points are left out."""
  lines = [line for line in lines if line.points]
  xs = [point[0] for line in lines for point in line.points] or [0.0, 1.0]
  ys = [y for line in lines for point in line.points for y in point[1:] if y is not None]
  ys = ys or [0.0, 1.0]
  (left, right), (bottom, top) = (_padded(min(v), max(v)) for v in (xs, ys))
  x_of = lambda x: LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)  # noqa: E731
  y_of = lambda y: HEIGHT - BOTTOM - (y - bottom) / (top - bottom) * (  # noqa: E731
      HEIGHT - TOP - BOTTOM)
  parts = [_text((LEFT + WIDTH - RIGHT) / 2, 20, title, 'middle', 15), *_axes(
      ticks(left, right), ticks(bottom, top), x_of, y_of),
           _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_label, 'middle'),
           f'<g transform="rotate(-90 16 {HEIGHT / 2})">'
           f'{_text(16, HEIGHT / 2, y_label, "middle")}</g>']
  colour, solid = '', 0
  for i, line in enumerate(lines):
    if not line.dashed:
      colour, solid = COLOURS[solid % len(COLOURS)], solid + 1
    parts += _drawn(line, colour, x_of, y_of)
    at = TOP + 16 * i + 8
    dash = ' stroke-dasharray="5 4"' if line.dashed else ''
    x = WIDTH - RIGHT + 12
    parts.append(f'<path d="M{x} {at}h22" stroke="{colour}" stroke-width="2"{dash}/>')
    parts.append(_text(x + 28, at + 4, line.label, 'start'))
  return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
          f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" role="img" '
          f'aria-label="{html.escape(title)}"><rect width="100%" height="100%" fill="white"/>'
          f'{"".join(parts)}</svg>\n')


def _padded(low, high):
  pad = 0.05 * (high - low) or 0.5
  return low - pad, high + pad


def _text(x, y, text, anchor, size=12):
  return (f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="#222">'
          f'{html.escape(text)}</text>')


def _axes(x_ticks, y_ticks, x_of, y_of):
  low, high = HEIGHT - BOTTOM, TOP
  for x in x_ticks:
    yield f'<path d="M{x_of(x):.1f} {high}V{low}" stroke="#eee"/>'
    yield _text(round(x_of(x), 1), low + 18, f'{x:.6g}', 'middle')
  for y in y_ticks:
    yield f'<path d="M{LEFT} {y_of(y):.1f}H{WIDTH - RIGHT}" stroke="#eee"/>'
    yield _text(LEFT - 8, round(y_of(y), 1) + 4, f'{y:.6g}', 'end')
  yield f'<path d="M{LEFT} {high}V{low}H{WIDTH - RIGHT}" fill="none" stroke="#555"/>'


def _drawn(line, colour, x_of, y_of):
  points = sorted(line.points)
  way = 'L'.join(f'{x_of(x):.1f} {y_of(y):.1f}' for x, y, *_ in points)
  dash = ' stroke-dasharray="5 4"' if line.dashed else ''
  yield f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
  for x, y, low, high in points:
    if low is not None:
      yield (f'<path d="M{x_of(x):.1f} {y_of(low):.1f}V{y_of(high):.1f}" stroke="{colour}" '
             'stroke-width="1.5" opacity="0.6"/>')
    if not line.dashed and len(points) <= 20:  # of a curve of hundreds they would hide it
      yield f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" fill="{colour}"/>'
