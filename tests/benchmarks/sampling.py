"""What does a cheaper sampler cost in quality? Settings of `sample` swept, against the paper's.

    python -m tests.benchmarks.sampling TASK [--scale=nano] [--clips=64] [--output=DIR]
        [--direction=audio] [--only='NAME;NAME'] [--against=NAME] [--plot=FILE.svg]
        [--metrics=fad_yamnet --networks=DIR]

TASK is v2a, a2v, joint (with --direction) or av. Each row samples the same clips from the same
noise with the bundled weights and is evaluated as `--mode=evaluate` does. A line has the row's
FLOPs a clip by `--mode=compile`'s count, its seconds (sampling, decoding and writing, with
compilation; whatever else the machine does is in them), and for each score its mean, the 95 %
interval of the mean, and that of the difference to the row `--against` (paper), paired by clip.
With an output, `sweep.json` there keeps the rows, and a row that stands there is not computed
again. The plot shows the first score against FLOPs: rows that differ in their number of steps alone
are a line.
"""

import argparse
import functools
import importlib
import json
import pathlib
import tempfile
import time

import numpy as np

from avlink_jax import compile, flow
from avlink_jax.evaluate import evaluate
from avlink_jax.metrics import bootstrap
from avlink_jax.sample import sample
from avlink_jax.storage.atomic import write_text
from avlink_jax.studies import line_plot
from avlink_jax.training import sharding

SCORES = {'audio': ('event_f1', 'av_align'),
          'video': ('av_align', 'motion_event_f1', 'picture_body'),
          'audio+video': ('av_align', 'picture_body')}
PAPER = {'steps': 64, 'refresh': 1, 'solver': 'euler', 'guidance': 5.0, 'guidance_from': 0.0,
         'guidance_to': 1.0}
ROWS = {'paper': {}}
ROWS |= {f'refresh {k}': {'refresh': k} for k in (4, 16, 64)}
ROWS |= {f'{n} steps': {'steps': n} for n in (32, 16, 8, 4)}
ROWS |= {f'{n} steps, refresh {n}': {'steps': n, 'refresh': n} for n in (16, 8, 4)}
ROWS |= {f'{solver}, {n} steps': {'steps': n, 'solver': solver}
         for solver in ('midpoint', 'heun') for n in (8, 4, 2)}
ROWS |= {f'guidance to {t:g}': {'guidance_to': t} for t in (0.6, 0.3, 0.1)}
ROWS |= {f'guidance from {t:g}': {'guidance_from': t} for t in (0.01, 0.1)}
ROWS |= {f'8 steps, guidance to {t:g}': {'steps': 8, 'guidance_to': t} for t in (0.6, 0.3)}
GUIDANCES = {'paper': {}}  # what tests.benchmarks.overfit compares
GUIDANCES |= {f'guidance {w:g}': {'guidance': w} for w in (1, 1.5, 2, 3)}
GUIDANCES |= {f'guidance to {t:g}': {'guidance_to': t} for t in (0.3, 0.1)}
GUIDANCES['guidance 3 to 0.3'] = {'guidance': 3, 'guidance_to': 0.3}  # nano's
ROWS |= GUIDANCES
ROWS |= {f'{n} steps, refresh {n}, guidance 3 to 0.3': {
    'steps': n, 'refresh': n, 'guidance': 3, 'guidance_to': 0.3} for n in (16, 8, 4)}
THREE = {'guidance': 3}  # of nano's tasks that make video
ROWS |= {f'{n} steps, guidance 3': THREE | {'steps': n} for n in (64, 32, 16, 8)}
ROWS |= {f'{solver}, {n} steps, guidance 3': THREE | {'steps': n, 'solver': solver}
         for solver in ('midpoint', 'heun') for n in (8, 4)}
ROWS |= {f'{n} steps, guidance 3 to {t:g}': THREE | {'steps': n, 'guidance_to': t}
         for n in (64, 16, 8) for t in (0.6, 0.3)}
ROWS |= {f'{n} steps, guidance 3, shift {s}': THREE | {'steps': n, 'shift': {'video': float(s)}}
         for n in (64, 32, 16) for s in (-3, 0)}


def measured(config, settings, options):
  """Row of one setting: its costs, and the scores of each clip."""
  config = config.copy_and_resolve_references()
  config.sample.update(PAPER | settings)
  config.sample.update(count=options.clips, upsample=False, direction=options.direction)
  with tempfile.TemporaryDirectory() as folder:
    began = time.monotonic()
    sample(config, pathlib.Path(folder) / 'no-workdir', output=folder, seed=0)
    seconds = time.monotonic() - began
    scores = evaluate(folder, f'{folder}/reference', metrics=tuple(
        filter(None, options.metrics.split(','))), networks=options.networks)
  return {'settings': settings, 'seconds': seconds, 'flops': flops_of(config),
          'scores': {name: value for name, value in scores.items() if isinstance(value, float)},
          'per_clip': {row['id']: row for row in scores['per_clip']}}


def flops_of(config):
  """FLOPs a clip: of each kind of evaluation as `--mode=compile` counts them, times how many of
  that kind there are."""
  settings, mesh = config.sample, sharding.make_mesh()

  @functools.cache
  def counted(steps, refresh, guidance):
    changed = config.copy_and_resolve_references()
    changed.sample.update(PAPER | dict(steps=steps, refresh=refresh, guidance=guidance))
    job = compile.sampling(changed, mesh)
    return job.model_flops / job.about['clips']

  first = counted(1, 1, 1.0)  # with what is computed once
  whole = kept = counted(2, 1, 1.0) - first
  once = first - whole
  if settings.refresh > 1:
    kept = counted(3, 3, 1.0) - counted(2, 2, 1.0)
    whole = counted(2, 2, 1.0) - kept - once
  bare = counted(1, 1, settings.guidance) - first  # the unconditional pass
  name = (settings.direction or config.generate[0]).split('+')[0]
  grid = np.asarray(flow.time_grid(settings.steps, settings.shift[name]))
  times = {'euler': grid[:-1], 'midpoint': np.stack([grid[:-1], (grid[1:] + grid[:-1]) / 2]),
           'heun': np.concatenate([grid[:-1], grid[1:-1]])}[settings.solver]
  refreshes = times.size if settings.refresh == 1 else -(-settings.steps // settings.refresh)
  guided = np.sum((settings.guidance_from <= times) & (times <= settings.guidance_to))
  return once + refreshes * whole + (times.size - refreshes) * kept + guided * bare


def line(name, row, against, scores):
  """A row's line of text."""
  text = f'{name:24} {row["flops"] / 1e9:9.2f} GFLOP {row["seconds"]:6.1f} s'
  return text + ''.join(shown(row, against, score) for score in scores)


def shown(row, against, score):
  """A score of a row as text, with the intervals of its mean and of the difference to another; one
  of the whole set, as Fréchet distances are, without."""
  if any(score not in clip for clip in row['per_clip'].values()):
    return f'  {score} {row["scores"][score]:.3f}'
  own, theirs = ([rows['per_clip'][clip][score] for clip in against['per_clip']]
                 for rows in (row, against))
  within = bootstrap.intervals({'own': own, 'difference': [
      None if None in pair else pair[0] - pair[1] for pair in zip(own, theirs, strict=True)]})
  return f'  {score} {row["scores"][score]:.3f}' + ''.join(
      f' [{low:{sign}.3f}, {high:{sign}.3f}]'
      for sign, (low, high) in (('', within['own']), ('+', within['difference'])))


def plot(rows, task, score):
  """SVG of a score against FLOPs a clip; a line of all rows whose settings, but for the number of
  steps, are the same."""
  lines = {}
  for row in rows.values():
    settings = PAPER | row['settings']
    steps, refresh = settings.pop('steps'), settings.pop('refresh')
    words = [f'{key.replace("_", " ")} {value}' for key, value in settings.items()
             if value != PAPER.get(key)]
    if refresh > 1:
      words.append('condition once' if refresh >= steps else f'refresh {refresh}')
    interval = bootstrap.intervals({score: [
        clip[score] for clip in row['per_clip'].values()]})[score]
    lines.setdefault(', '.join(words) or 'as the paper', []).append(
        (row['flops'] / 1e9, row['scores'][score], *interval))
  return line_plot.svg([line_plot.Line(name, points) for name, points in lines.items()],
                       title=task, x_label='GFLOP a clip', y_label=score, x_scale='log')


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('task')
  parser.add_argument('--scale', default='nano')
  parser.add_argument('--clips', type=int, default=64)
  parser.add_argument('--direction', default='')
  parser.add_argument('--only', default='')
  parser.add_argument('--against', default='paper')
  parser.add_argument('--metrics', default='')
  parser.add_argument('--networks')
  parser.add_argument('--output', type=pathlib.Path)
  parser.add_argument('--plot', type=pathlib.Path)
  options = parser.parse_args()
  module = importlib.import_module(f'avlink_jax.configs.{options.task}')
  config = module.get_config(options.scale)
  scores = SCORES[options.direction or config.generate[0]]
  scores += tuple(filter(None, options.metrics.split(',')))
  path = options.output and options.output / 'sweep.json'
  rows = json.loads(path.read_text()) if path and path.exists() else {}
  chosen = options.only.split(';') if options.only else list(ROWS)
  for name in dict.fromkeys([options.against, *chosen]):
    if name not in rows:
      rows[name] = measured(config, ROWS[name], options)
      if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(rows))
    print(line(name, rows[name], rows[options.against], scores), flush=True)
  if options.plot:
    title = ' '.join([options.task, options.direction]).strip()
    write_text(options.plot, plot(rows, title, scores[0]))


if __name__ == '__main__':
  main()
