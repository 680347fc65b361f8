"""Presets of sampling: what they change, and that a key that is given itself stays."""

import pytest
from ml_collections import ConfigDict

from avlink_jax.cli import presets
from avlink_jax.errors import UserError


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
