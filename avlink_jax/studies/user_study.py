"""The paper's user study (App. D.5): a page that asks which of two clips is better.

    python -m avlink_jax.studies.user_study --task=v2a --ours=DIR --others=NAME=DIR[,NAME=DIR...]
        --output=STUDY [--count=50] [--participants=5] [--raters=5] [--seed=0]
    python -m avlink_jax.studies.user_study --answers FILE... [--key=STUDY/key.json]
        [--output=table.json]

The first makes STUDY/page, a folder that opens from disk (give it to the participants, each with
a number from 1 on), and STUDY/key.json, which says what is whose (keep it). Clips of the same name
in two folders make a pair. Each pair is shown to so many participants, in an order and with sides
drawn from the seed; sides are balanced for each participant and for each pair. The second turns the
files that the page exports into the paper's Table 4.
"""

import argparse
import hashlib
import html
import json
import pathlib
import random
import sys

from avlink_jax.data.media import decode as media
from avlink_jax.errors import MISTAKE, MediaError, UserError
from avlink_jax.evaluation import pairs as clips_on_disk
from avlink_jax.samples.folder import file_stem, read_manifest
from avlink_jax.storage.atomic import write_bytes, write_text
from avlink_jax.storage.console import say
from avlink_jax.studies import user_study_answers

PLAYABLE = ('.mp4', '.m4v', '.webm')  # by every browser
# The questions of D.5 for V2A, and their mirror images for A2V: name, column of Table 4, words.
QUESTIONS = {
    'v2a': (
        ('audio_quality', 'A-Qual.', 'Which audio has the best quality? Only listen to the audio '
         'and ignore the video content.'),
        ('audio_video_quality', 'AV-Qual.', 'Which audio-video pair has the best quality?'),
        ('semantic_alignment', 'Sem. Align.',
         'Which audio is semantically closer to the video content?'),
        ('temporal_alignment', 'Temp. Align.',
         'Which audio is more temporally aligned to the video content?')),
    'a2v': (
        ('video_quality', 'V-Qual.', 'Which video has the best quality? Only watch the video and '
         'ignore the audio content.'),
        ('audio_video_quality', 'AV-Qual.', 'Which audio-video pair has the best quality?'),
        ('semantic_alignment', 'Sem. Align.',
         'Which video is semantically closer to the audio content?'),
        ('temporal_alignment', 'Temp. Align.',
         'Which video is more temporally aligned to the audio content?'))}


def find_pairs(ours, others, count, draw):
  """Pairs of clips, and what was left out.

  Args:
    ours: folder; others: {name: folder}.
    count: of pairs with each other at most; drawn.
    draw: random.Random.
  Returns:
    [{'method', 'clip', 'caption', 'ours': path, 'other': path}], [(file, reason)].
  Raises:
    UserError: no such folder, or no pair at all.
  """
  mine, pairs, left_out = clips_on_disk.find(ours, '--ours'), [], []
  captions = {file_stem(row['id']): str(row.get('prompt') or '') for row in read_manifest(ours)}
  for method, folder in others.items():
    theirs = clips_on_disk.find(folder, f'--others={method}')
    left_out += [(stem, f'not in both {ours} and {folder}')
                 for stem in sorted(mine.keys() ^ theirs.keys())]
    shared = sorted(mine.keys() & theirs.keys())
    draw.shuffle(shared)
    taken = 0
    for stem in shared:
      if taken == count:
        break
      paths = [clips[stem].video for clips in (mine, theirs)]
      reasons = [(str(path or stem), why) for path in paths if (why := unusable(path))]
      left_out += reasons
      if not reasons:
        taken += 1
        pairs.append(dict(method=method, clip=stem, caption=captions.get(stem, ''),
                          ours=paths[0], other=paths[1]))
  if not pairs:
    raise UserError(f'no clip of {ours} can be paired'
                    + (f': {left_out[0][0]}: {left_out[0][1]}' if left_out else ''))
  return pairs, left_out


def unusable(path):
  """Why a clip cannot be shown; '' where it can."""
  if path is None:
    return 'has no picture'
  if path.suffix.lower() not in PLAYABLE:
    return f'browsers do not play {path.suffix}: make it an .mp4'
  try:
    return '' if media.decode(path, height=16).audio.size else 'has no sound'
  except MediaError as error:
    return error.reason


def plan(methods, participants, raters, draw):
  """Who sees what, in which order, on which side.

  Args:
    methods: of each pair, whose the other clip is.
    participants, raters: how many there are, and how many of them see a pair.
    draw: random.Random.
  Returns:
    a list for each participant of [pair, whether ours is left]: pairs are spread so that
    participants have equally many (±1); of each participant's pairs, and of each pair's showings,
    ours is left in half (±1).
  """
  order = list(range(len(methods)))
  draw.shuffle(order)
  # Rounds of `raters` neighbours on a circle of participants: no load differs by more than 1.
  edges = [(pair, (k * raters + j) % participants)
           for k, pair in enumerate(order) for j in range(raters)]
  left = balanced(edges, methods, draw)
  shown = [[] for _ in range(participants)]
  for (pair, person), ours_left in zip(edges, left, strict=True):
    shown[person].append([pair, ours_left])
  for mine in shown:
    draw.shuffle(mine)
  return shown


def balanced(edges, methods, draw):
  """A side for each showing (pair, participant), so that half (±1) of a pair's, and half (±1) of a
  participant's, are left.

  Showings are tied two by two at each pair, and two by two at each participant (of the same method
  where it can be): tied ones get opposite sides. Each has at most two ties, one of either kind, so
  they form chains, and rings of even length, along which sides alternate.
  """
  ties = [[] for _ in edges]
  for end in (0, 1):
    groups = {}
    for i, edge in enumerate(edges):
      groups.setdefault(edge[end], []).append(i)
    for group in groups.values():
      group.sort(key=lambda i: methods[edges[i][0]])
      for one, other in zip(group[::2], group[1::2], strict=False):
        ties[one].append(other)
        ties[other].append(one)
  sides = [None] * len(edges)
  for first in range(len(edges)):
    if sides[first] is None:
      sides[first], reached = draw.random() < 0.5, [first]
      while reached:
        one = reached.pop()
        for other in ties[one]:
          if sides[other] is None:
            sides[other] = not sides[one]
            reached.append(other)
  return sides


def make(given):
  """Writes the study. Returns what to tell. Raises UserError."""
  output, draw = pathlib.Path(given.output), random.Random(given.seed)
  if (output / 'key.json').exists():
    raise UserError(f'{output} holds a study already: choose another --output, or remove it')
  pairs, left_out = find_pairs(given.ours, given.others, given.count, draw)
  shown = plan([pair['method'] for pair in pairs], given.participants, given.raters, draw)
  if not all(shown):
    raise UserError(f'{len(pairs)} pairs, each for {given.raters}, are too few for '
                    f'{given.participants} participants')
  name = lambda path: hashlib.sha256(  # noqa: E731 that does not tell whose it is
      f'{given.seed} {path}'.encode() + path.read_bytes()).hexdigest()[:16] + path.suffix.lower()
  names = {}
  for pair in pairs:
    for side in ('ours', 'other'):
      path = pair[side]
      if path not in names:
        names[path] = name(path)
        write_bytes(output / 'page' / 'clips' / names[path], path.read_bytes())
  key = {'task': given.task, 'questions': [list(q) for q in QUESTIONS[given.task]],
         'pairs': [dict(method=pair['method'], clip=pair['clip'], ours=names[pair['ours']],
                        other=names[pair['other']]) for pair in pairs], 'shown': shown}
  study = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
  page = {
      'study': study, 'questions': [[q, words] for q, _, words in QUESTIONS[given.task]],
      'captions': [pair['caption'] for pair in pairs],
      'shown': [[[pair, *((key['pairs'][pair]['ours'], key['pairs'][pair]['other'])
                          if ours_left else
                          (key['pairs'][pair]['other'], key['pairs'][pair]['ours']))]
                 for pair, ours_left in mine] for mine in shown]}
  write_text(output / 'page' / 'index.html', written(page))
  write_text(output / 'key.json', json.dumps({'study': study, **key}, indent=1) + '\n')
  for file, reason in left_out:
    say(f'left out: {file}: {reason}')
  return (f'{len(pairs)} pairs, {len(left_out)} left out; participants 1 to {given.participants} '
          f'see {min(map(len, shown))} to {max(map(len, shown))} each: '
          f'{output / "page" / "index.html"}. Keep {output / "key.json"} to yourself.')


def written(page):
  """The page around its data. No text of anybody's can end the script element it stands in."""
  data = json.dumps(page).replace('<', '\\u003c')
  template = (pathlib.Path(__file__).parent / 'user_study.html').read_text(encoding='utf-8')
  return template.replace('{{title}}', html.escape(f'Study {page["study"]}')).replace(
      '{{data}}', data)


def read_others(told):
  """'NAME=DIR,NAME=DIR' -> {name: folder}."""
  others = {}
  for part in told.split(','):
    name, _, folder = part.partition('=')
    if not name or not folder or name in others:
      raise UserError(f'--others={part}: write NAME=FOLDER, each name once')
    others[name] = folder
  return others


def run(argv):
  parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
  parser.add_argument('--task', choices=tuple(QUESTIONS))
  parser.add_argument('--ours', help='folder of our clips')
  parser.add_argument('--others', help='NAME=FOLDER,... of those they are compared with')
  parser.add_argument('--output', help='folder of the study; with --answers: a JSON file')
  parser.add_argument('--count', type=int, default=50, help='of pairs with each other (D.5)')
  parser.add_argument('--participants', type=int, default=5)
  parser.add_argument('--raters', type=int, default=5, help='of each pair (D.5)')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--answers', nargs='+', help='files that the page has exported')
  parser.add_argument('--key', help='with --answers: the key.json of the study')
  given = parser.parse_args(argv)
  if given.answers:
    if not given.key:
      raise UserError('--answers needs --key=STUDY/key.json')
    print(user_study_answers.table(given.answers, given.key, given.output))
    return
  for name in ('task', 'ours', 'others', 'output'):
    if getattr(given, name) is None:
      raise UserError(f'--{name} is missing (or give --answers)')
  if not 1 <= given.raters <= given.participants or given.count < 1:
    raise UserError('--raters must lie between 1 and --participants, and --count begin at 1')
  given.others = read_others(given.others)
  say(make(given))


def main(argv=None):
  try:
    run(argv)
  except UserError as error:
    say(f'user_study: {error}')
    return MISTAKE
  return 0


if __name__ == '__main__':
  sys.exit(main())
