"""Report of launch/ablations.sh: the paper's tables beside ours, orderings, figures.

    python -m avlink_jax.studies.ablation_report DIR

Writes DIR/report.md, report.html, report.json and figures/, from what is in DIR by now: a row that
is not there yet says so.
"""

import collections
import json
import pathlib
import sys

from avlink_jax.configs import ablations
from avlink_jax.errors import MISTAKE, UserError
from avlink_jax.storage.atomic import write_text
from avlink_jax.studies import ablation_scores as scores
from avlink_jax.studies import document, paper
from avlink_jax.studies.ablation_rows import changes, generated, the_same
from avlink_jax.studies.document import Figure, Heading, Table, Text
from avlink_jax.studies.line_plot import Line, svg

HOW = ('Cells: the mean over clips of each clip\'s mean over the seeds, and its 95 % interval '
       '(bootstrap over clips; a drawn clip brings all its seeds, so the spread between trainings '
       'is not in it: see the seeds\' own means). {lowest, highest}: of a whole folder\'s figure, '
       'over the seeds. Control: the same clips against other clips\' references, what luck gives. '
       '↑ the higher the better, ↓ the lower.')
ORDERINGS = ('Differences are signed so that above 0 the first is the better, paired by clip over '
             'the seeds that both rows have. An ordering holds, or does not, where the interval '
             'and each seed\'s own difference lie on one side of 0. The paper\'s ordering is that '
             'of its own figure for the column where it has one, else what its text says '
             '(4.4, D.1).')
LOSSES = ('Losses under different laws of t measure different things, so that the height of these '
          'lines cannot be compared, only how they fall; the orderings above go by the scores.')
BINS = 40  # of a loss curve
TEXT_ORDERINGS = (  # what the paper says of pairs without a figure: part, better, worse
    ('Fig. 3, V2A: conditioning time', 'time_0.9', 'time_0.1'),
    ('Fig. 3, V2A: conditioning time', 'time_0.9', 'time_0.5'),
    ('Fig. 3, V2A: conditioning time', 'time_0.96', 'time_1'),
    ('Fig. 3, A2V: conditioning time', 'time_0.8_a2v', 'time_0.1_a2v'),
    ('Fig. 3, A2V: conditioning time', 'time_0.8_a2v', 'time_0.5_a2v'),
    ('Fig. 3, A2V: conditioning time', 'time_0.8_a2v', 'time_1_a2v'),
    ('Fig. 6: location of the law of t', 'location_-1', 'location_0'))
JOINT_ORDERINGS = (('Separate or shared weights, V2A', 'ours', 'joint_v2a'),
                   ('Separate or shared weights, A2V', 'ours_a2v', 'joint_a2v'))


class Report:
  """Results in DIR, and the blocks and figures of the report."""

  def __init__(self, folder):
    self.folder = pathlib.Path(folder)
    try:
      self.plan = json.loads((self.folder / 'plan.json').read_text())
    except (OSError, ValueError) as error:
      raise UserError(f'{folder}: no results of launch/ablations.sh ({error})') from None
    self.scale = self.plan['scale']
    self.results = scores.read(folder)
    self.figures = []

  def of(self, name):
    """Mapping {seed: result} of a row; {} if there is none yet."""
    return self.results.get(the_same(name, self.scale), {})

  def names(self, rows):
    """Metrics to be shown for rows, by the modality that these generate."""
    modality = generated(rows[0], self.scale)
    return scores.metrics([r for row in rows for r in self.of(row).values()], modality)

  def cells(self, row, names, figures=None):
    """Cells of a row: the paper's, if `figures` {column: figure} has one, ours, the control's."""
    cells, columns = [], set()
    for name in names:
      column = column_of(name)
      if figures is not None and column and column not in columns:
        columns.add(column)
        cells.append(f'{figures[column]:g}' if column in figures else '–')
      cells.append(show(scores.estimate(self.of(row), name)))
      if self.has_control(name):
        cells.append(show(scores.estimate(self.of(row), scores.CONTROL + name)))
    return cells

  def header(self, names, with_paper=True):
    header, columns = [], set()
    for name in names:
      column, arrow = column_of(name), '↑' if scores.better(name) > 0 else '↓'
      if with_paper and column and column not in columns:
        columns.add(column)
        header.append(f'paper: {column} {arrow}')
      header.append(f'{name} {arrow}')
      if self.has_control(name):
        header.append('its control')
    return header

  def has_control(self, name):
    return any(scores.CONTROL + name in result for seeds in self.results.values()
               for result in seeds.values())

  def note(self, row):
    """Text with a row's seeds, or the reason why it has none."""
    if seeds := self.of(row):
      return ', '.join(map(str, sorted(seeds)))
    reason = self.plan['left_out'].get(the_same(row, self.scale))
    return f'left out: {reason}' if reason else 'not yet'

  def table(self, parts, figures):
    """Table of [(part, [(label, row)])] with the paper's `figures` {row: {column: x}}, if any."""
    names = self.names([row for _, rows in parts for _, row in rows])
    header = ['', *self.header(names, figures is not None), 'seeds']
    rows = []
    for part, members in parts:
      rows.append([part])
      rows += [[label, *self.cells(row, names, figures and figures.get(row, {})), self.note(row)]
               for label, row in members]
    return Table(header, rows)

  def seeds_table(self):
    """Table of each seed's means of the main metrics."""
    rows = []
    for name in dict.fromkeys(the_same(row, self.scale) for row in ablations.ROWS):
      for metric in scores.MAIN[generated(name, self.scale)]:
        if estimate := scores.estimate(self.of(name), metric):
          rows.append([name, metric, ', '.join(
              f'seed {seed}: {value:.3f}' for seed, value in sorted(estimate['seeds'].items()))])
    return Table(['row', 'figure', 'each seed\'s mean'], rows)

  def orderings(self):
    """List of dicts: part, better, worse, metric, paper, expected, and scores.compare's result."""
    pairs = [(part, 'ours', row, paper.table_2()) for part, rows in paper.TABLE_2
             for _, row, _ in rows if row != 'ours']
    pairs += [(*pair, paper.joint()) for pair in JOINT_ORDERINGS]
    pairs += [(*pair, {}) for pair in TEXT_ORDERINGS]
    orderings = []
    for part, one, other, figures in pairs:
      if the_same(one, self.scale) == the_same(other, self.scale):
        continue
      for name in self.names([one, other]):
        column = column_of(name)
        two = [figures.get(row, {}).get(column) for row in (one, other)]
        source, expected = 'text', 1
        if None not in two:
          expected = scores.better(name) * ((two[0] > two[1]) - (two[0] < two[1]))
          source = f'{two[0]:g} {"<=>"[(two[0] > two[1]) - (two[0] < two[1]) + 1]} {two[1]:g}'
        if compared := scores.compare(self.of(one), self.of(other), name, expected):
          orderings.append(dict(part=part, better=one, worse=other, metric=name, paper=source,
                                expected=expected, **compared))
    return orderings

  def sweep(self, file, rows, title, x_label):
    """Figure of {x: row}: the main figures, with intervals, and their controls, dashed."""
    modality, lines = generated(next(iter(rows.values())), self.scale), []
    for metric in scores.MAIN[modality]:
      for name, label, dashed in ((metric, metric, False),
                                  (scores.CONTROL + metric, 'its control', True)):
        points = [(x, e['mean'], *((None, None) if dashed else (e['low'], e['high'])))
                  for x, row in rows.items() if (e := scores.estimate(self.of(row), name))]
        lines.append(Line(label, points, dashed))
    return self.figure(file, svg(lines, title=title, x_label=x_label, y_label='mean over clips'),
                       title)

  def losses(self):
    """Figure of the training losses of the rows of Fig. 6, means of a few steps over the seeds."""
    lines = []
    for name in ('ours', *ablations.GROUPS['fig6']):
      if name != 'ours' and the_same(name, self.scale) == 'ours':
        continue
      where = ablations.get_config(f'{name}:{self.scale}').flow.location.audio
      label = f'location {where:g}' + (' (ours)' if name == 'ours' else '')
      lines.append(Line(label, binned(self.loss_rows(name))))
    return self.figure('fig6.svg', svg(lines, title='Training loss (Fig. 6)', x_label='step',
                                       y_label='loss under its own law of t'), 'Loss against step')

  def loss_rows(self, name):
    """List [(step, loss)] of all seeds of a row."""
    rows = []
    for path in sorted((self.folder / 'runs').glob(f'{name}-seed_*/metrics.jsonl')):
      lines = path.read_text().splitlines(keepends=True)
      complete = [json.loads(line) for line in lines if line.endswith('\n')]  # it may be running
      rows += [(row['step'], row['loss']) for row in complete if 'loss' in row]
    return rows

  def figure(self, file, drawn, alt):
    self.figures.append((file, drawn))
    return Figure(f'figures/{file}', drawn, alt)


def binned(rows):
  """Averages [(step, loss)] over equal intervals of steps, at most BINS."""
  if not rows:
    return []
  width = max(max(step for step, _ in rows) / BINS, 1)
  groups = collections.defaultdict(list)
  for step, loss in rows:
    groups[int((step - 1) // width)].append((step, loss))
  return [(sum(s for s, _ in group) / len(group), sum(x for _, x in group) / len(group), None, None)
          for _, group in sorted(groups.items())]


def column_of(name):
  """Column of the paper that corresponds to a metric of ours, or None."""
  return next((column for column, begin in paper.COLUMNS.items() if name.startswith(begin)), None)


def show(estimate):
  """Text of an estimate with its interval."""
  if estimate is None:
    return '–'
  if estimate['low'] is None:
    return number(estimate['mean'])
  left, right = '[]' if estimate['of'] == 'clips' else '{}'
  low, high = number(estimate['low']), number(estimate['high'])
  return f'{number(estimate["mean"])} {left}{low}, {high}{right}'


def number(value, sign=''):
  """Formats a number with three decimals, or four significant digits from 10 on."""
  return f'{value:{sign}.3f}' if abs(value) < 10 else f'{value:{sign}.4g}'


def orderings_blocks(orderings):
  """Blocks with the table of orderings, and counts of verdicts for each metric."""
  rows, part = [], None
  for o in orderings:
    if o['part'] != part:
      part = o['part']
      rows.append([part])
    bounds = '' if o['low'] is None else f' [{number(o["low"], "+")}, {number(o["high"], "+")}]'
    rows.append([f'{o["better"]} against {o["worse"]}', o['metric'], o['paper'],
                 f'{number(o["difference"], "+")}{bounds}', o['verdict']])
  counts = {}
  for o in orderings:
    counts.setdefault(o['metric'], collections.Counter())[o['verdict']] += 1
  kinds = [scores.HOLDS, scores.FAILS, scores.OPEN, scores.EQUAL]
  return [Text(ORDERINGS), Table(['', *kinds], [
      [metric, *(str(count[kind]) for kind in kinds)] for metric, count in counts.items()]),
          Table(['rows', 'figure', 'the paper', 'difference', 'the paper\'s ordering'], rows)]


def blocks(report):
  """Blocks of the document, and its orderings."""
  plan, scale = report.plan, report.scale
  steps = plan['steps'] or 'Each task\'s own'
  ordered = report.orderings()
  v2a = [(part, [(label, row) for label, row, _ in rows]) for part, rows in paper.TABLE_2]
  joint_v2a = [('Video to audio (Table 1)', [('Shared (Ours-Joint)', 'joint_v2a'),
                                             ('Separate (ours)', 'ours')])]
  joint_a2v = [('Audio to video (Table 3)', [('Shared (Ours-Joint)', 'joint_a2v'),
                                             ('Separate (ours)', 'ours_a2v')])]
  missing = [column for column in paper.VGGSOUNDS if column not in {
      column_of(name) for name in report.names(['ours'])}]
  times = {suffix: {t: f'time_{t:g}{suffix}' for t in ablations.TIMES} for suffix in ('', '_a2v')}
  after = lambda group: {float(name.rpartition('_')[2]): name  # noqa: E731
                         for name in ablations.GROUPS[group]}
  differing = [[name, '; '.join(f'{key}: {old!r} → {new!r}'
                                for key, (old, new) in differences.items())]
               for name in ablations.ROWS if ablations.trained(name) == name
               and (differences := changes(name, scale))]
  return [
      Heading(f'The paper\'s ablations at scale {scale}', 1),
      Text(f'{steps} training steps'
           + (' a direction' if plan['steps'] else
              f' (V2A: {ablations.get_config(f"ours:{scale}").train.steps})')
           + f', {plan["clips"]} held-out clips, the same examples in the same order for the same '
           'seed, one noise for all rows.'
           + (f' Given to all: {" ".join(plan["flags"])}.' if plan['flags'] else '')),
      Text(HOW),
      Heading('Table 2'),
      Text('The paper\'s figures are its VGGSounds columns. ' + (
          f'Not measured here: {", ".join(missing)}. ' if missing else '') + ' '.join(
              f'{", ".join(names)}: {why}.' for why, names in scores.missing(
                  result for row in report.results.values() for result in row.values()).items())),
      report.table(v2a, paper.table_2()),
      Heading('Orderings'), *orderings_blocks(ordered),
      Heading('Separate or shared weights (Tables 1 and 3)'),
      report.table(joint_v2a, paper.joint()), report.table(joint_a2v, paper.joint()),
      Heading('Fig. 3: time of what conditions'),
      Text('One model for each direction, trained with uniform times, sampled at each.'),
      report.sweep('fig3_v2a.svg', times[''], 'V2A at each t of the video (Fig. 3)',
                   't of the video'),
      report.sweep('fig3_a2v.svg', times['_a2v'], 'A2V at each t of the audio (Fig. 3)',
                   't of the audio'),
      Heading('Fig. 6: the law of t'), Text(LOSSES), report.losses(),
      report.table([('Location of the law of t', [(f'location {x:g}', row)
                                                  for x, row in after('fig6').items()])], None),
      Heading('Guidance and number of steps'),
      report.sweep('guidance.svg', after('guidance'), 'Guidance (C.2)', 'weight'),
      report.sweep('steps.svg', after('steps'), 'Euler steps (C.2)', 'steps'),
      Heading('Each seed'), report.seeds_table(),
      Heading('What each row changes'),
      Text('Against ours of the same direction, from the configs.'),
      Table(['row', 'key: ours → its own'], differing)], ordered


def write(folder):
  """Writes the report; returns the path of its page. Raises UserError."""
  report = Report(folder)
  document_blocks, ordered = blocks(report)
  for file, drawn in report.figures:
    write_text(report.folder / 'figures' / file, drawn)
  write_text(report.folder / 'report.md', document.markdown(document_blocks))
  page = report.folder / 'report.html'
  write_text(page, document.page(document_blocks, f'Ablations, {report.scale}'))
  write_text(report.folder / 'report.json', json.dumps({
      'plan': report.plan, 'orderings': ordered, 'paper': paper.table_2() | paper.joint(),
      'rows': {name: {
          metric: scores.estimate(seeds, metric)
          for metric in next(iter(seeds.values()))
          if isinstance(next(iter(seeds.values()))[metric], float)}
          for name, seeds in report.results.items()}}, indent=1) + '\n')
  return page


if __name__ == '__main__':
  try:
    print(write(sys.argv[1] if len(sys.argv) == 2 else 'runs/ablations-nano'))
  except UserError as error:
    print(f'ablation_report: {error}', file=sys.stderr)
    sys.exit(MISTAKE)
