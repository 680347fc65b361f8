"""Rows of a data set's official lists, and reading of such lists."""

import csv
import dataclasses
import itertools
from collections.abc import Iterator

from avlink_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Row:
  """One clip of an official list.

  Attributes:
    id: unique in the data set, made of the list's own ids.
    split: 'train', 'validation' or 'test'.
    cut: names its file may have if it holds just this clip; whole: if it holds the recording of
      which the clip is [start, end). Without suffix; `a/b` is the end of a path; in order of
      preference.
    start, end: seconds; end is None where the clip is the whole file.
    audio_caption, video_caption, labels, licence, metadata: as in schema.py.
  """
  id: str
  split: str
  cut: tuple = ()
  whole: tuple = ()
  start: float = 0.0
  end: float | None = None
  audio_caption: str = ''
  video_caption: str = ''
  labels: tuple = ()
  licence: str = ''
  metadata: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Malformed:
  """A row that cannot be understood: it goes to the report."""
  id: str
  reason: str


def find_list(folder, *names):
  """First of the files (paths relative to `folder`) that exists. Raises UserError: none."""
  for name in names:
    if (folder / name).is_file():
      return folder / name
  raise UserError(f'{folder}: {names[0]} is not there; it comes with the data set (see '
                  'python -m avlink_jax.data.build --help)')


def read_table(path, delimiter=',') -> Iterator[list]:
  """Yields the rows of a UTF-8 table, except empty ones. Raises UserError: unreadable."""
  csv.field_size_limit(2**31 - 1)  # process-wide; 128 KiB by default
  try:
    with path.open(encoding='utf-8-sig', newline='') as file:
      yield from (row for row in csv.reader(file, delimiter=delimiter) if any(row))
  except (UnicodeDecodeError, csv.Error, OSError) as error:
    raise UserError(f'{path}: cannot be read as a table of UTF-8 text ({error})') from None


def read_records(path, columns, delimiter=',') -> Iterator[dict]:
  """Yields {column: value} of each row below a header, which must have `columns`.

  A row of another length than the header is a Malformed. Raises UserError: columns are missing.
  """
  rows = read_table(path, delimiter)
  header = next(rows, [])
  check_columns(path, header, columns)
  for row in rows:
    if len(row) != len(header):
      yield Malformed(row[0][:80], f'{len(row)} columns, not {len(header)}')
    else:
      yield dict(zip(header, row, strict=True))


def check_columns(path, found, expected):
  """Raises UserError where a header lacks columns, which names both."""
  lacking = [name for name in expected if name not in found]
  if lacking:
    shown = ', '.join(found)[:200] or 'nothing'
    raise UserError(f'{path}: its columns are {shown}; expected {", ".join(expected)} '
                    f'(there is no {", ".join(lacking)})')


def first_fits(path, rows, fits, expected) -> Iterator[list]:
  """Yields the rows of a table without header, after checking that the first one `fits`.

  Raises UserError: it does not, so this is another table.
  """
  rows = iter(rows)
  first = next(rows, [])
  if not fits(first):
    shown = ', '.join(first)[:200] or 'nothing'
    raise UserError(f'{path}: its first row is {shown}; expected the columns {expected} '
                    'and no header')
  yield from itertools.chain([first], rows)


def is_seconds(text: str) -> bool:
  """Tells whether a text is a time: a finite number of seconds, not negative."""
  try:
    return 0 <= float(text) < 1e7
  except ValueError:
    return False
