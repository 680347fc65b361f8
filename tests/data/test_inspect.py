"""The page about a source: examples as the model sees them, counts and plots, safely told."""

import json
import re

import numpy as np
import pytest
from made_clips import needs_clips

from avlink_jax.data import inspect
from avlink_jax.data.media import mux


@pytest.fixture
def clips(tmp_path):
  folder = tmp_path / 'clips' / 'train'
  for i in range(3):
    mux.write_mp4(folder / f'c{i}.mp4', frames=np.full((18 + 6 * i, 36, 64, 3), 80 * i, np.uint8),
                  fps=6, audio=np.sin(np.arange(16000 * (3 + i)) * 0.05), sample_rate=16000)
  (folder / 'bad.mp4').write_bytes(b'nothing')
  (folder / 'captions.csv').write_text('file,caption\nc0.mp4,<script>alert(1)</script> & rain\n')
  (tmp_path / 'c.csv').write_text('file,caption\n')
  return folder.parent


def test_the_page_shows_examples_counts_and_plots(clips, tmp_path, capsys):
  assert inspect.main([str(clips), f'--output={tmp_path / "out"}', '--count=2']) == 0
  page = (tmp_path / 'out' / 'index.html').read_text()
  rows = list(map(json.loads, (tmp_path / 'out' / 'manifest.jsonl').read_text().splitlines()))
  assert len(rows) == 2 and all((tmp_path / 'out' / name).stat().st_size
                                for row in rows for name in row['files'].values())
  told = dict(re.findall(r'<tr><th>([^<]*)</th><td>([^<]*)</td>', page))
  assert told['clips in this split'] == '4' and told['unusable'] == '1'
  assert told['with a picture'] == told['with sound'] == '3'
  assert told['unusable: not a media file'] == '1'
  assert page.count('<svg') == 5  # all start at 0, so that where they begin is not plotted
  assert all(f'{row["source"]}' in page for row in rows) and ' to ' in rows[0]['source']
  assert 'http' not in re.sub(r'http-equiv', '', page)  # fetches nothing


def test_captions_are_text_on_the_page(clips, tmp_path):
  (clips / 'captions.csv').write_text('file,caption\n' + ''.join(
      f'c{i}.mp4,<script>alert({i})</script>\n' for i in range(3)))
  inspect.main([f'{clips}', f'--output={tmp_path / "out"}'])
  page = (tmp_path / 'out' / 'index.html').read_text()
  assert '<script>alert' not in page and '&lt;script&gt;alert(1)' in page


def test_records_and_mixtures_are_inspected_too(clips, tmp_path):
  from avlink_jax.data.prepare import command as prepare
  prepare.prepare([f'--source={clips}', f'--output={tmp_path / "r"}', '--splits=train',
                   '--processes=1', '--codec=bundled'])
  for source, more in ((f'{tmp_path / "r"}', ('--codec=bundled',)),
                       (f'impacts*1,{clips}*1', ())):
    assert inspect.main([source, f'--output={tmp_path / "out"}', '--count=3', *more]) == 0
  page = (tmp_path / 'out' / 'index.html').read_text()
  assert 'impacts*1' in page


@pytest.mark.parametrize('flags, said', [
    (['nowhere'], 'nowhere: no such folder'), (['impacts', '--count=0'], 'at least one'),
    (['impacts', '--config=configs/none.py'], 'no such config'),
    (['impacts', '--config=configs/v2a.py:huge'], 'unknown scale'), (['a*b'], 'no source with a')])
def test_a_mistake_is_told_in_one_line(flags, said, tmp_path, capsys):
  assert inspect.main([*flags, f'--output={tmp_path / "out"}']) == 2
  line = capsys.readouterr().err.strip()
  assert line.startswith('avlink_jax: ') and said in line and '\n' not in line


@needs_clips
@pytest.mark.slow
def test_real_clips_are_inspected(shared_clips, tmp_path):
  assert inspect.main([str(shared_clips), f'--output={tmp_path}', '--count=3']) == 0
