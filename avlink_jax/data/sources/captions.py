"""Captions of a folder's clips: from a table, or from a text file beside each clip.

A table is CSV or tab-separated, with a header, or JSON lines. A column `file` or `file_name` has a
path relative to the table or a bare file name; `caption` serves audio and video, `audio_caption`
and `video_caption` come before it; `licence` is kept beside them. Names are compared in Unicode's
NFC, since systems differ in how they write accents, and only with the files that were listed, so
that none leads elsewhere. Captions may hold anything and are cleaned, and cut to LONGEST_CAPTION.
"""

import collections
import csv
import dataclasses
import json
import os
import re
import string
import textwrap
import typing
import unicodedata
from pathlib import Path

from avlink_jax.data.sources import file_list
from avlink_jax.errors import MediaError, UserError

# Looked for in this order; of those called metadata, which others write too, tables without
# captions are left alone.
TABLES = tuple(f'{name}.{kind}' for name in ('captions', 'metadata')
               for kind in ('csv', 'tsv', 'jsonl'))
FILE = ('file', 'file_name')  # names of the column with files
CAPTIONS = ('caption', 'audio_caption', 'video_caption')
LONGEST_CAPTION = 10_000  # characters; no text encoder reads as many
LONGEST_NAME = 4096  # bytes of a path on Linux
_BIDI = frozenset('\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff')


class Caption(typing.NamedTuple):
  """Texts about a clip, '' where there is none."""
  audio: str = ''
  video: str = ''
  licence: str = ''


NONE = Caption()


@dataclasses.dataclass
class Captions:
  """Captions of files.

  Attributes:
    notes: lines for the user about what is odd but not wrong.
    rows: {file: Caption} of a table or a template.
    beside: {file: path of the text file beside it}, of files without a row.
  """
  notes: list = dataclasses.field(default_factory=list)
  rows: dict = dataclasses.field(default_factory=dict)
  beside: dict = dataclasses.field(default_factory=dict)

  def of(self, file) -> Caption:
    """A file's Caption. Raises MediaError: the text file beside it cannot be read."""
    if file not in self.beside:
      return self.rows.get(file, NONE)
    try:
      with self.beside[file].open('rb') as opened:
        text = opened.read(4 * LONGEST_CAPTION).decode('utf-8-sig', errors='replace')
    except OSError as error:
      raise MediaError(str(self.beside[file]), f'cannot be read ({error.strerror})') from None
    text = clean_caption(text[:LONGEST_CAPTION])
    return Caption(text, text)

  def coverage(self, files) -> str:
    """'captions: 40 of 48 clips', of these files; of audio and video apart where they differ."""
    audio, video = (sum(file in self.beside or bool(getattr(self.rows.get(file, NONE), medium))
                        for file in files) for medium in ('audio', 'video'))
    if audio == video:
      return f'captions: {audio:,} of {len(files):,} clips'
    return f'captions: of audio {audio:,}, of video {video:,} of {len(files):,} clips'


def read(root: Path, files: list, given=None, template=None) -> Captions:
  """Captions of a folder's `files`, or of those in a list.

  Args:
    root: the folder, list of files, or one file.
    files: Paths and Addresses.
    given: path of the table; None: one of TABLES in the folder; '': no captions.
    template: format of captions, such as 'the sound of {label}', from a table's columns; without a
      table from `{folder}`, the name of a file's folder.
  Raises UserError: no such table, unreadable, or without the columns.
  """
  captions, fields = Captions(), _template_fields(template)
  if given == '':
    return captions
  table, optional = _table(root, given, captions.notes)
  if table is not None:
    _read_rows(captions, table, optional, files, template, fields)
  elif fields:
    captions.rows = _of_folders(files, template, fields)
  if not fields:
    beside = _beside(root, [file for file in files if file not in captions.rows])
    captions.beside = {file: path for file, path in beside.items() if os.access(path, os.R_OK)}
    if closed := [path.name for path in beside.values() if not os.access(path, os.R_OK)]:
      captions.notes.append(f'{root}: {len(closed)} captions beside clips cannot be read: '
                            f'{_abbreviated(closed)}')
  return captions


def _table(root, given, notes):
  """Path of the table, None where there is none, and whether it may be something else."""
  if given is not None:
    if not Path(given).is_file():
      raise UserError(f'{given}: no such captions file')
    return Path(given), False
  if root.is_file() and not file_list.is_list(root):
    return None, False
  folder = root if root.is_dir() else root.parent
  there = [folder / name for name in TABLES if (folder / name).is_file()]
  for table in there[1:]:
    notes.append(f'{table}: not read, since there is {there[0].name}')
  return (there[0], there[0].stem == 'metadata') if there else (None, False)


def _read_rows(captions, table, optional, files, template, fields):
  """Adds the rows whose file is there; notes count the others."""
  rows, columns = read_table(table)
  lacking = not set(FILE) & columns or (
      not fields <= columns if fields else not set(CAPTIONS) & columns)
  if lacking and optional and not fields:
    captions.notes.append(f'{table}: not read, since it has no columns file_name and caption')
    return
  if lacking:
    found = ','.join(columns)[:80] or 'nothing'
    wanted = ','.join(['file', *sorted(fields or {'caption'})])
    raise UserError(f'{table}: its first line must be the header {wanted}; found {found!r}')
  named = [(next((row[column] for column in FILE if row.get(column)), '').strip(), row)
           for row in rows]
  named = [(name, row) for name, row in named if name]
  find, missing, repeated, long = _finder(table, files), [], [], []
  for name, row in named:
    file = find(name)
    if file is None:
      missing.append(name)
    elif file in captions.rows:
      repeated.append(name)
    else:
      both = (template.format_map({field: row.get(field, '') for field in fields}) if fields
              else row.get('caption', ''))
      texts = [both if fields else row.get(f'{medium}_caption') or both
               for medium in ('audio', 'video')]
      # Cut first: Unicode normalisation may take the square of the length.
      captions.rows[file] = Caption(*(
          clean_caption(text[:LONGEST_CAPTION]) for text in (*texts, row.get('licence', ''))))
      long += [name] if max(map(len, texts)) > LONGEST_CAPTION else []
  for names, what in ((missing, 'name no file of the folder'),
                      (repeated, 'repeat a file (its first caption is used)'),
                      (long, f'have captions longer than {LONGEST_CAPTION:,} signs, and were '
                             'cut')):
    if names:
      captions.notes.append(f'{table}: {len(names)} of {len(named)} rows {what}: '
                            f'{_abbreviated(names)}')


def _finder(table, files):
  """Function from a name in a table to the file that it means, or None."""
  by_path = {str(file) if isinstance(file, file_list.Address) else str(file.resolve()): file
             for file in files}
  alike, by_name = collections.defaultdict(list), collections.defaultdict(list)
  for path, file in by_path.items():
    alike[_nfc(path)].append(file)
    by_name[_nfc(file.name)].append(file)

  def find(name):
    if '\0' in name or len(name) > LONGEST_NAME:
      return None
    try:
      path = str((table.parent / name).resolve())
    except (OSError, RuntimeError):  # links that go round in circles
      path = name
    if (file := by_path.get(path) or by_path.get(name)) is not None:
      return file
    same = alike[_nfc(path)] or by_name[_nfc(name)]
    return same[0] if len(same) == 1 else None

  return find


def _nfc(text):
  return unicodedata.normalize('NFC', text)


def read_table(table: Path):
  """Reads a table: ([{column: text}], set of its columns), columns in lower case.

  Raises UserError: unreadable, or a line of JSON that is no object.
  """
  try:
    # Excel writes a byte-order mark, which utf-8-sig drops.
    with open(table, encoding='utf-8-sig', newline='') as file:
      if table.suffix.lower() == '.jsonl':
        return _json_lines(table, file)
      csv.field_size_limit(2**31 - 1)  # process-wide; 128 KiB by default
      first = file.readline()
      tabs = table.suffix.lower() == '.tsv' or '\t' in first and ',' not in first
      file.seek(0)
      rows = [row for row in csv.reader(file, delimiter='\t' if tabs else ',',
                                        skipinitialspace=True) if any(row)]
  except (UnicodeDecodeError, csv.Error, OSError) as error:
    raise UserError(f'{table}: cannot be read as UTF-8 comma-separated text ({error})') from None
  header = [_column(cell) for cell in rows[0]] if rows else []
  # A caption in the last column may hold unquoted commas; their spaces are gone by now.
  last, join = len(header) - 1, '\t' if tabs else ', '
  return [{name: join.join(row[at:] if at == last else row[at:at + 1])
           for at, name in enumerate(header)} for row in rows[1:]], dict.fromkeys(header).keys()


def _json_lines(table, file):
  rows = []
  for number, line in enumerate(file, 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except (ValueError, RecursionError):
      row = None
    if not isinstance(row, dict):
      raise UserError(f'{table}: line {number} is no JSON object such as '
                      '{"file_name": "dog.mp4", "caption": "a dog barks"}')
    rows.append({_column(name): value for name, value in row.items() if isinstance(value, str)})
  return rows, {name: None for row in rows for name in row}.keys()


def _column(name):
  name = name.strip().lower()
  return 'licence' if name == 'license' else name


def _beside(root, files):
  """Mapping {file: text file of the same stem beside it} of local files."""
  listed = {}
  for folder in {file.parent for file in files if not isinstance(file, file_list.Address)}:
    listed[folder] = {path.name for path in folder.glob('*.txt')} if folder.is_dir() else ()
  beside = {}
  for file in files:
    name = f'{file.stem}.txt'
    if name in listed.get(file.parent, ()) and (path := file.with_name(name)) != root:
      beside[file] = path
  return beside


def _template_fields(template) -> set:
  """Columns that a template names. Raises UserError: none, or it is no template."""
  if template is None:
    return set()
  try:
    fields = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
  except ValueError as error:
    raise UserError(f'the template {template!r}: {error}') from None
  if not fields or not all(re.fullmatch(r'\w+', field) for field in fields):
    raise UserError(f'the template {template!r} names no column: write it as '
                    "'the sound of {label}'")
  return fields


def _of_folders(files: list, template: str, fields: set) -> dict:
  """Mapping {file: Caption} from the names of the files' folders, in which `_` is a space."""
  if fields != {'folder'}:
    raise UserError(f'the template {template!r} needs a captions csv with the columns '
                    f'{", ".join(sorted(fields))}; without one it may name {{folder}} only')
  texts = {file: clean_caption(template.format(folder=file.parent.name.replace('_', ' ')))
           for file in files}
  return {file: Caption(text, text) for file, text in texts.items()}


def clean_caption(text: str) -> str:
  """Text fit for a tokenizer and a page: NFC, no control characters, single spaces.

  Control characters, line breaks, lone surrogates, byte-order marks and the marks that turn
  the writing direction become spaces; joiners that scripts and emoji need stay.
  """
  text = _nfc(text)
  spaced = (' ' if c in _BIDI or unicodedata.category(c) in ('Cc', 'Cs', 'Co', 'Cn') else c
            for c in text)
  return ' '.join(''.join(spaced).split())


def _abbreviated(names: list, count: int = 5) -> str:
  more = f' and {len(names) - count} more' if len(names) > count else ''
  shown = (clean_caption(textwrap.shorten(name[:200], 80, placeholder='…'))
           for name in names[:count])
  return ', '.join(shown) + more
