"""How a gallery of many clips opens in a browser.

    python -m tests.benchmarks.gallery [--clips=500] [--picture=PAGE.png]

Writes a samples folder of so many clips and their references (copies of a few), its gallery, and
opens that in Chromium without a window, from file://. Prints a line of JSON: seconds to write the
page, its size, seconds until it is loaded and until its first card is drawn, elements of the
document, files that were read by then, the browser's memory for scripts, and seconds that
filtering, sorting and a jump to the end take until the next picture is drawn.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time

from avlink_jax.data.impacts import Impacts
from avlink_jax.samples.folder import read_manifest, write_sample
from avlink_jax.samples.gallery import write_gallery
from tests import chromium

KINDS = 8  # different clips
DRAWN = 'new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))'


def write(folder, count):
  """Writes `count` samples with references; returns the path of the page, and the seconds it took.
  """
  world = Impacts('test')
  for side in (folder, folder / 'reference'):
    rows = []
    for i in range(min(KINDS, count)):
      clip = world.load(i)
      write_sample(side, f'clip-{i:04}', frames=clip.frames, fps=6, audio=clip.audio,
                   sample_rate=clip.sample_rate, generated=('audio',), record=dict(
                       task='v2a', prompt=clip.audio_caption, seed=0, events=clip.events))
    first = read_manifest(side)
    for i in range(count):
      row, name = dict(first[i % KINDS]), f'clip-{i:04}'
      files = {kind: f'{name}{pathlib.Path(file).suffix}' for kind, file in row['files'].items()}
      for kind, file in files.items():
        if not (side / file).exists():
          os.link(side / row['files'][kind], side / file)
      rows.append(row | {'id': name, 'files': files})
    (side / 'manifest.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  begun = time.monotonic()
  return write_gallery(folder, reference=folder / 'reference'), time.monotonic() - begun


def timed(page, expression):
  """Seconds from evaluating `expression` to the next picture."""
  return page.value(f'(async () => {{ const begun = performance.now(); {expression}; '
                    f'await {DRAWN}; return (performance.now() - begun) / 1000; }})()')


def opened(path, picture=None):
  """Figures of a page in Chromium: dict."""
  with tempfile.TemporaryDirectory() as profile, chromium.browser(profile) as page:
    page.size(1280, 900, False)
    page.open(path.resolve().as_uri())
    page.value(DRAWN)
    found = page.value('''(() => { const load = performance.getEntriesByType("navigation")[0];
      const drawn = performance.getEntriesByName("first-contentful-paint")[0];
      return {seconds_to_load: load.loadEventEnd / 1000, seconds_to_draw: drawn?.startTime / 1000,
              elements: document.querySelectorAll("*").length,
              files_read: performance.getEntriesByType("resource").length,
              script_mib: performance.memory.usedJSHeapSize / 2 ** 20}; })()''')
    if picture:
      page.picture(pathlib.Path(picture))
    found['seconds_to_filter'] = timed(
        page, 'const s = document.querySelector(".tools input"); s.value = "drum"; '
        's.dispatchEvent(new Event("input"))')
    found['seconds_to_sort'] = timed(
        page, 'const s = document.querySelector(".tools input"); s.value = ""; '
        's.dispatchEvent(new Event("input")); const o = document.querySelector(".tools select"); '
        'o.selectedIndex = 1; o.dispatchEvent(new Event("change"))')
    found['seconds_to_the_end'] = timed(page, 'scrollTo(0, document.body.scrollHeight)')
    return found


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--clips', type=int, default=500)
  parser.add_argument('--picture', help='screenshot to write')
  flags = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    path, seconds = write(pathlib.Path(folder, 'samples'), flags.clips)
    report = {'clips': flags.clips, 'seconds_to_write': seconds, 'kib': path.stat().st_size / 1024}
    report |= opened(path, flags.picture)
  print(json.dumps({name: round(value, 3) if isinstance(value, float) else value
                    for name, value in report.items()}))


if __name__ == '__main__':
  main()
