"""python -m avlink_jax.main --config=configs/TASK.py[:SCALE] [--workdir=DIR] [--mode=MODE] ...

Flags -> config -> mode. A mistake of the user ends here, in one line and exit status 2; the other
statuses stand in errors.py.
"""

import sys

from absl import flags
from ml_collections import config_flags

from avlink_jax.errors import MISTAKE, PREEMPTED, MediaError, Preempted, UserError

MODES = ('train', 'sample', 'evaluate')

CONFIG = config_flags.DEFINE_config_file('config', None, 'configs/TASK.py[:SCALE]')
WORKDIR = flags.DEFINE_string('workdir', None, 'folder of the run (default: runs/TASK-SCALE)')
MODE = flags.DEFINE_enum('mode', 'train', MODES, 'what to do')
INPUT = flags.DEFINE_string('input', None, 'sample: a clip or a folder of clips of your own')
PROMPT = flags.DEFINE_string('prompt', None, 'sample: what to generate, in words')
OUTPUT = flags.DEFINE_string('output', None, 'sample: folder; evaluate: JSON file')
SEED = flags.DEFINE_integer('seed', 0, 'sample: of the noise')
GENERATED = flags.DEFINE_string('generated', None, 'evaluate: folder of generated clips')
DISTRIBUTED = flags.DEFINE_bool(
    'distributed', False, 'train: one of several processes (training/hosts.py)')
METRICS = flags.DEFINE_string(
    'metrics', '', 'evaluate: metrics through networks besides the others, with commas, or all')
NETWORKS = flags.DEFINE_string(
    'networks', None, "evaluate: folder with networks' weights (default: $AVLINK_WEIGHTS)")
SECONDS = flags.DEFINE_float(
    'seconds', None, 'evaluate: compare the first so many of each clip (default: all)')
REFERENCE = flags.DEFINE_string('reference', None, 'evaluate: folder of reference clips')


def need(flag, mode):
  if flag.value is None:
    raise UserError(f'--mode={mode} needs --{flag.name}')
  return flag.value


def run(argv):
  """Runs the mode that the flags ask for."""
  if len(argv) > 1:
    raise UserError(f'{argv[1]!r} is not a flag: write --NAME=VALUE')
  if MODE.value == 'evaluate':
    from avlink_jax.evaluate import evaluate, summary
    from avlink_jax.metrics import network_metrics
    print(summary(evaluate(
        need(GENERATED, 'evaluate'), need(REFERENCE, 'evaluate'), need(OUTPUT, 'evaluate'),
        metrics=network_metrics.choose(METRICS.value), networks=NETWORKS.value,
        seconds=SECONDS.value)))
    return
  config = need(CONFIG, MODE.value)
  workdir = WORKDIR.value or f'runs/{config.task}-{config.scale}'
  if MODE.value == 'train':
    if DISTRIBUTED.value:
      from avlink_jax.training import hosts
      hosts.connect()
    from avlink_jax.train import train
    train(config, workdir)
  else:
    from avlink_jax.sample import sample
    sample(config, workdir, input_path=INPUT.value, prompt=PROMPT.value,
           output=OUTPUT.value or f'{workdir}/samples/seed_{SEED.value}', seed=SEED.value)


def parse(argv):
  """absl's flags, with what goes wrong in a config told as a user's mistake."""
  try:
    left = flags.FLAGS(argv)
    if CONFIG.value is not None:
      CONFIG.value.to_dict()  # what went wrong in a config file is raised when it is looked at
    return left
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # A failure inside a config file arrives with its traceback as text: its end says what it was.
    text = lines[-1] if 'Failed loading' in lines[0] or 'Traceback' in str(error) else str(error)
    text = f'unknown config key {error.args[0]}' if isinstance(error, KeyError) else text
    raise UserError(' '.join(text.split()).removeprefix('ValueError: ')) from None


def main(argv=None):
  """Exit status: 0 done, 2 a mistake of the user's, 75 preempted and saved; told in one line on
  stderr. (70 a hang: training/watchdog.py.)"""
  try:
    run(parse(argv or sys.argv))
  except (UserError, MediaError) as error:
    print(f'avlink_jax: {error}', file=sys.stderr)
    return MISTAKE
  except Preempted as notice:
    print(f'avlink_jax: {notice}', file=sys.stderr)
    return PREEMPTED
  return 0


if __name__ == '__main__':
  sys.exit(main())
