"""A sample that is not finite is the fault of that sample: the others are written."""

import json

import numpy as np
import pytest
import runs
from runs import config_of, finished, manifest, parts

from avlink_jax.api import Model
from avlink_jax.codecs.finite import Broken
from avlink_jax.sample import sample
from avlink_jax.sampling import sampler


@pytest.fixture(autouse=True, scope='module')
def quickly_compiled():
  with runs.quickly_compiled():
    yield


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  root = tmp_path_factory.mktemp('run')
  config = config_of('t2a', parts(root))
  return config, finished(config, root / 't2a')


@pytest.fixture
def broken_rain(monkeypatch):
  """Noise of the prompt 'rain' is not finite."""
  draw = sampler.noise_of

  def noise_of(identity, *args):
    rows = draw(identity, *args)
    return (lambda count: np.full_like(rows(count), np.nan)) if identity == 'rain 1' else rows

  monkeypatch.setattr(sampler, 'noise_of', noise_of)


def test_the_others_are_written_and_it_is_named(run, broken_rain, tmp_path):
  config, workdir = run
  (tmp_path / 'said.txt').write_text('a ball\nrain\ntin')
  with pytest.raises(Broken, match='1 of 3 samples hold numbers that are not finite: 001_rain: '):
    sample(config, workdir, prompt=str(tmp_path / 'said.txt'), output=tmp_path / 'out')
  assert [row['id'] for row in manifest(tmp_path / 'out').values()] == ['000_a_ball', '002_tin']
  assert json.loads((tmp_path / 'out' / 'skipped.json').read_text()) == [
      ['001_rain', 'the sample is not finite']]
  assert (tmp_path / 'out' / 'index.html').exists()
  for row in manifest(tmp_path / 'out').values():
    assert row['level'].keys() == {'peak', 'rms', 'gain_db'} and row['level']['peak'] > 0


def test_from_python_it_is_an_error(run, broken_rain):
  config, workdir = run
  with pytest.raises(Broken):
    Model(config, workdir)(prompt=['a ball', 'rain'])
