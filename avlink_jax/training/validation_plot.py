"""Plots of a run's validation (validation.py) as SVG files in its workdir.

    loss.svg        training and validation loss by step
    loss_by_t.svg   validation loss by step, a line for each flow time
"""

import json
import pathlib
import re

import numpy as np

from avlink_jax.errors import UserError
from avlink_jax.storage.atomic import write_text
from avlink_jax.storage.console import say
from avlink_jax.studies import line_plot
from avlink_jax.training.validation import GROUPS


def write(workdir):
  """Draws the plots from metrics.jsonl, as far as there is something to draw; without matplotlib
  it says so in a line."""
  workdir = pathlib.Path(workdir)
  rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  validated = [row for row in rows if f'{GROUPS[0]}/loss' in row]
  if not validated:
    return
  try:
    plots = {'loss.svg': (losses(rows, validated), 'Training and validation'),
             'loss_by_t.svg': (by_time(validated), 'Validation by flow time t')}
    for name, (lines, title) in plots.items():
      if lines:
        write_text(workdir / name, line_plot.svg(
            lines, title=title, x_label='step', y_label='loss') + '\n')
  except UserError as error:
    say(f'no plot of the validation: {error}')


def losses(rows, validated):
  """Lines of the training loss, averaged between validations, and of the validation's."""
  steps = [0, *(row['step'] for row in validated)]
  between = [[row['loss'] for row in rows if 'loss' in row and first < row['step'] <= last]
             for first, last in zip(steps, steps[1:], strict=False)]
  training = [(step, float(np.mean(values)), None, None)
              for step, values in zip(steps[1:], between, strict=True) if values]
  return [line_plot.Line('training', training),
          *(line_plot.Line(label, points(validated, f'{group}/loss')) for label, group in zip(
              ('validation', 'validation, raw weights'), GROUPS, strict=True))]


def by_time(validated):
  """A line for each metric and flow time that was validated."""
  names = [name for name in validated[-1] if re.fullmatch(rf'{GROUPS[0]}/\w+/t[\d.]+', name)]
  return [line_plot.Line(name.removeprefix(f'{GROUPS[0]}/').replace('/t', ', t = '),
                         points(validated, name)) for name in names]


def points(rows, name):
  """Points [(step, value, None, None)] of a figure."""
  return [(row['step'], row[name], None, None) for row in rows if name in row]
