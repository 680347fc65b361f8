"""Presets of sampling (`sample.preset`): the paper's settings, or faster ones, as measured."""

from collections.abc import Collection

from ml_collections import ConfigDict

from avlink_jax.errors import UserError

PRESETS = ('paper', 'fast')


def apply(config: ConfigDict, given: Collection[str] = ()) -> None:
  """Sets what the preset changes of `config.sample`, except keys that the user has `given`
  ('sample.steps', ...).

  `paper` is the config as it is; `fast` what its section `sample.fast` says. Raises UserError:
  another preset.
  """
  if config.sample.preset not in PRESETS:
    raise UserError(f'sample.preset={config.sample.preset!r}: use {" or ".join(PRESETS)}')
  if config.sample.preset == 'fast':
    for key, value in config.sample.fast.items():
      if f'sample.{key}' not in given:
        config.sample[key] = value
