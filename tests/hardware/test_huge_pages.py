"""Who asks for huge pages on a CPU is started anew once, as it was; nobody else is."""

import os
import subprocess
import sys

import pytest

from avlink_jax.hardware import huge_pages

PROGRAM = '''
import os, sys
from avlink_jax.hardware import huge_pages
print("begun", flush=True)
huge_pages.ask()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], sys.flags.dont_write_bytecode)
assert "jax" not in sys.modules
'''


def said(**variables):
  environment = {k: v for k, v in os.environ.items() if k != 'GLIBC_TUNABLES'} | variables
  return subprocess.run([sys.executable, '-B', '-c', PROGRAM, 'a b'], env=environment, text=True,
                        capture_output=True, check=True, timeout=60).stdout.splitlines()


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc only')
def test_asking_on_a_cpu_starts_the_same_command_once_more_and_only_once():
  assert said(JAX_PLATFORMS='cpu') == ['begun', 'begun', "glibc.malloc.hugetlb=1 ['a b'] 1"]


@pytest.mark.parametrize('platform', ['cuda', 'tpu', 'tpu,cpu'])
def test_a_run_on_an_accelerator_is_not_started_anew(platform):
  assert said(JAX_PLATFORMS=platform) == ['begun', "None ['a b'] 1"]


def test_what_the_user_has_set_stays():
  assert said(JAX_PLATFORMS='cpu', GLIBC_TUNABLES='') == ['begun', " ['a b'] 1"]


@pytest.mark.parametrize('device, package', [
    ('nvidia0', 'jax_cuda12_plugin'), ('nvidia3', 'jax_cuda13_plugin'), ('accel0', 'libtpu'),
    ('vfio/0', 'libtpu')])
def test_an_accelerator_counts_where_jax_has_what_it_takes_to_use_it(
    tmp_path, monkeypatch, device, package):
  installed = []
  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  monkeypatch.setattr('importlib.util.find_spec', lambda name: name in installed or None)
  (tmp_path / 'vfio').mkdir()
  (tmp_path / 'nvidiactl').touch()
  installed.append(package)
  assert not huge_pages.on_accelerator(tmp_path)
  (tmp_path / device).touch()
  assert huge_pages.on_accelerator(tmp_path)
  installed.clear()  # a graphics card, and JAX for the CPU
  assert not huge_pages.on_accelerator(tmp_path)
