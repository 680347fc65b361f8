"""Documents of headings, paragraphs, tables and figures, as Markdown and as one HTML page."""

import html
import typing


class Heading(typing.NamedTuple):
  text: str
  level: int = 2


class Text(typing.NamedTuple):
  text: str


class Table(typing.NamedTuple):
  """Table; a row of one cell spans all columns."""
  header: list
  rows: list


class Figure(typing.NamedTuple):
  """Figure; path: of the SVG file, relative to the document; alt: its description."""
  path: str
  svg: str
  alt: str


def markdown(blocks):
  """Renders blocks as Markdown; cells are plain text."""
  return '\n\n'.join(map(_markdown, blocks)) + '\n'


def _markdown(block):
  if isinstance(block, Heading):
    return f'{"#" * block.level} {block.text}'
  if isinstance(block, Text):
    return block.text
  if isinstance(block, Figure):
    return f'![{block.alt}]({block.path})'
  width = len(block.header)
  lines = [block.header, ['---'] * width] + [
      [f'**{row[0]}**'] + [''] * (width - 1) if len(row) == 1 else row for row in block.rows]
  return '\n'.join(f'| {" | ".join(cell.replace("|", "∣") for cell in row)} |' for row in lines)


def page(blocks, title):
  """Renders blocks as an HTML page that needs no network."""
  return PAGE.format(title=html.escape(title), style=STYLE, body='\n'.join(map(_html, blocks)))


def _html(block):
  if isinstance(block, Heading):
    return f'<h{block.level}>{html.escape(block.text)}</h{block.level}>'
  if isinstance(block, Text):
    return f'<p>{html.escape(block.text)}</p>'
  if isinstance(block, Figure):
    return f'<figure role="img" aria-label="{html.escape(block.alt)}">{block.svg}</figure>'
  head = ''.join(f'<th>{html.escape(cell)}</th>' for cell in block.header)
  rows = ''.join(
      f'<tr><th colspan="{len(block.header)}" class="part">{html.escape(row[0])}</th></tr>'
      if len(row) == 1 else
      f'<tr>{"".join(f"<td>{html.escape(cell)}</td>" for cell in row)}</tr>'
      for row in block.rows)
  return f'<div class="table"><table><tr>{head}</tr>{rows}</table></div>'


STYLE = '''
body { font: 15px/1.45 sans-serif; margin: 1.5rem auto; max-width: 72rem; padding: 0 1rem;
  color: #222; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: left;
  white-space: nowrap; }
.part { background: #f3f3f3; }
figure { margin: 1rem 0; }
svg { max-width: 100%; height: auto; }
'''
PAGE = '''<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body>
{body}
</body></html>
'''
