"""Lines over an axis as SVG: points with their intervals and a legend.

Drawn by matplotlib, the extra [studies], which only the figures of a report need.
"""

import io
import typing

from avlink_jax.errors import UserError

SIZE = (8.1, 4.0)  # inches
COLOURS = ('#0b62a4', '#c8501e', '#2e7d32', '#7b3fa0', '#8a6d00', '#00838f', '#ad1457')
MARKED = 20  # points of a line at most: of a curve of hundreds marks would hide it


class Line(typing.NamedTuple):
  """points: [(x, y, low, high)], low and high None where there is no interval; dashed: what
  chance would give, in the colour of the line before it."""
  label: str
  points: list
  dashed: bool = False


def library():
  """matplotlib. Raises UserError where it is missing."""
  try:
    import matplotlib.figure
  except ImportError:
    raise UserError('the figures of a report need matplotlib: pip install matplotlib (the extra '
                    '[studies])') from None
  return matplotlib


def svg(lines, *, title, x_label, y_label):
  """An SVG document as text; lines without points are left out. Raises UserError."""
  matplotlib = library()
  # Words stay words, and the same figure is the same file.
  with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': title}):
    figure = matplotlib.figure.Figure(SIZE, layout='constrained')
    axes = figure.add_subplot(title=plain(title), xlabel=plain(x_label), ylabel=plain(y_label))
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
  return document.getvalue()[document.getvalue().index('<svg'):]  # as it stands in a page


def draw(axes, line, colour):
  """One line: its points, joined, and their intervals."""
  points = sorted(line.points)
  marked = not line.dashed and len(points) <= MARKED
  axes.plot([x for x, *_ in points], [y for _, y, *_ in points], label=plain(line.label),
            color=colour, linestyle='--' if line.dashed else '-', marker='o' if marked else '',
            markersize=4)
  known = [(x, low, high) for x, _, low, high in points if low is not None]
  if known:
    axes.vlines(*zip(*known, strict=True), color=colour, alpha=0.6)


def plain(text):
  """A text in which a dollar begins no formula."""
  return text.replace('$', r'\$')
