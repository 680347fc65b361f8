"""The user study: a page from folders of clips, and Table 4 from its answers."""

import collections
import csv
import json
import random
import re
import time

import chromium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlink_jax.data.media import mux
from avlink_jax.studies import user_study, user_study_answers

EVIL = '</script><script>document.title="owned"</script> & <img src=x onerror="alert(1)"> é 鼓'


def clip(path, sound=True):
  rng = np.random.default_rng(sum(map(ord, str(path))))
  path.parent.mkdir(parents=True, exist_ok=True)
  mux.write_mp4(path, frames=rng.integers(0, 255, (6, 36, 64, 3), np.uint8), fps=6,
                audio=rng.uniform(-0.1, 0.1, 16_000).astype(np.float32) if sound else None,
                sample_rate=16_000)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """Ours, and two others of which four and two can be paired with it."""
  root = tmp_path_factory.mktemp('clips')
  for folder, names in (('ours', 'abcde'), ('frieren', 'abcd'), ('foley', 'abx')):
    for name in names:
      clip(root / folder / f'{name}.mp4')
  clip(root / 'foley' / 'c.mp4', sound=False)
  (root / 'foley' / 'd.mp4').write_bytes(b'no clip at all' * 50)
  (root / 'ours' / 'manifest.jsonl').write_text(json.dumps(
      {'id': 'a', 'prompt': EVIL, 'files': {}}) + '\n')
  return root


def arguments(folders, output, *more):
  return ['--task=v2a', f'--ours={folders}/ours', f'--output={output}',
          f'--others=Frieren={folders}/frieren,FoleyCrafter={folders}/foley',
          '--participants=3', '--raters=2', *more]


@pytest.fixture(scope='module')
def study(folders, tmp_path_factory):
  """(folder, key, the page's data, what was told)."""
  output = tmp_path_factory.mktemp('study')
  told = []
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(user_study, 'say', told.append)
    assert user_study.main(arguments(folders, output)) == 0
  key = json.loads((output / 'key.json').read_text())
  page = (output / 'page' / 'index.html').read_text()
  return output, key, data_of(page), told


def data_of(page):
  return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


# Who sees what

@given(pairs=st.lists(st.sampled_from('xyz'), min_size=1, max_size=40),
       people=st.integers(1, 12), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_pairs_and_sides_are_balanced(pairs, people, share, seed):
  raters = 1 + round(share * (people - 1))
  shown = user_study.plan(pairs, people, raters, random.Random(seed))
  assert shown == user_study.plan(pairs, people, raters, random.Random(seed))
  loads = [len(mine) for mine in shown]
  assert max(loads) - min(loads) <= 1 and sum(loads) == raters * len(pairs)
  sides = collections.defaultdict(list)
  for mine in shown:
    assert len({pair for pair, _ in mine}) == len(mine)  # none twice
    assert abs(sum(1 if left else -1 for _, left in mine)) <= 1
    for pair, left in mine:
      sides[pair].append(left)
  assert len(sides) == len(pairs)
  for seen in sides.values():
    assert len(seen) == raters and abs(sum(1 if left else -1 for left in seen)) <= 1


def test_participants_see_the_pairs_in_different_orders():
  shown = user_study.plan(['x'] * 30, 5, 5, random.Random(0))
  orders = {tuple(pair for pair, _ in mine) for mine in shown}
  assert len(orders) == 5 and tuple(range(30)) not in orders


# The page

def test_the_page_holds_the_papers_questions_and_all_its_clips(study):
  output, key, data, _ = study
  assert [words for _, words in data['questions']] == [
      'Which audio has the best quality? Only listen to the audio and ignore the video content.',
      'Which audio-video pair has the best quality?',
      'Which audio is semantically closer to the video content?',
      'Which audio is more temporally aligned to the video content?']
  named = {name for mine in data['shown'] for _, *names in mine for name in names}
  assert named == {path.name for path in (output / 'page' / 'clips').iterdir()}
  assert len(key['pairs']) == 6 and sum(map(len, data['shown'])) == 12
  for mine, planned in zip(data['shown'], key['shown'], strict=True):
    for (pair, left, right), (same, ours_left) in zip(mine, planned, strict=True):
      sides = [key['pairs'][pair]['ours'], key['pairs'][pair]['other']]
      assert pair == same and [left, right] == (sides if ours_left else sides[::-1])


def test_nothing_in_the_page_says_whose_a_clip_is(study):
  output, key, data, _ = study
  page = (output / 'page' / 'index.html').read_text()
  for word in ('Frieren', 'FoleyCrafter', 'frieren', 'ours'):
    assert word not in page
  assert all(re.fullmatch(r'[0-9a-f]{16}\.mp4', path.name)
             for path in (output / 'page' / 'clips').iterdir())


def test_a_caption_ends_no_script_and_is_kept_as_it_is(study):
  output, _, data, _ = study
  page = (output / 'page' / 'index.html').read_text()
  assert EVIL in data['captions'] and page.count('</script>') == 2
  assert 'src="http' not in page and 'innerHTML' not in page  # fetches nothing, parses no text


def test_clips_that_cannot_be_paired_are_counted_with_their_reasons(study):
  _, _, _, told = study
  reasons = [line for line in told if line.startswith('left out: ')]
  assert '6 pairs, 5 left out' in told[-1] and len(reasons) == 5
  assert any('c.mp4: no audio stream' in line for line in reasons)
  assert any('d.mp4: not a media file' in line for line in reasons)
  assert any(line.startswith('left out: x: not in both') for line in reasons)


def test_a2v_is_asked_symmetrically():
  (one, *_), (two, *_) = (user_study.QUESTIONS[task][0] for task in ('v2a', 'a2v'))
  assert (one, two) == ('audio_quality', 'video_quality')
  for (_, _, heard), (_, _, seen) in list(zip(
      user_study.QUESTIONS['v2a'], user_study.QUESTIONS['a2v'], strict=True))[2:]:
    assert re.sub('audio|video', lambda m: {'audio': 'video', 'video': 'audio'}[m[0]],
                  heard) == seen


@pytest.mark.parametrize('change, said', [
    ('--others=Frieren', 'write NAME=FOLDER'), ('--ours=/no/where', 'no such folder'),
    ('--raters=4', 'between 1 and --participants'), ('--participants=99', 'too few for 99')])
def test_a_mistake_is_told_in_one_line(folders, tmp_path, capsys, change, said):
  assert user_study.main(arguments(folders, tmp_path / 'out', change)) == 2
  line, = capsys.readouterr().err.splitlines()
  assert said in line and not (tmp_path / 'out' / 'key.json').exists()


def test_a_study_is_not_overwritten(folders, study, capsys):
  assert user_study.main(arguments(folders, study[0])) == 2
  assert 'holds a study already' in capsys.readouterr().err


# Answers

def exported(study, participant, vote):
  """What the page exports; vote(pair, question) -> whether for ours."""
  _, key, data, _ = study
  answers = []
  for pair, left, right in data['shown'][participant - 1]:
    ours = key['pairs'][pair]['ours']
    answers += [dict(pair=pair, question=question, left=left, right=right,
                     chosen='left' if (left == ours) == vote(pair, question) else 'right')
                for question, _ in data['questions']]
  return {'study': data['study'], 'participant': participant, 'answers': answers}


def test_a_share_is_table_4s_and_its_interval_wilsons(study, tmp_path):
  """All for ours in temporal alignment, none in audio quality; against Frieren alone else."""
  output, key, _, _ = study

  def vote(pair, question):
    return question == 'temporal_alignment' or (
        question != 'audio_quality' and key['pairs'][pair]['method'] == 'Frieren')
  for person in (1, 2, 3):
    (tmp_path / f'{person}.json').write_text(json.dumps(exported(study, person, vote)))
  files = [str(tmp_path / f'{person}.json') for person in (1, 2, 3)]
  told = user_study_answers.table(files, output / 'key.json', tmp_path / 'table.json')
  lines = told.splitlines()
  assert lines[0] == '| ours against | A-Qual. | AV-Qual. | Sem. Align. | Temp. Align. |'
  # Four pairs with Frieren, two each with FoleyCrafter, two raters: 8 votes and 4.
  assert lines[2:4] == [
      '| Frieren | 0.0 [0.0, 32.4] | 100.0 [67.6, 100.0] | 100.0 [67.6, 100.0] '
      '| 100.0 [67.6, 100.0] |',
      '| FoleyCrafter | 0.0 [0.0, 49.0] | 0.0 [0.0, 49.0] | 0.0 [0.0, 49.0] '
      '| 100.0 [51.0, 100.0] |']
  assert '3 of 3 participants, 0 of 3 files left out' in lines[-1]
  found = json.loads((tmp_path / 'table.json').read_text())['methods']
  assert sum(row['audio_quality']['of'] for row in found.values()) == 12
  assert found['Frieren']['temporal_alignment']['share'] == 1.0


@pytest.mark.parametrize('votes, of, low, high', [
    (8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0),
    (636, 1000, 0.6057, 0.6652)])
def test_wilsons_interval(votes, of, low, high):
  """Against statsmodels' proportion_confint(method='wilson')."""
  assert user_study_answers.wilson(votes, of) == pytest.approx((low, high), abs=1e-4)


def test_csv_says_what_json_says(study, tmp_path):
  output, key, _, _ = study
  told = exported(study, 2, lambda pair, question: pair % 2 == 0)
  (tmp_path / 'a.json').write_text(json.dumps(told))
  with (tmp_path / 'a.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, user_study_answers.FIELDS)
    writer.writeheader()
    writer.writerows(dict(study=told['study'], participant=2) | row for row in told['answers'])
  one, two = (user_study_answers.read(tmp_path / f'a.{kind}', key) for kind in ('json', 'csv'))
  assert one == two and one[0] == 2 and len(one[1]) == 4 * len(key['shown'][1])


DAMAGES = {
    'cut': (lambda text: text[:len(text) // 2], 'cut short'),
    'empty': (lambda text: '', 'no answers in it'),
    'binary': (lambda text: b'\xff\xfe\x00\x80', 'not a text file'),
    'noise before it': (lambda text: '\0\1' + text, 'no answers in it'),
    'list': (lambda text: '[1, 2]', 'not the JSON'),
    'deep': (lambda text: '{"a":' * 100_000, 'not the JSON'),
    'other study': (lambda text: text.replace('"study": "', '"study": "x'), 'is of study'),
    'no such person': (lambda text: text.replace('"participant": 1', '"participant": 9'),
                       'no participant 9'),
    "another's pairs": (lambda text: text.replace('"participant": 1', '"participant": 2'), ''),
    'no side': (lambda text: text.replace('"chosen": "left"', '"chosen": "both"').replace(
        '"chosen": "right"', '"chosen": "both"'), 'none of them chosen'),
    'swapped': (lambda text: text.replace('"left": "', '"left": "0'), 'not two clips of pair'),
    'no question': (lambda text: text.replace('temporal_alignment', 'taste'), "question 'taste'"),
    'number': (lambda text: text.replace('"participant": 1', '"participant": "one"'), 'no number'),
    'no field': (lambda text: text.replace('"chosen"', '"choosen"'), 'has no chosen')}


@pytest.mark.parametrize('name', DAMAGES)
def test_a_damaged_file_is_one_line_and_counted(study, tmp_path, capsys, name):
  output = study[0]
  damage, said = DAMAGES[name]
  whole = json.dumps(exported(study, 1, lambda *_: True))
  made = damage(whole)
  (tmp_path / 'bad.json').write_bytes(made if isinstance(made, bytes) else made.encode())
  (tmp_path / 'good.json').write_text(json.dumps(exported(study, 3, lambda *_: True)))
  files = [str(tmp_path / 'bad.json'), str(tmp_path / 'good.json')]
  assert user_study.main(['--answers', *files, f'--key={output}/key.json']) == 0
  streams = capsys.readouterr()
  line, = streams.err.splitlines()
  assert line.startswith(f'left out: {files[0]}: ') and said in line
  assert '1 of 3 participants, 1 of 2 files left out' in streams.out


def test_a_participant_counts_once(study, tmp_path, capsys):
  output = study[0]
  for name in ('one', 'two'):
    (tmp_path / f'{name}.json').write_text(json.dumps(exported(study, 1, lambda *_: True)))
  files = [str(tmp_path / 'one.json'), str(tmp_path / 'two.json'), str(tmp_path / 'none.json')]
  assert user_study.main(['--answers', *files, f'--key={output}/key.json']) == 0
  streams = capsys.readouterr()
  for line in ('participant 1 has answered in', 'none.json: cannot be read'):
    assert line in streams.err
  assert '2 of 3 files left out' in streams.out
  assert user_study.main(['--answers', files[2], f'--key={output}/key.json']) == 2
  assert user_study.main(['--answers', files[0], f'--key={files[0]}']) == 2


# In a browser

def marked(page):
  return page.value('[...document.querySelectorAll("#questions input:checked")].map(r => r.value)')


@pytest.mark.slow
@pytest.mark.skipif(chromium.PATH is None, reason='no Chromium is installed')
@pytest.mark.parametrize('width, height, phone', [(1200, 900, False), (390, 844, True)])
def test_a_participant_answers_goes_away_comes_back_and_saves(
    study, tmp_path, width, height, phone):
  output, key, data, _ = study
  url, count = (output / 'page' / 'index.html').as_uri(), len(data['shown'][1])
  with chromium.browser(tmp_path / 'profile') as page:
    page.size(width, height, phone)
    page.open(url)
    page.value('begin(9)')
    assert page.value('of("warning").textContent') == 'Participant numbers go from 1 to 3.'
    page.click('#number')
    page.press('2')
    page.click('#who button')
    assert page.value('of("progress").textContent') == f'Pair 1 of {count}, 0 answered'
    page.wait('of("left").readyState >= 1 && of("right").readyState >= 1')  # both can be decoded
    assert page.value('[of("left").videoWidth, of("right").videoHeight]') == [64, 36]
    page.press('2')
    page.wait('of("right").currentTime > 0 || of("right").ended')
    page.press('1')
    page.wait('of("right").paused && !of("left").paused || of("left").ended')
    page.press('Enter')
    assert page.value('at') == 0  # not before all is answered
    for letter in 'aba':
      page.press(letter)
    page.click('#questions fieldset:last-child label:last-child')
    assert marked(page) == ['left', 'right', 'left', 'right']
    assert page.value('document.documentElement.scrollWidth') <= width  # no sideways scrolling
    page.click('#next')
    page.press('b')
    page.press('Backspace')
    assert page.value('at') == 0 and marked(page) == ['left', 'right', 'left', 'right']

  with chromium.browser(tmp_path / 'profile') as page:  # another day
    page.size(width, height, phone)
    page('Page.setDownloadBehavior', behavior='allow', downloadPath=str(tmp_path))
    page.open(f'{url}?participant=2')
    page.click('#who button')
    assert page.value('Object.keys(answers).length') == 5
    while page.value('of("end").hidden'):
      while page.value('document.querySelector("fieldset.next") !== null'):
        page.press('b')
      if page.value('data.captions[shown[at][0]]'):
        assert page.value('of("caption").textContent') == f'Prompt: {EVIL}'
      page.press('Enter')
    assert page.value('of("progress").textContent').endswith(f'{count} answered')
    assert page.value('document.images.length') == 0  # no caption became a picture
    assert page.value('document.title') == f'Study {data["study"]}'
    votes = []
    for kind in ('json', 'csv'):
      page.click(f'#{kind}')
      path, limit = tmp_path / f'answers-{data["study"]}-2.{kind}', time.monotonic() + 60
      while not path.exists() and time.monotonic() < limit:
        time.sleep(0.05)
      votes.append(user_study_answers.read(path, key))
    assert votes[0] == votes[1] and votes[0][0] == 2 and len(votes[0][1]) == 4 * count
    page.click('summary')
    assert page.value('of("text").value') == path.with_suffix('.json').read_text()
