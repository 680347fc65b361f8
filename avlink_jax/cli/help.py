"""What `--help` prints: the page for a newcomer, and the keys of a config with what they mean."""

import ast
import os
import sys
import textwrap

from absl import flags

from avlink_jax.cli import config_files
from avlink_jax.training.resilience.config_drift import flat

WIDTH, LEFT = 100, 46  # of a line; of what a key means
PAGE = """\
AV-Link in JAX: audio for video and video for audio, by Fusion Blocks between two frozen towers.

  python -m avlink_jax.main --config=configs/TASK.py[:SCALE] [--mode=MODE] [--workdir=DIR]
                            [--config.KEY=VALUE ...]

Three things to do first, in minutes on two CPU cores:

  python -m avlink_jax.main --config=configs/v2a.py:nano --mode=sample --output=out
      generates audio for eight clips by weights that the package brings along: see out/index.html
      (--input=FILE_OR_FOLDER for clips of your own, --prompt=TEXT to say what is to be heard)
  python -m avlink_jax.main --config=configs/v2a.py:nano
      trains that model in runs/v2a-nano; the same command again goes on where it was stopped
  python -m avlink_jax.main --mode=evaluate --generated=out --reference=out/reference \\
                            --output=scores.json
      scores a folder of clips against another, ours or anybody's

Modes:
  train     trains, checkpoints, resumes by itself, samples and scores at the end (the default)
  sample    generates for clips or prompts, from a run's newest checkpoint or bundled weights
  evaluate  compares two folders of clips
  compile   compiles the real step for chips that are not there: --topology=v5p:2x2x4

Scales: paper (the default; accelerators and data of your own), small (one GPU, an hour), nano (two
CPU cores, minutes; backbones come with the package).

Tasks (--help --config=configs/TASK.py:SCALE lists the keys that one has):
"""


def page():
  """The page for who asks for nothing in particular."""
  rows = []
  for task in config_files.TASKS:
    tree = ast.parse((config_files.OWN / f'{task}.py').read_text())
    rows.append((task, ' '.join(ast.get_docstring(tree).split())))
  listed = [(f'--{name}', flag.help) for name, flag in sorted(own_flags().items())]
  return f'{PAGE}{table(rows)}\n\nFlags:\n{table(listed)}'


def show(text):
  """Prints it, as far as it is wanted: `| head` closes its end early."""
  try:
    print(text, flush=True)
  except BrokenPipeError:  # and nothing more is to be written to it when the process ends
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def own_flags():
  """{name: flag} of the flags that this program defines, without absl's and without a config's."""
  return {flag.name: flag for module, defined in flags.FLAGS.flags_by_module_dict().items()
          if not module.startswith('absl') for flag in defined
          if '.' not in flag.name}


def table(rows):
  """Lines of (name, text), the texts below each other."""
  left = max(len(name) for name, _ in rows) + 4
  return '\n'.join(textwrap.fill(
      text, WIDTH, initial_indent=f'  {name}'.ljust(left), subsequent_indent=' ' * left)
      for name, text in rows)


def of_config(given):
  """Every key of the config FILE[:SCALE] with its value and what it means. Raises UserError."""
  config = config_files.load(given)
  known = comments(given, config.task)
  lines = [f'Keys of {given}, to be set as --config.KEY=VALUE:', '']
  values = [*flat(config.to_dict()).items()]
  lines += [row(key, value, known) for key, value in values if '.' not in key]
  for section in dict.fromkeys(key.partition('.')[0] for key, _ in values if '.' in key):
    lines += ['', f'{section}: {meaning(section, known)}']
    lines += [row(key, value, known) for key, value in values if key.startswith(f'{section}.')]
  return '\n'.join(lines)


def comments(given, task):
  """[{key: comment}] of the files that a config FILE[:SCALE] of `task` is made of."""
  path = config_files.find(given).partition(':')[0]
  return [config_files.comments(source) for source in (
      config_files.OWN / 'common.py', config_files.OWN / f'{task}.py', path)]


def row(key, value, known):
  """A key, its value and what it means, within WIDTH."""
  value = tuple(value) if isinstance(value, list) else value
  head = f'  {key}={value if isinstance(value, str) else repr(value)}'
  return textwrap.fill(meaning(key, known), WIDTH, initial_indent=f'{head:<{LEFT - 2}}  ',
                       subsequent_indent=' ' * LEFT) or head


def meaning(key, known):
  """What the first of several files that says anything of a key says. Of the keys of a tower or a
  text encoder that is said of all of them, of flow.location.audio what is said of flow.location."""
  names = [key]
  if key.count('.') > 1:
    section, _, rest = key.split('.', 2)
    names = [f'{section}.*.{rest}', key, key.rpartition('.')[0]]
  return next((text for comments in known for name in names if (text := comments.get(name))), '')
