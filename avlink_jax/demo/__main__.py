"""python -m avlink_jax.demo [--config=configs/v2a.py:nano] [--workdir=DIR]

A local page to try models in the browser. It needs Gradio, the extra [demo].
"""

import functools
import os
import pathlib
import signal
import sys
import tempfile

from avlink_jax import api
from avlink_jax.cli import config_files
from avlink_jax.cli.arguments import Parser
from avlink_jax.errors import INTERRUPTED, MISTAKE, UserError

TASKS = ('v2a', 'a2v', 'joint')
LOADED = 4  # models that are kept in memory, of those last used


def configs(given: str) -> dict[str, str]:
  """{task: FILE:SCALE} of the page's tabs, where that task has the scale of the config `given`.

  Raises UserError: there is no such config, or it is of a task that has no tab."""
  config = config_files.load(given)
  if config.task not in TASKS:
    raise UserError(f'--config={given}: the page is for {", ".join(TASKS)}')
  return {task: given if task == config.task else f'configs/{task}.py:{config.scale}'
          for task in TASKS}


def loader(files: dict[str, str], own: str, workdir: str | None):
  """Function (task, what is generated, preset) -> api.Model; `workdir` has the weights of the task
  `own`, other weights are bundled ones."""

  @functools.lru_cache(LOADED)
  def load(task, generated, preset):
    changes = {'sample.preset': preset}
    if task == 'joint':
      changes['sample.direction'] = generated
    return api.load(files[task], workdir=workdir if task == own else None, config=changes)

  return load


def private(folder: pathlib.Path) -> None:
  """Has Gradio keep its files in `folder` and report to nobody; before it is imported."""
  os.environ['GRADIO_TEMP_DIR'] = str(folder)
  os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'


def library():
  """The page's module (page.py). Raises UserError: Gradio is missing."""
  try:
    from avlink_jax.demo import page
  except ImportError:
    raise UserError('the page needs Gradio: pip install avlink_jax[demo]') from None
  return page


def run(argv=None) -> None:
  """Serves the page until Ctrl-C; then its files are deleted. Raises UserError."""
  parser = Parser(
      'python -m avlink_jax.demo', description='A local page to try models in the browser.')
  parser.add_argument('--config', default='configs/v2a.py:nano', help='FILE.py[:SCALE] of v2a, '
                      'a2v or joint (%(default)s); the other tabs are of the same scale')
  parser.add_argument('--workdir', help="run with the weights of the config's task "
                      '(default: bundled ones)')
  parser.add_argument('--host', default='127.0.0.1', help='address to listen at (%(default)s, '
                      'which only this machine reaches)')
  parser.add_argument('--port', type=int, help='default: the first free one from 7860 on')
  flags = parser.parse_args(argv)
  # So that files are deleted then too; a shell's background jobs begin with SIGINT ignored.
  for ended in (signal.SIGTERM, signal.SIGINT):
    signal.signal(ended, signal.default_int_handler)
  with tempfile.TemporaryDirectory(prefix='avlink_jax-demo-') as folder:
    private(pathlib.Path(folder, 'gradio'))
    page = library()
    files = configs(flags.config)
    settings = {task: config_files.load(file) for task, file in files.items()}
    own = config_files.load(flags.config).task
    blocks = page.build(loader(files, own, flags.workdir), settings, own,
                        pathlib.Path(folder, 'job'))
    try:
      print(f'{page.serve(blocks, flags.host, flags.port)} (Ctrl-C ends it)', flush=True)
      signal.pause()
    except OSError as error:
      raise UserError(f'--port={flags.port}: {error}') from None
    finally:
      blocks.close(verbose=False)


def main(argv=None) -> int:
  """Exit status: 2 a mistake of the user's, 130 ended by Ctrl-C."""
  try:
    run(argv)
  except UserError as error:
    print(f'avlink_jax: {error}', file=sys.stderr)
    return MISTAKE
  except KeyboardInterrupt:
    return INTERRUPTED
  return 0


if __name__ == '__main__':
  status = main()
  sys.stdout.flush()
  os._exit(status)  # a job may be running in a thread, and JAX would end it with a crash
