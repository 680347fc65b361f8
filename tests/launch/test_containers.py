"""Dockerfiles: what they copy is there, and their packages are those of requirements.txt."""

import pathlib
import re
import shlex

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / 'launch').glob('*.Dockerfile'))
KNOWN = {'FROM', 'WORKDIR', 'COPY', 'RUN', 'ENTRYPOINT'}


def instructions(path):
  """[(instruction, the rest)] of a Dockerfile."""
  text = re.sub(r'\\\n', ' ', path.read_text())
  return [tuple(line.split(maxsplit=1)) for line in text.splitlines()
          if line.strip() and not line.startswith('#')]


def test_there_is_one_for_gpus_and_one_for_tpus():
  assert [path.name for path in FILES] == ['gpu.Dockerfile', 'tpu.Dockerfile']


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_a_dockerfile_is_sound(path):
  lines = instructions(path)
  assert {name for name, _ in lines} <= KNOWN and lines[0][0] == 'FROM'
  # Pinned, and from no registry that is named: the user's own.
  assert re.fullmatch(r'python:3\.1[123]-slim', lines[0][1])
  for name, rest in lines:
    if name == 'COPY':
      assert (ROOT / shlex.split(rest)[0]).exists()
    if name == 'RUN':
      assert '--no-cache-dir' in rest and 'curl' not in rest and 'http' not in rest
  installed = ' '.join(rest for name, rest in lines if name == 'RUN')
  assert '-r requirements.txt' in installed
  assert {'gpu': "'jax[cuda12]'", 'tpu': "'jax[tpu]'"}[path.name.partition('.')[0]] in installed
  # What changes often comes last, so that a build keeps what it has installed.
  names = [rest for name, rest in lines if name in ('COPY', 'RUN')]
  assert names[0] == 'requirements.txt .' and names[2] == '. .'
  assert lines[-1] == ('ENTRYPOINT', '["python", "-m", "avlink_jax.main"]')


def test_an_image_holds_no_environment_and_no_runs():
  left_out = (ROOT / '.dockerignore').read_text().split()
  assert {'.git', '.venv*', 'runs'} <= set(left_out)
