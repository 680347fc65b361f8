"""Presets of sampling: what they change, and that a key that is given itself stays."""

import pytest
import runs
from ml_collections import ConfigDict

from avlink_jax.cli import presets
from avlink_jax.errors import UserError
from avlink_jax.tasks.schedule import Schedule


def config(preset):
  return ConfigDict({'sample': {'preset': preset, 'steps': 64, 'refresh': 1, 'guidance': 5.0,
                                'fast': {'steps': 8, 'refresh': 8}}})


def test_the_papers_is_the_config_as_it_is():
  c = config('paper')
  presets.apply(c)
  assert (c.sample.steps, c.sample.refresh) == (64, 1)


def test_fast_changes_what_it_names_but_for_keys_that_are_given():
  c = config('fast')
  presets.apply(c, {'sample.steps': 4, 'sample.guidance': 2.0})
  assert (c.sample.steps, c.sample.refresh, c.sample.guidance) == (64, 8, 5.0)
  presets.apply(c)
  assert (c.sample.steps, c.sample.refresh) == (8, 8)


def test_another_preset_is_told():
  with pytest.raises(UserError, match="sample.preset='quick': use paper or fast"):
    presets.apply(config('quick'))


@pytest.mark.parametrize('scale', ['paper', 'small', 'nano', 'public'])
@pytest.mark.parametrize('task', ['v2a', 'a2v', 'joint', 'av', 't2a', 't2v'])
def test_shipped_presets_are_fast_and_the_papers_scale_keeps_the_papers(task, scale):
  c = runs.shipped(task, scale)
  assert c.sample.preset == ('fast' if c.sample.fast and scale in ('nano', 'public') else 'paper')
  papers = c.sample.steps
  presets.apply(c)
  assert Schedule.of(c.sample) and (c.sample.steps < papers) == (c.sample.preset == 'fast')


def test_v2a_at_nano_is_fast():
  c = runs.shipped('v2a', 'nano')
  presets.apply(c)
  assert (c.sample.steps, c.sample.refresh) == (8, 8)
