"""The command line as a user calls it, and the one line that a mistake ends in."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def avlink(*arguments, cwd=ROOT):
  return subprocess.run(
      [sys.executable, '-m', 'avlink_jax.main', *arguments], capture_output=True, text=True,
      cwd=cwd, env=os.environ | {'JAX_PLATFORMS': 'cpu'}, timeout=300)


def complaint(result):
  """The one line that the user sees, having checked that it is one."""
  assert result.returncode == 2, result.stderr
  assert 'Traceback' not in result.stderr
  line = [line for line in result.stderr.splitlines() if line.startswith('avlink_jax: ')]
  assert len(line) == 1, result.stderr
  assert result.stderr.splitlines()[-1] == line[0]
  return line[0]
