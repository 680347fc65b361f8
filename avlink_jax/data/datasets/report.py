"""Report of a build: which rows of the list were left out, and why; it stands beside the data."""

import csv
import json
import pathlib
from collections import Counter

from avlink_jax.storage import atomic

NAME, LIST = 'report.json', 'left_out.csv'
KINDS = {'missing': 'no file for it', 'short': 'shorter than asked', 'silent': 'without sound',
         'broken': 'unusable file', 'duplicate': 'id seen before',
         'malformed': 'row not understood'}


class Report:
  """Counts of rows listed, built and left out; every row left out is one line of a csv.

  Lines are written at once, so memory does not grow with them.

  Attributes:
    listed, built: rows by split; left_out: rows by kind.
    shortened: ids of clips whose captions were cut, being too long.
  """

  def __init__(self, folder):
    self._folder = pathlib.Path(folder)
    self._folder.mkdir(parents=True, exist_ok=True)
    self._file = open(self._folder / LIST, 'w', encoding='utf-8', newline='')
    self._lines = csv.writer(self._file)
    self._lines.writerow(['id', 'split', 'kind', 'reason', 'file'])
    self.listed, self.built, self.left_out = Counter(), Counter(), Counter()
    self._reasons, self.shortened = Counter(), []

  def leave_out(self, name, split, kind, reason, file=''):
    """Records a row that is not built; `kind` is one of KINDS."""
    self.left_out[kind] += 1
    self._reasons[kind, reason.partition(' (')[0] if kind == 'broken' else KINDS[kind]] += 1
    # File names need not be text, and a csv must be.
    self._lines.writerow([text.encode('utf-8', 'replace').decode()
                          for text in (name, split, kind, reason, str(file))])

  def close(self, **about):
    """Writes report.json: `about` the build, and the counts."""
    self._file.close()
    atomic.write_text(self._folder / NAME, json.dumps({
      **about, 'listed': dict(self.listed), 'built': dict(self.built),
      'left_out': {kind: self.left_out[kind] for kind in KINDS},
      'captions_cut': self.shortened, 'reasons': [{'kind': kind, 'reason': reason, 'rows': count}
                  for (kind, reason), count in self._reasons.most_common()],
      'list': LIST}, indent=2) + '\n')

  def __str__(self):
    """Summary in one line: rows built, listed and left out."""
    left_out = ', '.join(f'{count:,} {kind}' for kind, count in self.left_out.most_common())
    built = ', '.join(f'{split} {count:,}' for split, count in sorted(self.built.items()))
    cut = f'; {len(self.shortened):,} captions were cut' if self.shortened else ''
    return (f'{sum(self.built.values()):,} of {sum(self.listed.values()):,} rows built '
            f'({built or "none"}); left out: {left_out or "none"}{cut}')
