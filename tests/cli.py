"""The command line as a user calls it, and the one line that a mistake ends in."""

import contextlib
import io
import os
import pathlib
import subprocess
import sys
from unittest import mock

from absl.testing import flagsaver

from avlink_jax import main as command_line

ROOT = pathlib.Path(__file__).parent.parent


def avlink(*arguments, cwd=ROOT):
  """The command line in a process of its own."""
  return subprocess.run(
      [sys.executable, '-m', 'avlink_jax.main', *arguments], capture_output=True, text=True,
      cwd=cwd, env=os.environ | {'JAX_PLATFORMS': 'cpu'}, timeout=300)


def main(*flags):
  """Exit status of a command line in this process; its flags leave nothing behind."""
  argv = ['avlink_jax', *flags]
  with flagsaver.flagsaver(), mock.patch('sys.argv', argv):  # where ml_collections looks, too
    return command_line.main(argv)


def called(*arguments):
  """As `avlink`, in this process: one of its own imports for seconds."""
  out, error = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
    status = main(*arguments)
  return subprocess.CompletedProcess(arguments, status, out.getvalue(), error.getvalue())


def complaint(result):
  """The one line that the user sees, having checked that it is one."""
  assert result.returncode == 2, result.stderr
  assert 'Traceback' not in result.stderr
  line = [line for line in result.stderr.splitlines() if line.startswith('avlink_jax: ')]
  assert len(line) == 1, result.stderr
  assert result.stderr.splitlines()[-1] == line[0]
  return line[0]
