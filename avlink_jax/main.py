"""python -m avlink_jax.main --config=configs/TASK.py[:SCALE] [--workdir=DIR] [--mode=MODE] ...

Flags -> config -> mode. A mistake of the user ends here, in one line and exit status 2; the other
statuses stand in errors.py.
"""

import difflib
import errno
import json
import re
import sys
import traceback

from absl import flags
from ml_collections import config_flags

from avlink_jax.cli import config_files, help, presets
from avlink_jax.errors import (
  INTERRUPTED,
  LOST,
  MISTAKE,
  PREEMPTED,
  Lost,
  MediaError,
  Preempted,
  UserError,
)
from avlink_jax.hardware import huge_pages
from avlink_jax.storage import config_versions
from avlink_jax.training.resilience import cluster

MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE)  # no bug of ours
MODES = ('train', 'sample', 'evaluate', 'compile')

CONFIG = config_flags.DEFINE_config_file('config', None, 'configs/TASK.py[:SCALE]')
WORKDIR = flags.DEFINE_string(
    'workdir', None, 'folder of the run, or gs://BUCKET/FOLDER (default: runs/TASK-SCALE)')
MODE = flags.DEFINE_enum('mode', 'train', MODES, 'what to do')
INPUT = flags.DEFINE_string('input', None, 'sample: a clip or a folder of clips of your own')
PROMPT = flags.DEFINE_string('prompt', None, 'sample: what to generate, in words')
CONDITION_PROMPT = flags.DEFINE_string(
    'condition_prompt', None, "sample: what conditions, in words (default: the clip's caption)")
NEGATIVE_PROMPT = flags.DEFINE_string(
    'negative_prompt', None, 'sample: what not to generate, in words')
TAKES = flags.DEFINE_integer('takes', 1, 'sample: how many of each clip, ID_1, ID_2, …')
OUTPUT = flags.DEFINE_string('output', None, 'sample: folder; evaluate: JSON file')
SEED = flags.DEFINE_integer('seed', 0, 'sample: of the noise', lower_bound=0)
GENERATED = flags.DEFINE_string('generated', None, 'evaluate: folder of generated clips')
DISTRIBUTED = flags.DEFINE_bool(
    'distributed', None, 'one of several processes; without the flag it is found out '
    '(training/resilience/cluster.py)')
METRICS = flags.DEFINE_string(
    'metrics', '', 'evaluate: metrics through networks besides the others, with commas; or a set: '
    'paper, av_benchmark, all')
NETWORKS = flags.DEFINE_string(
    'networks', None, "evaluate: folder with networks' weights (default: $AVLINK_WEIGHTS)")
SECONDS = flags.DEFINE_float(
    'seconds', None, 'evaluate: compare the first so many of each clip (default: all)')
REFERENCE = flags.DEFINE_string('reference', None, 'evaluate: folder of reference clips')
TOPOLOGY = flags.DEFINE_string(
    'topology', None, 'compile: chips that need not be there, such as v5p:4x4x4 or cpu:8')
ALLOW_DRIFT = flags.DEFINE_list(
    'allow_drift', [], 'train: keys, with commas, whose values a started run goes on with although '
    'they are others than it was begun with, such as train.learning_rate')
PART = flags.DEFINE_enum('part', 'both', ('both', 'train', 'sample'), 'compile: which program')


def need(flag, mode):
  if flag.value is None:
    raise UserError(f'--mode={mode} needs --{flag.name}')
  return flag.value


def check_folders():
  """A run's folder and its samples may be in a bucket of Cloud Storage (storage/bucket.py);
  everything else is read and written where it is mounted."""
  for flag in (WORKDIR, OUTPUT, GENERATED, REFERENCE, INPUT, NETWORKS):
    direct = flag.name in ('workdir', 'output') and MODE.value != 'evaluate'
    if '://' in (flag.value or '') and not (direct and re.match(r'gs://[^/]+/[^/]', flag.value)):
      wanted = 'give gs://BUCKET/FOLDER, or ' if direct else ''
      raise UserError(f'--{flag.name}={flag.value}: {wanted}mount the bucket (Cloud Storage FUSE, '
                      'as launch/tpu_pod.sh does) and give its folder')


def workdir_of(config):
  """Where a run of `config` goes that names no folder. (An ablation is another run than its task:
  configs/ablations.py.)"""
  return f'runs/{config.name}-{config.scale}'


def meet():
  """Meets the other processes of the run, as far as there are any; gives the Rendezvous or None."""
  if DISTRIBUTED.value is False or MODE.value not in ('train', 'sample'):
    return None
  place = cluster.detect()
  if place is None and not DISTRIBUTED.value:
    return None
  config = need(CONFIG, MODE.value)
  from avlink_jax.training import hosts
  return hosts.connect(config.hosts, place)


def run():
  """Runs the mode that the flags ask for."""
  if MODE.value == 'evaluate':
    if DISTRIBUTED.value is not False and (place := cluster.detect()) and place.process:
      return  # the first process does it
    from avlink_jax.evaluate import evaluate, summary
    from avlink_jax.samples import gallery
    metrics = ()
    if METRICS.value:  # what follows brings JAX along, and nothing else here does
      from avlink_jax.metrics import network_metrics
      metrics = network_metrics.choose(METRICS.value)
    folders = need(GENERATED, 'evaluate'), need(REFERENCE, 'evaluate')
    scores = evaluate(*folders, need(OUTPUT, 'evaluate'), metrics=metrics, networks=NETWORKS.value,
                      seconds=SECONDS.value)
    print(summary(scores))
    gallery.add_scores(*folders, scores)
    return
  config = need(CONFIG, MODE.value)
  given = config_flags.get_override_values(flags.FLAGS['config'])
  config_files.check_settable(given)
  presets.apply(config, given)
  if MODE.value == 'compile':
    from avlink_jax.compile import compile_ahead
    print(json.dumps(compile_ahead(config, need(TOPOLOGY, 'compile'), PART.value)))
    return
  workdir = WORKDIR.value or workdir_of(config)
  if MODE.value == 'train':
    from avlink_jax.train import train
    train(config, workdir, ALLOW_DRIFT.value)
  else:
    from avlink_jax.sample import sample
    from avlink_jax.training import hosts
    sample(config, workdir, input_path=INPUT.value, prompt=PROMPT.value,
           condition_prompt=CONDITION_PROMPT.value, negative_prompt=NEGATIVE_PROMPT.value,
           takes=TAKES.value,
           output=OUTPUT.value or f'{workdir}/samples/seed_{SEED.value}', seed=SEED.value,
           explicit=WORKDIR.value is not None)
    hosts.wait_for_all('sampled', config.hosts.patience_seconds)


class Usage(UserError):
  """A mistake in the command line itself: the page of help comes before its line."""


def config_given(argv):
  """(index in argv, FILE[:SCALE]) of --config=FILE[:SCALE], '=' or not; (None, '') without it."""
  for i, (flag, after) in enumerate(zip(argv, [*argv[1:], ''], strict=True)):
    name, equals, value = flag.partition('=')
    if name in ('--config', '-config'):
      return (i, value) if equals else (i + 1, after)
  return None, ''


def parse(argv):
  """absl's flags, with what goes wrong in a config told as a user's mistake."""
  if len(argv) < 2:
    raise Usage('nothing to do: give --config=configs/TASK.py:SCALE, or --mode=evaluate')
  at, given = config_given(argv)
  rest = argv[at + 1:] if given else []
  if rest and config_given(rest)[1]:
    raise Usage('--config is given twice: give one')
  read = list(argv)
  if given:
    read[at] = argv[at].replace(given, config_files.find(given))
  try:
    left = flags.FLAGS(read)
    if len(left) > 1:
      raise Usage(f'{left[1]!r} is not a flag: write --NAME=VALUE')
    if CONFIG.value is not None:
      CONFIG.value.to_dict()  # what went wrong in a config file is raised when it is looked at
  except flags.UnrecognizedFlagError as error:
    if error.flagname.startswith('config.'):
      raise UserError(f'--{error.flagname}: give --config=configs/TASK.py:SCALE before') from None
    close = difflib.get_close_matches(error.flagname, help.own_flags(), 2)
    near = ' or '.join(f'--{name}' for name in close)
    raise Usage(f'--{error.flagname}: no such flag' + (f': did you mean {near}?' if near else '')
                ) from None
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError,
          NameError, ImportError, ArithmeticError) as error:
    if isinstance(error, AttributeError | KeyError):
      check_keys(given, argv)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # A failure inside a config file arrives with its traceback as text: its end says what it was.
    text = lines[-1] if 'Failed loading' in lines[0] or 'Traceback' in str(error) else str(error)
    raise UserError(' '.join(text.split()).removeprefix('ValueError: ')) from None


def check_keys(given, argv):
  """Raises UserError for the first --config.KEY that the config FILE[:SCALE] does not have."""
  config = config_files.load(given)
  for flag in argv:
    key = re.match(r'--?(?:no)?config\.([^=]+)', flag)
    if key and not config_files.has(config, key[1]):
      if fate := config_versions.fate(key[1]):
        raise UserError(f'--config.{key[1]}: {fate}')
      near = ' or '.join(f'--config.{other}' for other in config_files.near(key[1], config))
      raise UserError(f'--config.{key[1]}: {given} has no such key: ' + (
          f'did you mean {near}?' if near else f'--help --config={given} lists what it has'))


def main(argv=None):
  """Exit status: 0 done, 2 a mistake of the user's, 70 others are gone or never came, 75 preempted
  and saved, 130 interrupted (Ctrl-C); told in one line on stderr. (70 also a hang:
  training/resilience/watchdog.py.)"""
  argv, rendezvous, status = argv or sys.argv, None, 1
  try:
    if {'-h', '-help', '--help'} & set(argv):
      _, given = config_given(argv)
      help.show(help.of_config(given) if given else help.page())
      return 0
    parse(argv)
    check_folders()
    rendezvous = meet()
    run()
    status = 0
  except (UserError, MediaError, Lost, Preempted) as error:
    status = {Lost: LOST, Preempted: PREEMPTED}.get(type(error), MISTAKE)
    if isinstance(error, Usage):
      print(help.page(), end='\n\n', file=sys.stderr)
    print(f'avlink_jax: {error}', file=sys.stderr)
  except KeyboardInterrupt:
    status = INTERRUPTED
    print('avlink_jax: interrupted', file=sys.stderr)
  except BaseException as error:
    if isinstance(error, OSError) and error.errno in MACHINE:
      status = MISTAKE
      print(f'avlink_jax: {error.filename or "a file of the run"}: {error.strerror}: see to the '
            'disk and start the same command again', file=sys.stderr)
    elif rendezvous is None:
      raise
    else:
      rendezvous.wait_for_cause()
      traceback.print_exc()
  finally:  # whatever it was, such as a terminal that is gone, the others are not left waiting
    if rendezvous is not None:
      rendezvous.leave(status)
  return status


if __name__ == '__main__':
  huge_pages.ask()
  sys.exit(main())
