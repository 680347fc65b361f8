"""What every test gets: the CPU unless told otherwise, and the real clips where they are."""

import collections
import gc
import importlib.metadata
import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # before anything imports jax
# XLA's newer emitters of fused loops take twice as long to compile, and tests mostly compile.
# Later versions have no others, and abort where the flag is given.
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  os.environ['XLA_FLAGS'] = (
      '--xla_cpu_use_fusion_emitters=false ' + os.environ.get('XLA_FLAGS', '')).strip()
# Numba crashes where two processes compile the same into one folder (librosa's peak_pick, 0.68).
if (worker := os.environ.get('PYTEST_XDIST_WORKER')):
  os.environ.setdefault('NUMBA_CACHE_DIR', str(
      pathlib.Path(__file__).resolve().parents[1] / '.pytest_cache' / 'numba' / worker))

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

SHARED = pathlib.Path(__file__).resolve().parents[2] / 'shared'

# Tracing makes many objects: a fourth of its time was spent looking for garbage among them.
gc.set_threshold(50_000, 20, 20)

# The first example of a property compiles, and other work may be running: time proves nothing.
settings.register_profile('avlink', deadline=None)
settings.load_profile('avlink')


@pytest.fixture(scope='session', autouse=True)
def compiled_once(tmp_path_factory):
  """A folder that keeps compiled programs: a run that resumes another's is not compiled anew.

  Processes that run tests side by side share it.
  """
  base = tmp_path_factory.getbasetemp()
  shared = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base
  folder = str(shared / 'compiled')
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)
  return folder


def _shared(name):
  folder = SHARED / name
  if not folder.is_dir():
    pytest.skip(f'the real clips are not here: {folder}')
  return folder


@pytest.fixture(scope='session')
def shared_clips():
  """Folder of real clips."""
  return _shared('clips')


@pytest.fixture(scope='session')
def shared_clips_bad():
  """Folder of broken clips, each in its own way."""
  return _shared('clips_bad')


def pytest_collection_modifyitems(items):
  """Files with slow tests come first, so that no worker is alone with one of them at the end."""
  slow = collections.Counter(item.path for item in items if item.get_closest_marker('slow'))
  items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish():
  """What was imported stays: garbage is not looked for there."""
  gc.collect()
  gc.freeze()
