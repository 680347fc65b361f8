"""Trains, samples and scores the rows of configs/ablations.py, and writes one report of them.

    python -m avlink_jax.studies.ablations --scale=nano [--seeds=0,1] [--steps=N]
        [--only=NAME,GROUP,...] [--output=DIR] [--jobs=2] [--clips=64]
        [--features=clip=DIR,cavp=DIR] [--metrics=fad_yamnet,...] [--networks=DIR]
        [--config.KEY=VALUE ...]

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
import sys

from avlink_jax.errors import MISTAKE, PREEMPTED, UserError
from avlink_jax.storage.atomic import write_text
from avlink_jax.studies import ablation_report, ablation_scores, line_plot
from avlink_jax.studies.ablation_rows import generated, scored, the_same
from avlink_jax.studies.jobs import Job, Queue
from avlink_jax.training.resilience.lock import only_run
from configs import ablations, common

PLAN = 'plan.json'


def chosen(only):
  """Names of rows that --only lists, by themselves or by their group; all of them for ''."""
  names = []
  for told in filter(None, (only or ','.join(ablations.GROUPS)).split(',')):
    if told not in ablations.GROUPS and told not in ablations.ROWS:
      raise UserError(f'--only={told}: no such row; groups are {", ".join(ablations.GROUPS)}, rows '
                      'stand in configs/ablations.py')
    names += ablations.GROUPS.get(told, [told])
  return list(dict.fromkeys(names))


def feature_folders(told, source):
  """{'clip': folder, ...} of --features; these clips must be those the other rows learn from."""
  folders = {}
  for part in filter(None, (told or '').split(',')):
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
  """Relative names of a folder's files, without the vectors beside them."""
  root = pathlib.Path(folder)
  return {path.relative_to(root) for path in root.rglob('*')
          if path.is_file() and path.suffix != '.npz'}


def budget(config, steps):
  """Flags for `steps` a direction: the rate falls over the same share of them; None: its own."""
  if steps is None:
    return []
  total = steps * len(config.generate)
  decay = round(total * config.train.decay_steps / config.train.steps)
  return [f'--config.train.steps={total}', f'--config.train.decay_steps={decay}']


def plan(given, flags):
  """([Job], {row: why it is not run}) of what the command line asks for."""
  jobs, left_out = {}, {}
  folders = feature_folders(given.features, value_of(flags, 'data.source'))
  for seed in given.seeds:
    for name in dict.fromkeys(the_same(row, given.scale) for row in given.rows):
      base = the_same(ablations.trained(name), given.scale)
      width, more = ablations.get_config(f'{base}:{given.scale}').towers.video.features, flags
      if width:
        kind = base.split('_')[0]
        if kind not in folders:
          left_out[name] = (f'needs {kind.upper()} vectors of {width} numbers, an .npz beside each '
                            f'clip: --features={kind}=FOLDER')
          continue
        more = [*flags, f'--config.data.source={folders[kind]}']
      for job in pieces(name, base, seed, given, more):
        jobs.setdefault(job.key, job)
  return list(jobs.values()), left_out


def pieces(name, base, seed, given, flags):
  """Jobs of a row: training (of `base`, whose weights it has), clips, scores."""
  output, config = pathlib.Path(given.output), ablations.get_config(f'{base}:{given.scale}')
  run, row = f'{base}-seed_{seed}', f'{name}-seed_{seed}'
  shared = [*flags, f'--config.seed={seed}', f'--workdir={output / "runs" / run}']
  steps = budget(config, given.steps)
  train = Job(f'{run}.train', None,
              int(value_of([*flags, *steps], 'train.steps') or config.train.steps),
              [f'--config=configs/ablations.py:{base}:{given.scale}', *shared, *steps,
               # Its own samples are only to be looked at.
               '--config.sample.count=2', '--config.checkpoint.keep=2'])
  if not scored(name, given.scale):
    return [train]
  samples = output / 'samples' / row
  sample = Job(f'{row}.sample', train.key, given.clips,
               [f'--config=configs/ablations.py:{name}:{given.scale}', *shared, '--mode=sample',
                f'--output={samples}', f'--config.sample.count={given.clips}', '--seed=0'])
  told_nothing = ablation_scores.GIVEN[generated(name, given.scale)]
  metrics = [metric for metric in given.metrics if not metric.startswith(told_nothing)]
  evaluate = Job(f'{row}.evaluate', sample.key, given.clips,
                 ['--mode=evaluate', f'--generated={samples}',
                  f'--reference={samples / "reference"}',
                  f'--output={output / "scores" / row}.json',
                  *([f'--metrics={",".join(metrics)}'] if metrics else []),
                  *([f'--networks={given.networks}'] if metrics and given.networks else [])],
                 tuple(metric for metric in metrics if metric not in given.missing))
  return [train, sample, evaluate]


def value_of(flags, key):
  """What the last --config.KEY=VALUE says; '' where none does."""
  said = [flag.partition('=')[2] for flag in flags if flag.startswith(f'--config.{key}=')]
  return said[-1] if said else ''


def keep_plan(given, flags, left_out):
  """Writes DIR/plan.json. Raises UserError where the folder holds results of other settings."""
  path = pathlib.Path(given.output) / PLAN
  wanted = dict(scale=given.scale, steps=given.steps, clips=given.clips, flags=sorted(flags))
  if path.exists():
    old = json.loads(path.read_text())
    differing = [f'{key}: {old.get(key)!r} -> {value!r}' for key, value in wanted.items()
                 if old.get(key) != value]
    if differing:
      raise UserError(f'{given.output} was begun with other settings ({"; ".join(differing)}): '
                      'give the old ones to go on, or another --output')
    left_out = old['left_out'] | left_out  # of rows that were asked for before
  write_text(path, json.dumps(wanted | {'left_out': left_out}, indent=1) + '\n')


def read_flags(argv):
  """(options, flags to be handed on). Raises UserError."""
  parser = argparse.ArgumentParser(
      prog='launch/ablations.sh', description=__doc__.split('\n\n')[0],
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
  parser.add_argument('--networks', help='folder with their weights (default: $AVLINK_WEIGHTS)')
  given, flags = parser.parse_known_args(argv)
  for flag in flags:
    if not (flag.startswith('--config.') and '=' in flag):
      parser.error(f'unknown option {flag}')
  ablated = {key for _, changes in ablations.ROWS.values() for key in changes} | {'seed'}
  if taken := ablated & {flag[len('--config.'):].partition('=')[0] for flag in flags}:
    raise UserError(f'--config.{min(taken)} is what some of the rows change: leave it out')
  try:
    given.seeds = list(dict.fromkeys(int(seed) for seed in given.seeds.split(',')))
  except ValueError:
    raise UserError(f'--seeds={given.seeds}: give whole numbers, such as 0,1') from None
  if min(given.jobs, given.clips, given.steps or 1) < 1:
    raise UserError('--jobs, --clips and --steps begin at 1')
  # The processes work in the project's folder, wherever this one was started.
  given.output = os.path.abspath(given.output or f'runs/ablations-{given.scale}')
  given.rows = chosen(given.only)
  given.metrics, given.missing, given.networks = networks_of(given.metrics, given.networks)
  return given, flags


def networks_of(told, folder):
  """(names of metrics, {name: why not} of those whose weights are not here, the weights' folder)
  of --metrics and --networks. Raises UserError."""
  if not told:
    return (), {}, None
  from avlink_jax.metrics import network_metrics  # here, since it brings JAX along
  from avlink_jax.metrics.networks import loading
  names, folder = network_metrics.choose(told), loading.folder_of(folder)
  return names, network_metrics.missing(names, folder), folder and os.path.abspath(folder)


def run(argv):
  """The exit status: 0 all done, 1 some of it failed, 75 interrupted."""
  given, flags = read_flags(argv)
  line_plot.library()  # rather missing now than at the end
  jobs, left_out = plan(given, flags)
  pathlib.Path(given.output).mkdir(parents=True, exist_ok=True)
  with only_run(given.output):
    keep_plan(given, flags, left_out)
    queue = Queue(jobs, given.output)
    counts = collections.Counter(job.kind for job in jobs)
    say(f'{counts["train"]} trainings and {counts["evaluate"]} scored rows in {given.output}; '
        f'{len(queue.done)} of {len(jobs)} pieces of work are done')
    for name, reason in left_out.items():
      say(f'{name} is left out: {reason}')
    for reason in dict.fromkeys(given.missing.values()):
      names = [name for name in given.missing if given.missing[name] == reason]
      say(f'{", ".join(names)} will be missing: {reason}')
    interrupted = queue.run(given.jobs)
    report = ablation_report.write(given.output)
  for key, reason in queue.failed.items():
    say(f'failed: {key}: {reason}')
  say(f'{len(queue.done)} of {len(jobs)} pieces of work are done, {len(queue.failed)} failed. '
      f'The report: {report}')
  if interrupted:
    say('interrupted: the same command goes on')
    return PREEMPTED
  return 1 if queue.failed else 0


def say(text):
  print(text, file=sys.stderr, flush=True)


def main(argv=None):
  try:
    return run(argv)
  except UserError as error:
    say(f'ablations: {error}')
    return MISTAKE


if __name__ == '__main__':
  sys.exit(main())
