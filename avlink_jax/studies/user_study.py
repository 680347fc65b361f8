"""The paper's user study (App. D.5): a page that asks which of two clips is better.

    python -m avlink_jax.studies.user_study --task=v2a --ours=DIR --others=NAME=DIR[,NAME=DIR...]
        --output=STUDY [--count=50] [--participants=5] [--raters=5] [--seed=0]
    python -m avlink_jax.studies.user_study --answers FILE... [--key=STUDY/key.json]
        [--output=table.json]

The first writes STUDY/page, a folder that opens from disk (give it to the participants, each with
a number from 1 on), and STUDY/key.json, which maps clips to methods (keep it). Clips of the same
name in two folders are a pair. Each pair is shown to --raters participants, in an order and with
sides drawn from the seed; sides are balanced for each participant and for each pair. The second
turns the files that the page exports into the paper's Table 4.
"""

import argparse
import hashlib
import html
import json
import pathlib
import random
import sys

from avlink_jax.data.media.decode import decode
from avlink_jax.errors import MISTAKE, MediaError, UserError
from avlink_jax.evaluation import pairs as clips_on_disk
from avlink_jax.samples.folder import file_stem, read_manifest
from avlink_jax.storage.atomic import write_bytes, write_text
from avlink_jax.storage.console import say
from avlink_jax.studies import user_study_answers

PLAYABLE = ('.mp4', '.m4v', '.webm')  # by every browser
# Questions of D.5 for V2A, and their counterparts for A2V: name, column of Table 4, text.
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
  """Matches clips to pairs, and lists those left out.

  Args:
    ours: folder; others: {name: folder}.
    count: at most so many pairs for each method, drawn at random.
    draw: random.Random.
  Returns:
    [{'method', 'clip', 'caption', 'ours': path, 'other': path}], [(file, reason)].
  Raises:
    UserError: no such folder, or no pair at all.
  """
  our_clips, pairs, left_out = clips_on_disk.find(ours, '--ours'), [], []
  captions = {file_stem(row['id']): str(row.get('prompt') or '') for row in read_manifest(ours)}
  for method, folder in others.items():
    their_clips = clips_on_disk.find(folder, f'--others={method}')
    left_out += [(stem, f'not in both {ours} and {folder}')
                 for stem in sorted(our_clips.keys() ^ their_clips.keys())]
    shared = sorted(our_clips.keys() & their_clips.keys())
    draw.shuffle(shared)
    paired = 0
    for stem in shared:
      if paired == count:
        break
      paths = [clips[stem].video for clips in (our_clips, their_clips)]
      reasons = [(str(path or stem), why) for path in paths if (why := unusable(path))]
      left_out += reasons
      if not reasons:
        paired += 1
        pairs.append(dict(method=method, clip=stem, caption=captions.get(stem, ''),
                          ours=paths[0], other=paths[1]))
  if not pairs:
    raise UserError(f'no clip of {ours} can be paired'
                    + (f': {left_out[0][0]}: {left_out[0][1]}' if left_out else ''))
  return pairs, left_out


def unusable(path):
  """Reason why a clip cannot be shown; '' where it can."""
  if path is None:
    return 'has no video'
  if path.suffix.lower() not in PLAYABLE:
    return f'browsers do not play {path.suffix}: make it an .mp4'
  try:
    return '' if decode(path, height=16).audio.size else 'has no audio'
  except MediaError as error:
    return error.reason


def plan(methods, participants, raters, draw):
  """Assigns pairs to participants, with an order and sides.

  Args:
    methods: method of the other clip of each pair.
    participants, raters: their number, and the number of them that see a pair.
    draw: random.Random.
  Returns:
    a list for each participant of [pair, whether ours is left]: participants have equally many
    pairs (±1); of each participant's pairs, and of each pair's showings, ours is left in half (±1).
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
  for pairs in shown:
    draw.shuffle(pairs)
  return shown


def balanced(edges, methods, draw):
  """Sides of the showings (pair, participant): half (±1) of a pair's, and half (±1) of a
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


def write_study(flags):
  """Writes the study; returns a summary. Raises UserError."""
  output, draw = pathlib.Path(flags.output), random.Random(flags.seed)
  if (output / 'key.json').exists():
    raise UserError(f'{output} holds a study already: choose another --output, or remove it')
  pairs, left_out = find_pairs(flags.ours, flags.others, flags.count, draw)
  shown = plan([pair['method'] for pair in pairs], flags.participants, flags.raters, draw)
  if not all(shown):
    raise UserError(f'{len(pairs)} pairs, each for {flags.raters}, are too few for '
                    f'{flags.participants} participants')
  name = lambda path: hashlib.sha256(  # noqa: E731 a name that hides the method
      f'{flags.seed} {path}'.encode() + path.read_bytes()).hexdigest()[:16] + path.suffix.lower()
  names = {}
  for pair in pairs:
    for side in ('ours', 'other'):
      path = pair[side]
      if path not in names:
        names[path] = name(path)
        write_bytes(output / 'page' / 'clips' / names[path], path.read_bytes())
  key = {'task': flags.task, 'questions': [list(q) for q in QUESTIONS[flags.task]],
         'pairs': [dict(method=pair['method'], clip=pair['clip'], ours=names[pair['ours']],
                        other=names[pair['other']]) for pair in pairs], 'shown': shown}
  study = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
  page = {
      'study': study, 'questions': [[q, words] for q, _, words in QUESTIONS[flags.task]],
      'captions': [pair['caption'] for pair in pairs],
      'shown': [[[pair, *((key['pairs'][pair]['ours'], key['pairs'][pair]['other'])
                          if ours_left else
                          (key['pairs'][pair]['other'], key['pairs'][pair]['ours']))]
                 for pair, ours_left in own] for own in shown]}
  write_text(output / 'page' / 'index.html', page_html(page))
  write_text(output / 'key.json', json.dumps({'study': study, **key}, indent=1) + '\n')
  for file, reason in left_out:
    say(f'left out: {file}: {reason}')
  return (f'{len(pairs)} pairs, {len(left_out)} left out; participants 1 to {flags.participants} '
          f'see {min(map(len, shown))} to {max(map(len, shown))} each: '
          f'{output / "page" / "index.html"}. Keep {output / "key.json"} to yourself.')


def page_html(page):
  """HTML of the page with its data, escaped so that no caption can end the script element."""
  data = json.dumps(page).replace('<', '\\u003c')
  template = (pathlib.Path(__file__).parent / 'user_study.html').read_text(encoding='utf-8')
  return template.replace('{{title}}', html.escape(f'Study {page["study"]}')).replace(
      '{{data}}', data)


def read_others(text):
  """Parses 'NAME=DIR,NAME=DIR' into {name: folder}. Raises UserError."""
  others = {}
  for part in text.split(','):
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
  flags = parser.parse_args(argv)
  if flags.answers:
    if not flags.key:
      raise UserError('--answers needs --key=STUDY/key.json')
    print(user_study_answers.table(flags.answers, flags.key, flags.output))
    return
  for name in ('task', 'ours', 'others', 'output'):
    if getattr(flags, name) is None:
      raise UserError(f'--{name} is missing (or give --answers)')
  if not 1 <= flags.raters <= flags.participants or flags.count < 1:
    raise UserError('--raters must lie between 1 and --participants, and --count begin at 1')
  flags.others = read_others(flags.others)
  say(write_study(flags))


def main(argv=None):
  try:
    run(argv)
  except UserError as error:
    say(f'user_study: {error}')
    return MISTAKE
  return 0


if __name__ == '__main__':
  sys.exit(main())
