"""Line plots as SVG: points with intervals, and a legend.

They need matplotlib, the extra [studies].
"""

import io
import typing

from avlink_jax.errors import UserError

SIZE = (8.1, 4.0)  # inches
COLOURS = ('#0b62a4', '#c8501e', '#2e7d32', '#7b3fa0', '#8a6d00', '#00838f', '#ad1457')
MARKED = 20  # most points of a line that get marks


class Line(typing.NamedTuple):
  """Line of a plot.

  points: [(x, y, low, high)], low and high None without an interval. dashed: a chance level, in the
  colour of the line before it."""
  label: str
  points: list
  dashed: bool = False


def library():
  """Imports matplotlib. Raises UserError: it is missing."""
  try:
    import matplotlib.figure
  except ImportError:
    raise UserError('the figures of a report need matplotlib: pip install matplotlib (the extra '
                    '[studies])') from None
  return matplotlib


def svg(lines, *, title, x_label, y_label, x_scale='linear'):
  """Draws an SVG document, as text; lines without points are omitted. Raises UserError.

  x_scale: 'linear' or 'log'."""
  matplotlib = library()
  # Text as text, and reproducible files.
  with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': title}):
    figure = matplotlib.figure.Figure(SIZE, layout='constrained')
    axes = figure.add_subplot(title=plain(title), xlabel=plain(x_label), ylabel=plain(y_label),
                              xscale=x_scale)
    axes.grid(color='#eee')
    lines, colour, solid = [line for line in lines if line.points], '', 0
    for line in lines:
      if not line.dashed:
        colour, solid = COLOURS[solid % len(COLOURS)], solid + 1
      draw(axes, line, colour)
    if lines:
      axes.legend(loc='upper left', bbox_to_anchor=(1, 1), frameon=False)
    document = io.StringIO()
    figure.savefig(document, format='svg', metadata={'Date': None, 'Creator': None})
  return document.getvalue()[document.getvalue().index('<svg'):]  # without the XML header, for HTML


def draw(axes, line, colour):
  """Draws one line with its intervals."""
  points = sorted(line.points)
  marked = not line.dashed and len(points) <= MARKED
  axes.plot([x for x, *_ in points], [y for _, y, *_ in points], label=plain(line.label),
            color=colour, linestyle='--' if line.dashed else '-', marker='o' if marked else '',
            markersize=4)
  intervals = [(x, low, high) for x, _, low, high in points if low is not None]
  if intervals:
    axes.vlines(*zip(*intervals, strict=True), color=colour, alpha=0.6)


def plain(text):
  """Escapes dollars, which would start a formula."""
  return text.replace('$', r'\$')
