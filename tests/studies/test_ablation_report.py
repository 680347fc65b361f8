"""The ablations' report, from made-up scores: exact cells, orderings computed and not written."""

import json
import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from avlink_jax.configs import ablations
from avlink_jax.errors import UserError
from avlink_jax.studies import ablation_report, paper
from avlink_jax.studies import ablation_scores as scores
from avlink_jax.studies.ablation_rows import changes, scored, the_same
from avlink_jax.studies.line_plot import Line, svg

CLIPS = 40


def result(values, control=0.25, **folder_figures):
  """What --mode=evaluate writes, of event_f1 a clip and figures of the whole folder."""
  per_clip = [{'id': f'clip{i}', 'event_f1': v, 'control_event_f1': control,
               'onset_accuracy': v / 2} for i, v in enumerate(values)]
  return {'clips': len(values), 'event_f1': float(np.mean(values)), 'control_event_f1': control,
          'onset_accuracy': float(np.mean(values)) / 2, 'event_recall': 0.5, **folder_figures,
          'intervals': {}, 'per_clip': per_clip}


def spread(mean):
  """Values around a mean, the same clips good and bad in every row."""
  return list(mean + np.linspace(-0.1, 0.1, CLIPS))


def folder_of(root, results, scale='nano', **plan):
  """A folder as launch/ablations.sh leaves it; results {row: {seed: result}}."""
  (root / 'scores').mkdir(parents=True)
  for name, seeds in results.items():
    for seed, made in seeds.items():
      (root / 'scores' / f'{name}-seed_{seed}.json').write_text(json.dumps(made))
  (root / 'plan.json').write_text(json.dumps(
      dict(scale=scale, steps=None, clips=CLIPS, flags=[], left_out={}) | plan))
  return root


@pytest.fixture(scope='module')
def report(tmp_path_factory):
  """Direct alignment is far worse, reinjection makes no difference, cross attention is better; by
  FAD the latter is worse in both seeds."""
  both = lambda a, b, **f: {0: result(spread(a), **f), 1: result(spread(b), **f)}  # noqa: E731
  folder = folder_of(tmp_path_factory.mktemp('report'), {
      'ours': both(0.7, 0.72, fad_yamnet=1.0),
      'direct': both(0.3, 0.3, fad_yamnet=5.0),
      'no_reinjection': {0: result(list(reversed(spread(0.7))), fad_yamnet=0.9),
                         1: result(spread(0.72), fad_yamnet=1.1)},
      'cross_attention': both(0.8, 0.8, fad_yamnet=2.0)},
      left_out={'clip': 'needs CLIP vectors'})
  return folder, ablation_report.write(folder)


def cells(folder, label):
  """Rows of the Markdown report that begin with a label, as lists of cells."""
  lines = (folder / 'report.md').read_text().splitlines()
  return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines
          if line.startswith(f'| {label} |')]


def test_a_row_stands_beside_the_papers(report):
  folder, _ = report
  header = cells(folder, '')[0]
  assert header == ['', 'event_f1 ↑', 'its control', 'paper: Ons. ACC ↑', 'onset_accuracy ↑',
                    'paper: FAD ↓', 'fad_yamnet ↓', 'seeds']
  direct, = cells(folder, 'Direct alignment')
  # The spread of these clips is uniform, ±0.1, of 40: the mean's 95 % are ±0.0184.
  assert direct == ['Direct alignment', '0.300 [0.282, 0.318]', '0.250 [0.250, 0.250]', '0.283',
                    '0.150 [0.141, 0.159]', '8.16', '5.000 {5.000, 5.000}', '0, 1']
  ours = cells(folder, r'Fusion blocks (ours)')[0]
  assert ours[1].startswith('0.710 [') and ours[3] == '0.415' and ours[5] == '4.79'


def test_metrics_without_weights_are_told_once(tmp_path):
  found = {'missing_metrics': {'fad_vggish': 'no weights: get x', 'fd_panns': 'get y'},
           'fad_yamnet': 1.0, 'fad_yamnet_infinity': 0.5}
  folder = folder_of(tmp_path / 'out', {'ours': {0: result(spread(0.7), **found),
                                                 1: result(spread(0.7), **found)}})
  ablation_report.write(folder)
  text = (folder / 'report.md').read_text()
  assert text.count('fad_vggish: no weights: get x. fd_panns: get y.') == 1
  assert 'fad_yamnet ↓' in text and 'infinity' not in text


def test_rows_stand_in_the_papers_order_and_none_is_missing(report):
  folder, _ = report
  text = (folder / 'report.md').read_text()
  labels = [label for part, rows in paper.TABLE_2 for label in (
      f'**{part}**', *(label for label, _, _ in rows))]
  places = [text.index(f'| {label} |') for label in labels]
  assert places == sorted(places)
  assert cells(folder, 'CLIP')[0][-1] == 'left out: needs CLIP vectors'
  assert cells(folder, 'CLIP')[0][1:4] == ['–', '–', '0.386']
  assert cells(folder, 'CAVP')[0][-1] == 'not yet'


def test_orderings_follow_from_the_intervals(report):
  folder, _ = report
  found = {(o['worse'], o['metric']): o
           for o in json.loads((folder / 'report.json').read_text())['orderings']}
  verdicts = {key: o['verdict'] for key, o in found.items()}
  assert verdicts == {
      ('direct', 'event_f1'): 'holds', ('direct', 'onset_accuracy'): 'holds',
      ('direct', 'fad_yamnet'): 'holds',
      ('no_reinjection', 'event_f1'): 'within the interval',
      ('no_reinjection', 'onset_accuracy'): 'within the interval',
      ('no_reinjection', 'fad_yamnet'): 'within the interval',
      ('cross_attention', 'event_f1'): 'does not hold',
      ('cross_attention', 'onset_accuracy'): 'does not hold',
      ('cross_attention', 'fad_yamnet'): 'holds'}
  direct = found['direct', 'event_f1']
  assert [direct[key] for key in ('difference', 'low', 'high')] == pytest.approx([0.41] * 3)
  assert direct['by_seed'] == pytest.approx([0.4, 0.42])  # paired: the clips' spread is not in it
  assert found['direct', 'fad_yamnet']['difference'] == 4.0  # lower is better
  assert found['direct', 'onset_accuracy']['paper'] == '0.415 > 0.283'
  assert found['direct', 'fad_yamnet']['paper'] == '4.79 < 8.16'


def test_where_the_papers_own_figure_says_otherwise_that_is_the_ordering(tmp_path):
  """After Block-1 has the better onset accuracy in Table 2."""
  folder = folder_of(tmp_path, {'ours': {0: result(spread(0.5))},
                                'after_1': {0: result(spread(0.6))}})
  ablation_report.write(folder)
  found = json.loads((folder / 'report.json').read_text())['orderings']
  assert {o['metric']: (o['expected'], o['verdict']) for o in found} == {
      'event_f1': (1, 'does not hold'), 'onset_accuracy': (-1, 'holds')}


def test_figures_are_drawn_from_the_sweeps(tmp_path):
  times = {f'time_{t:g}': {0: result(spread(t / 2))} for t in ablations.TIMES if t != 0.96}
  folder = folder_of(tmp_path, times | {'uniform_time': {0: result(spread(0.48))}})
  losses = folder / 'runs' / 'location_0-seed_0'
  losses.mkdir(parents=True)
  (losses / 'metrics.jsonl').write_text(''.join(
      json.dumps({'step': step, 'loss': 1 / step}) + '\n' for step in range(20, 1601, 20))
      + '{"step": 16')
  page = ablation_report.write(folder).read_text()
  drawn = (folder / 'figures' / 'fig3_v2a.svg').read_text()
  # event_f1 and onset_accuracy; t = 0.96 is uniform_time
  assert len(marks(drawn)) == 2 * 12 and drawn in page
  assert 'location 0' in (folder / 'figures' / 'fig6.svg').read_text()


def test_damaged_scores_are_told_in_one_line(tmp_path):
  folder = folder_of(tmp_path, {'ours': {0: result(spread(0.5))}})
  (folder / 'scores' / 'direct-seed_0.json').write_text('{"clips": 3')
  with pytest.raises(UserError, match='direct-seed_0.json: not what --mode=evaluate writes'):
    ablation_report.write(folder)
  with pytest.raises(UserError, match='no results of launch/ablations.sh'):
    ablation_report.write(tmp_path / 'nowhere')


def test_what_was_given_is_no_score():
  every = dict.fromkeys(['event_f1', 'event_recall', 'onset_accuracy', 'onset_f1', 'av_align',
                         'motion_event_f1', 'control_event_f1', 'reference_event_f1', 'clips',
                         'clips_with_events', 'fad_yamnet', 'fvd_i3d', 'ib_av', 'new_one'], 0.5)
  assert scores.metrics([every], 'audio') == [
      'event_f1', 'onset_accuracy', 'av_align', 'fad_yamnet', 'ib_av', 'new_one']
  assert scores.metrics([every], 'video') == [
      'motion_event_f1', 'av_align', 'fvd_i3d', 'ib_av', 'new_one']


def test_an_interval_over_clips_does_not_shrink_with_copies_of_the_seed():
  one = {0: result(spread(0.5))}
  copies = {seed: result(spread(0.5)) for seed in range(9)}
  alone, many = (scores.estimate(seeds, 'event_f1') for seeds in (one, copies))
  assert (alone['low'], alone['high']) == pytest.approx((many['low'], many['high']))
  assert list(many['seeds'].values()) == [pytest.approx(0.5)] * 9


def test_only_clips_and_seeds_that_both_have_are_compared():
  one = {0: result(spread(0.5)), 7: result(spread(0.9))}
  other = {0: result(spread(0.4)[:10]), 3: result(spread(0.0))}
  compared = scores.compare(one, other, 'event_f1')
  assert compared['seeds'] == [0] and compared['difference'] == pytest.approx(0.1)
  assert scores.compare(one, {3: other[3]}, 'event_f1') is None


@pytest.mark.parametrize('low, high, expected, told', [
    (0.1, 0.2, 1, 'holds'), (0.1, 0.2, -1, 'does not hold'), (-0.2, -0.1, 1, 'does not hold'),
    (-0.2, -0.1, -1, 'holds'), (-0.1, 0.1, 1, 'within the interval'),
    (0.0, 0.1, 1, 'within the interval'), (None, None, 1, 'within the interval'),
    (0.1, 0.2, 0, 'equal in the paper')])
def test_a_verdict(low, high, expected, told):
  assert scores.verdict(low, high, expected, [low or 0]) == told


def test_a_seed_that_says_the_opposite_leaves_an_ordering_open():
  one = {0: result(spread(0.9)), 1: result(spread(0.4))}
  other = {0: result(spread(0.5)), 1: result(spread(0.5))}
  compared = scores.compare(one, other, 'event_f1')
  assert compared['low'] > 0 and compared['verdict'] == 'within the interval'


def test_rows_that_are_the_same_are_trained_once():
  assert the_same('guidance_5', 'paper') == the_same('steps_64', 'nano') == 'ours'
  assert the_same('location_-2.5', 'nano') == 'ours' == the_same('location_-1', 'paper')
  assert the_same('time_0.96', 'nano') == 'uniform_time'
  assert the_same('time_0.8_a2v', 'nano') == 'uniform_time_a2v'
  assert the_same('direct', 'nano') == 'direct'
  assert not scored('ours_joint', 'nano') and scored('joint_a2v', 'nano')
  assert changes('direct', 'nano') == {'fusion.injection': ('fusion', 'add')}


def test_the_papers_table_names_each_row_once_and_no_other():
  named = [name for _, rows in paper.TABLE_2 for _, name, _ in rows]
  assert set(named) == set(ablations.GROUPS['table2'])
  assert sorted(name for name in named if name != 'ours') == sorted(set(named) - {'ours'})


# -- line plots

def marks(drawn):
  """Heights of a drawing's coloured marks, in order, without the legend's."""
  lines = drawn[:drawn.index('id="legend_1"')]
  return [float(y) for y in re.findall(r'<use [^>]* y="([\d.]+)" style="fill: #(?!000000)', lines)]


def test_a_plot_escapes_its_words_and_stands_without_points():
  drawn = svg([Line('<script> $1', [(0, 1, 0.5, 2), (1, 3, None, None)])], title='a & b',
              x_label='x', y_label='y')
  words = {''.join(text.itertext()) for text in ElementTree.fromstring(drawn).iter(
      '{http://www.w3.org/2000/svg}text')}
  assert {'<script> $1', 'a & b', 'x', 'y'} <= words
  assert svg([], title='t', x_label='x', y_label='y').startswith('<svg')


def test_a_plot_is_the_same_file_each_time_and_marks_no_long_curve():
  lines = [Line('one', [(x, x * x, None, None) for x in range(9)]),
           Line('chance', [(x, 1, None, None) for x in range(9)], dashed=True),
           Line('long', [(x, x, None, None) for x in range(100)])]
  one, other = (svg(lines, title='t', x_label='x', y_label='y') for _ in range(2))
  assert one == other
  assert marks(one) == sorted(marks(one), reverse=True) and len(marks(one)) == 9


def test_without_matplotlib_a_report_says_which_extra_in_a_line(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  folder = folder_of(tmp_path, {'ours': {0: result(spread(0.5))}})
  with pytest.raises(UserError, match=r'pip install matplotlib .the extra .studies.') as caught:
    ablation_report.write(folder)
  assert '\n' not in str(caught.value)
