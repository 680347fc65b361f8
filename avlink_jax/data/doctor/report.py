"""Report of the doctor: a table by severity, and a page with thumbnails and spectrograms."""

import base64
import collections
import html
import io

from PIL import Image

from avlink_jax.data.doctor.examine import (
  RATE,
  SEVERITIES,
  UNUSABLE,
  Examination,
  Finding,
  examine,
)
from avlink_jax.data.sturdy_pool import CRASHES
from avlink_jax.samples.spectrogram import spectrogram_of_size

SHOWN_SECONDS = 30.0  # of a spectrogram, at most
SPECTROGRAM = (800, 72)  # pixels, width and height


def row(examination, root) -> dict:
  """JSON-like row of a file: name, facts, findings, pictures as data addresses."""
  path = examination.path
  name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
  pictures = {}
  if examination.thumbnail is not None:
    pictures['thumbnail'] = _address(examination.thumbnail)
  if examination.wave is not None and len(examination.wave):
    wave = examination.wave[:round(SHOWN_SECONDS * RATE)]
    pictures['spectrogram'] = _address(spectrogram_of_size(wave, RATE, *SPECTROGRAM))
  return {'file': name, 'severity': examination.severity, 'facts': examination.facts,
          'findings': [vars(found) for found in examination.findings], 'pictures': pictures}


def examined(root, path) -> dict:
  """Row of a file under `root`."""
  return row(examine(path), root)


def crashed(root, path) -> dict:
  """Row of a file that ends the process that examines it."""
  found = Finding(UNUSABLE, 'unusable', CRASHES, 'is left out')
  return row(Examination(path, {}, [found]), root)


def _address(pixels):
  """Data address of an image uint8 (H, W, 3). It is small: a page may hold thousands."""
  Image.fromarray(pixels).save(file := io.BytesIO(), 'JPEG', quality=80)
  return f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}'


def by_severity(rows) -> list:
  """Rows, the worst first, and by name."""
  order = [*SEVERITIES, '']
  return sorted(rows, key=lambda row: (order.index(row['severity']), row['file']))


def table(rows) -> str:
  """Lines of text: a line a finding, the worst first, and counts of each kind at the end."""
  lines = [f'{found["severity"]:9} {row["file"]}: {found["what"]}'
           + (f' ({found["done"]})' if found['done'] else '')
           for row in by_severity(rows) for found in row['findings']]
  counts = collections.Counter(found['name'] for row in rows for found in row['findings'])
  good = sum(not row['severity'] for row in rows)
  lines.append(f'{len(rows)} files, {good} without a finding'
               + (': ' if counts else '')
               + ', '.join(f'{name} {count}' for name, count in counts.most_common()))
  return '\n'.join(lines)


def page(rows, folder) -> str:
  """HTML page of all files, the worst first; nothing in it is fetched, everything is escaped."""
  cards = []
  for each in by_severity(rows):
    facts = ', '.join(f'{name} {value}' for name, value in each['facts'].items())
    found = ''.join(
        f'<li class="{found["severity"]}">{html.escape(found["what"])}'
        f' <small>{html.escape(found["done"])}</small></li>' for found in each['findings'])
    pictures = ''.join(f'<img loading="lazy" alt="{name}" src="{each["pictures"][name]}">'
                       for name in ('thumbnail', 'spectrogram') if name in each['pictures'])
    cards.append(CARD.format(name=html.escape(each['file']), facts=html.escape(facts),
                             findings=found, pictures=pictures, severity=each['severity']))
  summary = html.escape(table(rows).splitlines()[-1])
  return PAGE.format(title=html.escape(str(folder)), summary=summary, cards='\n'.join(cards))


CARD = '''<article class="{severity}"><h2>{name}</h2><div class="pictures">{pictures}</div>
<ul>{findings}</ul><p>{facts}</p></article>'''

PAGE = '''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Doctor: {title}</title><style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0 auto; max-width: 1000px; padding: 24px 20px;
  font: 15px/1.45 system-ui, sans-serif; }}
h1 {{ font-size: 20px; overflow-wrap: anywhere; }} h2 {{ font-size: 15px; margin: 0 0 6px;
overflow-wrap: anywhere; }} small, p {{ color: gray; font-size: 13px; }}
article {{ border: 1px solid #8884; border-left: 6px solid #3a7; border-radius: 8px; margin: 12px 0;
padding: 12px 14px; content-visibility: auto; contain-intrinsic-size: auto 200px; }}
article.note {{ border-left-color: #58a; }} article.look {{ border-left-color: #d90; }}
article.unusable {{ border-left-color: #c33; }} ul {{ margin: 6px 0; padding-left: 20px; }}
li.unusable {{ color: #c33; }} li.look {{ color: #b70; }}
.pictures {{ display: flex; gap: 10px; }} .pictures img {{ height: 72px; border-radius: 4px; }}
.pictures img[alt=spectrogram] {{ flex: 1; min-width: 0; object-fit: fill; }}
</style></head><body><h1>{title}</h1><p>{summary}</p>{cards}</body></html>
'''
