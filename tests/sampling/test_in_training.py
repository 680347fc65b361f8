"""What a run samples while it trains is built once: sampler, clips, vocoder; no tower is hashed."""

import jax
import numpy as np
import pytest
import runs
from runs import config_of, parts

from avlink_jax.codecs import vocoder
from avlink_jax.data import pipeline
from avlink_jax.samples.folder import complete
from avlink_jax.sampling import in_training, resume
from avlink_jax.sampling.export import Exporter
from avlink_jax.storage import weights
from avlink_jax.train import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def sampled(tmp_path_factory):
  """A run of three steps that samples after each: its workdir, config, Exporters, splits of the
  data source it opened, how many vocoders it read, and the arrays that it hashed."""
  root = tmp_path_factory.mktemp('run')
  config = config_of('v2a', parts(root), **{
      'train.steps': 3, 'train.sample_every': 1, 'checkpoint.every': 3, 'sample.count': 1})
  seen = dict(workdir=root / 'v2a', config=config, exporters=[], splits=[], vocoders=0, hashed=[])
  load, open_source, feed = vocoder.load, pipeline.open_source, resume.add_tree

  class Noted(Exporter):
    def __init__(self, *args, **options):
      super().__init__(*args, **options)
      seen['exporters'].append(self)

  def loading(*args):
    seen['vocoders'] += 1
    return load(*args)

  def opening(config, layout, split, reads):
    seen['splits'].append(split)
    return open_source(config, layout, split, reads)

  def feeding(digest, tree):
    seen['hashed'] += map(np.asarray, jax.tree.leaves(tree))
    feed(digest, tree)

  with pytest.MonkeyPatch.context() as patch, runs.quickly_compiled():
    patch.setattr(in_training, 'Exporter', Noted)
    patch.setattr(vocoder, 'load', loading)
    patch.setattr(pipeline, 'open_source', opening)
    patch.setattr(resume, "add_tree", feeding)
    train(config, seen['workdir'])
  return seen


def test_three_samplings_compile_one_program(sampled):
  for step in (1, 2, 3):
    assert len(complete(sampled['workdir'] / 'samples' / f'step_{step}')) == 1
  exporter, = sampled['exporters']
  sampler = exporter._sampler
  assert [program._cache_size() for program in (sampler._generate, sampler._decode['audio'])] == [
      1, 1]


def test_three_samplings_read_vocoder_and_clips_once(sampled):
  assert sampled['vocoders'] == 1
  assert sampled['splits'] == ['train', 'validation']


def test_what_a_sample_is_made_of_is_told_without_hashing_the_towers(sampled):
  """Their files' checksums say it (tasks/frozen.py)."""
  config, hashed = sampled['config'], sampled['hashed']
  assert len(hashed) > 3
  for part in ('codec', 'audio', 'video'):
    for array in jax.tree.leaves(weights.read(config.frozen[part])[0]):
      if array.ndim:
        assert not any(array.shape == other.shape and np.array_equal(array, other)
                       for other in hashed), part
