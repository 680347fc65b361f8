"""Table 4 from the answers of the user study: share of votes for ours, by method and question.

Intervals are Wilson's score intervals of a share (95 %): they hold at shares of 0 and 1 too, where
a bootstrap of few participants has no width. They take votes as independent; those of one
participant are not quite, so read them as a lower bound of the uncertainty.
"""

import csv
import io
import json
import math
import pathlib

from avlink_jax.errors import UserError
from avlink_jax.storage.atomic import write_text
from avlink_jax.storage.console import say

Z = 1.959964  # 95 %
FIELDS = ('study', 'participant', 'pair', 'question', 'left', 'right', 'chosen')


def wilson(votes, total):
  """Interval (low, high) of a share of `votes` out of `total` > 0 (Wilson 1927)."""
  share, z2 = votes / total, Z * Z / total
  middle = (share + z2 / 2) / (1 + z2)
  half = Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total)) / (1 + z2)
  return max(middle - half, 0.0), min(middle + half, 1.0)


def read(path, key):
  """Reads an exported file, JSON or CSV: (participant, {(pair, question): whether for ours}).

  Raises ValueError, with a reason: it is incomplete, or not of this study.
  """
  try:
    text = pathlib.Path(path).read_text(encoding='utf-8-sig')
  except UnicodeDecodeError:
    raise ValueError('not a text file') from None
  except OSError as error:
    raise ValueError(f'cannot be read ({error.strerror})') from None
  rows = _json_rows(text) if text.lstrip()[:1] in ('{', '[') else _csv_rows(text)
  if not rows:
    raise ValueError('no answers in it')
  votes, people = {}, set()
  for k, row in enumerate(rows):
    position = f'answer {k + 1}'
    if row['study'] != key['study']:
      raise ValueError(f'{position} is of study {row["study"]!r:.40}, not {key["study"]}')
    pair, person = (_number(row, name, position) for name in ('pair', 'participant'))
    if not 1 <= person <= len(key['shown']):
      raise ValueError(f'{position}: no participant {person}')
    shown = dict(map(tuple, key['shown'][person - 1]))
    if pair not in shown:
      raise ValueError(f'{position}: pair {pair} was not shown to participant {person}')
    ours, other = key['pairs'][pair]['ours'], key['pairs'][pair]['other']
    sides = (ours, other) if shown[pair] else (other, ours)
    question = row['question']
    if question not in [name for name, _, _ in key['questions']]:
      raise ValueError(f'{position}: no question {question!r:.40}')
    if (row['left'], row['right']) != sides or row['chosen'] not in ('left', 'right'):
      raise ValueError(f'{position}: not two clips of pair {pair}, or none of them chosen')
    if (pair, question) in votes:
      raise ValueError(f'{position}: pair {pair}, {question} is answered twice')
    votes[pair, question] = row[row['chosen']] == ours
    people.add(person)
  if len(people) > 1:
    raise ValueError(f'answers of {len(people)} participants in one file')
  return people.pop(), votes


def _number(row, name, position):
  try:
    return int(row[name])
  except (TypeError, ValueError, OverflowError):
    raise ValueError(f'{position}: {name} {row[name]!r:.40} is no number') from None


def _json_rows(text):
  try:
    content = json.loads(text)
    rows = [{name: content[name] for name in FIELDS[:2]} | answer for answer in content['answers']]
  except (ValueError, KeyError, TypeError, RecursionError):
    raise ValueError('not the JSON that the page exports, or cut short') from None
  return _checked(rows)


def _csv_rows(text):
  try:
    rows = list(csv.DictReader(io.StringIO(text), strict=True))
  except csv.Error:
    raise ValueError('not the CSV that the page exports, or cut short') from None
  return _checked(rows)


def _checked(rows):
  for k, row in enumerate(rows):
    missing = [name for name in FIELDS if row.get(name) is None]
    if missing:
      raise ValueError(f'answer {k + 1} has no {missing[0]}')
  return rows


def count(files, key):
  """Counts votes: ({(method, question): [for ours, all]}, participants, [(file, reason)])."""
  counts, people, damaged = {}, {}, []
  for path in files:
    try:
      person, votes = read(path, key)
      if person in people:
        raise ValueError(f'participant {person} has answered in {people[person]} already')
    except ValueError as error:
      damaged.append((str(path), str(error)))
      continue
    people[person] = path
    for (pair, question), for_ours in votes.items():
      tally = counts.setdefault((key['pairs'][pair]['method'], question), [0, 0])
      tally[0] += for_ours
      tally[1] += 1
  return counts, people, damaged


def table(files, key_path, output=None):
  """Table 4 as Markdown, and in the JSON file `output`. Raises UserError."""
  try:
    key = json.loads(pathlib.Path(key_path).read_text(encoding='utf-8'))
    key['study'], key['questions'], key['pairs'], key['shown']  # noqa: B018 are all there
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f'--key={key_path}: not the key.json of a study ({error!r})') from None
  counts, people, damaged = count(files, key)
  for path, reason in damaged:
    say(f'left out: {path}: {reason}')
  if not people:
    raise UserError(f'none of the {len(files)} files can be counted'
                    + (f'; the first: {damaged[0][0]}: {damaged[0][1]}' if damaged else ''))
  methods = list(dict.fromkeys(pair['method'] for pair in key['pairs']))
  rows, shares = [], {}
  for method in methods:
    cells = []
    for question, _, _ in key['questions']:
      votes, total = counts.get((method, question), (0, 0))
      if not total:
        cells.append('–')
        continue
      low, high = wilson(votes, total)
      shares.setdefault(method, {})[question] = {
          'votes': votes, 'of': total, 'share': votes / total, 'low': low, 'high': high}
      cells.append(f'{100 * votes / total:.1f} [{100 * low:.1f}, {100 * high:.1f}]')
    rows.append([method.replace('|', '∣'), *cells])
  if output:
    write_text(output, json.dumps({
        'study': key['study'], 'task': key['task'], 'participants': sorted(people),
        'methods': shares, 'left_out': damaged}, indent=1) + '\n')
  header = ['ours against', *(column for _, column, _ in key['questions'])]
  lines = ['| ' + ' | '.join(row) + ' |' for row in [header, ['---'] * len(header), *rows]]
  return '\n'.join([
      *lines, '', f'% of votes for ours, 95 % Wilson intervals over votes; {len(people)} of '
      f'{len(key["shown"])} participants, {len(damaged)} of {len(files)} files left out.'])
