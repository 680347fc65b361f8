"""Installed by pip the package works from any folder, with its configs and weights."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SHIPPED = ('avlink_jax', 'configs', 'pyproject.toml', 'requirements.txt', 'README.md', 'LICENSE')
BUILD = """
import json
import avlink_jax
from avlink_jax import build
from avlink_jax.cli import config_files
from avlink_jax.storage import weights
models = build.build(config_files.load('configs/v2a.py:nano'))
print(json.dumps({
    'package': avlink_jax.__file__, 'towers': sorted(models.towers),
    'weights': [str(path) for part in ('audio', 'video', 'codec')
                if (path := weights.bundled(part, 'nano')).exists()]}))
"""


def ran(*command, cwd):
  """A process's stdout, with nothing of this checkout on its path."""
  environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
  result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300,
                          env=environment | {'JAX_PLATFORMS': 'cpu'})
  assert result.returncode == 0, result.stderr
  return result.stdout


@pytest.fixture(scope='module')
def python(tmp_path_factory):
  """The interpreter of a fresh environment into which the package was installed from its sdist.
  What it depends on is this environment's."""
  root = tmp_path_factory.mktemp('install')
  for name in SHIPPED:
    if (ROOT / name).is_dir():
      shutil.copytree(ROOT / name, root / 'source' / name, symlinks=True,
                      ignore=shutil.ignore_patterns('__pycache__'))
    else:
      shutil.copy(ROOT / name, root / 'source')
  ran(sys.executable, '-c', 'from setuptools import build_meta; build_meta.build_sdist("../dist")',
      cwd=root / 'source')
  sdist, = (root / 'dist').glob('*.tar.gz')
  ran(sys.executable, '-m', 'venv', '--without-pip', 'env', cwd=root)
  python = root / 'env' / 'bin' / 'python'
  site = ran(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))', cwd=root)
  pathlib.Path(site.strip(), 'shared.pth').write_text(sysconfig.get_path('purelib') + '\n')
  ran(sys.executable, '-m', 'pip', '--python', python, 'install', '--quiet', '--no-deps',
      '--no-build-isolation', '--no-index', sdist, cwd=root)
  shutil.rmtree(root / 'source')
  return python


@pytest.mark.slow
def test_models_are_built_and_weights_found_from_an_empty_folder(python, tmp_path):
  found = json.loads(ran(python, '-c', BUILD, cwd=tmp_path).splitlines()[-1])
  assert found['package'].startswith(str(python.parents[1]))
  assert found['towers'] == ['audio', 'video'] and len(found['weights']) == 3


@pytest.mark.slow
def test_a_config_of_the_package_is_found_from_an_empty_folder(python, tmp_path):
  told = ran(python, '-m', 'avlink_jax.main', '--help', '--config=configs/t2a.py:nano',
             cwd=tmp_path)
  assert 'train.steps=12000' in told and 'frozen.codec=bundled' in told


@pytest.mark.slow
def test_a_config_of_ones_own_wins(python, tmp_path):
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 't2a.py').write_text(
      'from avlink_jax.configs import common\n\n\n'
      'def get_config():\n  c = common.base("t2a", "nano")\n'
      '  c.train.own = 7  # what I added\n  return c\n')
  told = ran(python, '-m', 'avlink_jax.main', '--config=configs/t2a.py', '--help', cwd=tmp_path)
  assert 'train.own=7' in told and 'what I added' in told
