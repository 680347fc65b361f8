"""Trains, samples and scores the rows of configs/ablations.py, and writes one report of them.

    python -m avlink_jax.studies.ablations --scale=nano [--seeds=0,1] [--steps=N]
        [--only=NAME,GROUP,...] [--output=DIR] [--jobs=2] [--clips=64]
        [--features=clip=DIR,cavp=DIR] [--metrics=fad_yamnet,...] [--networks=DIR]
        [--config.KEY=VALUE ...] [--dry-run]

Every row has the same steps (of a joint one, twice as many: half of its examples go each way), the
same examples in the same order for the same seed, and is scored on the same clips from the same
noise. Each piece of work is a process of its own, and leaves a note in DIR/done when it has ended
well: the same command again does what is left, a training from its newest checkpoint on. SIGINT or
SIGTERM ends it like that (status 75). With other --metrics, or weights that were missing before,
rows are scored again where they lack some; nothing is trained or sampled again for that.

    DIR/runs/NAME-seed_S  workdirs     DIR/samples/…  clips     DIR/scores/….json     DIR/logs/….log
    DIR/report.md, report.html, report.json, figures/
"""

import argparse
import collections
import json
import os
import pathlib
import shlex
import sys

from avlink_jax.configs import ablations, common
from avlink_jax.errors import MISTAKE, PREEMPTED, UserError
from avlink_jax.storage.atomic import write_text
from avlink_jax.storage.console import say
from avlink_jax.studies import ablation_report, ablation_scores, line_plot
from avlink_jax.studies.ablation_rows import generated, scored, settings, the_same
from avlink_jax.studies.jobs import Job, Queue
from avlink_jax.training.resilience.lock import only_run

PLAN = 'plan.json'


def selected_rows(only):
  """Names of the rows in --only, listed by themselves or by their group; all of them for ''."""
  names = []
  for text in filter(None, (only or ','.join(ablations.GROUPS)).split(',')):
    if text not in ablations.GROUPS and text not in ablations.ROWS:
      raise UserError(f'--only={text}: no such row; groups are {", ".join(ablations.GROUPS)}, rows '
                      'stand in configs/ablations.py')
    names += ablations.GROUPS.get(text, [text])
  return list(dict.fromkeys(names))


def feature_folders(text, source):
  """Parses --features: {'clip': folder, ...}. Raises UserError: clips differ from the source's."""
  folders = {}
  for part in filter(None, (text or '').split(',')):
    kind, _, folder = part.partition('=')
    if kind not in ('clip', 'cavp') or not folder:
      raise UserError(f'--features={part}: write clip=FOLDER or cavp=FOLDER')
    if not source or not pathlib.Path(source).is_dir():
      raise UserError('--features: the other rows must learn from the same clips: give them as '
                      '--config.data.source=FOLDER')
    if clips_in(folder) != clips_in(source):
      raise UserError(f'--features={part}: not the clips of {source}, so that the row could not be '
                      'compared')
    folders[kind] = folder
  return folders


def clips_in(folder):
  """Relative names of a folder's files, except feature vectors."""
  root = pathlib.Path(folder)
  return {path.relative_to(root) for path in root.rglob('*')
          if path.is_file() and path.suffix != '.npz'}


def budget(config, steps):
  """Flags for `steps` a direction, with the decay in proportion; None: the config's own."""
  if steps is None:
    return []
  total = steps * len(config.generate)
  decay = round(total * config.train.decay_steps / config.train.steps)
  return [f'--config.train.steps={total}', f'--config.train.decay_steps={decay}']


def plan(options, flags):
  """Jobs of the command line: ([Job], {row: reason why it is not run})."""
  jobs, left_out = {}, {}
  folders = feature_folders(options.features, last_value(flags, 'data.source'))
  for seed in options.seeds:
    for name in dict.fromkeys(the_same(row, options.scale) for row in options.rows):
      base = the_same(ablations.trained(name), options.scale)
      width, more = ablations.get_config(f'{base}:{options.scale}').towers.video.features, flags
      if width:
        kind = base.split('_')[0]
        if kind not in folders:
          left_out[name] = (f'needs {kind.upper()} vectors of {width} numbers, an .npz beside each '
                            f'clip: --features={kind}=FOLDER')
          continue
        more = [*flags, f'--config.data.source={folders[kind]}']
      for job in row_jobs(name, base, seed, options, more):
        jobs.setdefault(job.key, job)
  return list(jobs.values()), left_out


def row_jobs(name, base, seed, options, flags):
  """Jobs of a row: training (of `base`, whose weights it has), clips, scores."""
  output, config = pathlib.Path(options.output), ablations.get_config(f'{base}:{options.scale}')
  run, row = f'{base}-seed_{seed}', f'{name}-seed_{seed}'
  shared = [*flags, f'--config.seed={seed}', f'--workdir={output / "runs" / run}']
  steps = budget(config, options.steps)
  train = Job(f'{run}.train', None,
              int(last_value([*flags, *steps], 'train.steps') or config.train.steps),
              [f'--config=configs/ablations.py:{base}:{options.scale}', *shared, *steps,
               # Its own samples are only to be looked at.
               '--config.sample.count=2', '--config.checkpoint.keep=2'])
  if not scored(name, options.scale):
    return [train]
  samples = output / 'samples' / row
  sample = Job(f'{row}.sample', train.key, options.clips,
               [f'--config=configs/ablations.py:{name}:{options.scale}', *shared, '--mode=sample',
                f'--output={samples}', f'--config.sample.count={options.clips}', '--seed=0'])
  uninformative = ablation_scores.UNINFORMATIVE[generated(name, options.scale)]
  metrics = [metric for metric in options.metrics if not metric.startswith(uninformative)]
  evaluate = Job(f'{row}.evaluate', sample.key, options.clips,
                 ['--mode=evaluate', f'--generated={samples}',
                  f'--reference={samples / "reference"}',
                  f'--output={output / "scores" / row}.json',
                  *([f'--metrics={",".join(metrics)}'] if metrics else []),
                  *([f'--networks={options.networks}'] if metrics and options.networks else [])],
                 tuple(metric for metric in metrics if metric not in options.missing))
  return [train, sample, evaluate]


def last_value(flags, key):
  """Value of the last --config.KEY=VALUE; '' where there is none."""
  values = [flag.partition('=')[2] for flag in flags if flag.startswith(f'--config.{key}=')]
  return values[-1] if values else ''


def check_plan(options, flags, left_out):
  """Writes DIR/plan.json. Raises UserError where the folder holds results of other settings."""
  path = pathlib.Path(options.output) / PLAN
  settings = dict(scale=options.scale, steps=options.steps, clips=options.clips,
                  flags=sorted(flags))
  if path.exists():
    old = json.loads(path.read_text())
    differing = [f'{key}: {old.get(key)!r} -> {value!r}' for key, value in settings.items()
                 if old.get(key) != value]
    if differing:
      raise UserError(f'{options.output} was begun with other settings ({"; ".join(differing)}): '
                      'give the old ones to go on, or another --output')
    left_out = old['left_out'] | left_out  # of rows that were asked for before
  write_text(path, json.dumps(settings | {'left_out': left_out}, indent=1) + '\n')


def read_flags(argv):
  """Parses (options, flags passed on to the runs). Raises UserError."""
  parser = argparse.ArgumentParser(
      prog='launch/ablations.sh', allow_abbrev=False, description=__doc__.split('\n\n')[0],
      epilog='--config.KEY=VALUE is handed on to every run.')
  parser.add_argument('--scale', required=True, choices=common.SCALES)
  parser.add_argument('--seeds', default='0,1', help='of weights and examples: 0,1')
  parser.add_argument('--steps', type=int, help='of training, a direction; default: the config\'s')
  parser.add_argument('--only', help='rows, or groups: ' + ', '.join(ablations.GROUPS))
  parser.add_argument('--output', help='default: runs/ablations-SCALE')
  parser.add_argument('--jobs', type=int, default=1, help='at a time; of several, a core each')
  parser.add_argument('--clips', type=int, default=64, help='that are scored')
  parser.add_argument('--features', help='clip=FOLDER,cavp=FOLDER: clips with vectors beside them')
  parser.add_argument('--metrics', help='through networks, besides the others, with commas, or all')
  parser.add_argument('--dry-run', action='store_true', help='print the commands instead')
  parser.add_argument('--networks', help='folder with their weights (default: $AVLINK_WEIGHTS)')
  options, flags = parser.parse_known_args(argv)
  for flag in flags:
    if not (flag.startswith('--config.') and '=' in flag):
      parser.error(f'unknown option {flag}')
  ablated = {key for _, changes in ablations.ROWS.values() for key in changes} | {'seed'}
  if taken := ablated & {flag[len('--config.'):].partition('=')[0] for flag in flags}:
    raise UserError(f'--config.{min(taken)} is what some of the rows change: leave it out')
  try:
    options.seeds = list(dict.fromkeys(int(seed) for seed in options.seeds.split(',')))
  except ValueError:
    raise UserError(f'--seeds={options.seeds}: give whole numbers, such as 0,1') from None
  if min(options.jobs, options.clips, options.steps or 1) < 1:
    raise UserError('--jobs, --clips and --steps begin at 1')
  # The processes work in the project's folder, wherever this one was started.
  options.output = os.path.abspath(options.output or f'runs/ablations-{options.scale}')
  options.rows = selected_rows(options.only)
  check_vocoder(options.rows, options.scale, flags)
  options.metrics, options.missing, options.networks = parse_metrics(
      options.metrics, options.networks)
  return options, flags


def check_vocoder(rows, scale, flags):
  """Raises UserError: some rows make sound and nothing says through which vocoder, which sampling
  would ask for after all the training."""
  if not last_value(flags, 'sample.vocoder') and any(
      scored(row, scale) and 'audio' in generated(row, scale).split('+')
      and not settings(row, scale)['sample.vocoder'] for row in rows):
    raise UserError(f'--scale={scale} has no vocoder: give --config.sample.vocoder=…, a workdir of '
                    'configs/vocoder.py, or griffin_lim')


def parse_metrics(text, folder):
  """Parses --metrics and --networks: (names, {name: how to get missing weights}, their folder).
  Raises UserError."""
  if not text:
    return (), {}, None
  from avlink_jax.metrics import network_metrics  # here, since it brings JAX along
  from avlink_jax.metrics.networks import loading
  names, folder = network_metrics.choose(text), loading.folder_of(folder)
  return names, network_metrics.missing(names, folder), folder and os.path.abspath(folder)


def run(argv):
  """Runs the ablations; exit status 0 all done, 1 some of it failed, 75 interrupted."""
  options, flags = read_flags(argv)
  jobs, left_out = plan(options, flags)
  if options.dry_run:
    for job in jobs:
      print(shlex.join(['python', '-m', 'avlink_jax.main', *job.arguments]))
    return 0
  line_plot.library()  # so that it is reported now, not at the end
  pathlib.Path(options.output).mkdir(parents=True, exist_ok=True)
  with only_run(options.output):
    check_plan(options, flags, left_out)
    queue = Queue(jobs, options.output)
    counts = collections.Counter(job.kind for job in jobs)
    say(f'{counts["train"]} trainings and {counts["evaluate"]} scored rows in {options.output}; '
        f'{len(queue.done)} of {len(jobs)} pieces of work are done')
    for name, reason in left_out.items():
      say(f'{name} is left out: {reason}')
    for reason in dict.fromkeys(options.missing.values()):
      names = [name for name in options.missing if options.missing[name] == reason]
      say(f'{", ".join(names)} will be missing: {reason}')
    interrupted = queue.run(options.jobs)
    report = ablation_report.write(options.output)
  for key, reason in queue.failed.items():
    say(f'failed: {key}: {reason}')
  say(f'{len(queue.done)} of {len(jobs)} pieces of work are done, {len(queue.failed)} failed. '
      f'The report: {report}')
  if interrupted:
    say('interrupted: the same command goes on')
    return PREEMPTED
  return 1 if queue.failed else 0


def main(argv=None):
  try:
    return run(argv)
  except UserError as error:
    say(f'ablations: {error}')
    return MISTAKE


if __name__ == '__main__':
  sys.exit(main())
