"""A run that is killed, at whatever moment, ends where one left alone ends, bit for bit."""

import json
import subprocess
import sys

import pytest
import runs


@pytest.mark.slow
def test_resume_is_bit_exact_after_kills_at_random_moments(tmp_path):
  """SIGKILL, at a random step or in the midst of a save (tests/benchmarks/robust.py kills more)."""
  config = runs.config_of('t2v', {}, **{
      'train.steps': 8, 'train.sample_every': 4, 'checkpoint.every': 2, 'sample.count': 1})
  done = subprocess.run(
      [sys.executable, 'tests/killed.py', tmp_path, '8', '3', '1', *runs.flags(config)],
      cwd=runs.ROOT, env=runs.environment(tmp_path / 'cache'), capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  told = json.loads(done.stdout.splitlines()[-1])
  assert told['kills'] > 0 and told['arrays'] > 100 and told['rows'] == 8, told
  assert not told['arrays_that_differ'] and told['weights_equal'], told
  assert told['metrics_equal'] and not told['steps_logged_twice'], told
