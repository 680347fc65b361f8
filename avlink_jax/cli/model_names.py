"""Names of models for Python: what `avlink_jax.load(NAME)` loads."""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from avlink_jax.cli import config_files, presets
from avlink_jax.errors import UserError
from avlink_jax.model import attention
from avlink_jax.storage import config_versions, published, weights
from avlink_jax.training import sharding

TASK_SCALE = re.compile(r'(\w+)(?::(\w+))?')
CONFIG = 'config.json'  # of a run
ANY_MESH = dict(data=-1, fsdp=1, sequence=1)


def find(name: str, changes: Mapping[str, Any]) -> tuple[ConfigDict, pathlib.Path | None]:
  """Config that a name stands for, with `changes` {key: value}, and the run that it is of, or None.

  A name is TASK[:SCALE], a config FILE.py[:SCALE], the folder of a run (a workdir, or one that has
  no more than its weights file), or a hub name of such a folder.

  Raises UserError: there is no such task, config, run, or key.
  """
  folder = run_of(name)
  if folder is not None:
    config = config_of(folder)
  else:
    short = TASK_SCALE.fullmatch(name)
    config = config_files.load(f'configs/{short[1]}.py:{short[2] or "paper"}' if short else name)
  config_files.check_settable(changes)
  for key in changes:
    if not config_files.has(config, key):
      near = ' or '.join(config_files.near(key, config))
      raise UserError(f'config={{{key!r}: …}}: {name} has no such key'
                      + (f': did you mean {near}?' if near else ''))
  if folder is not None:
    for_this_machine(config)
  try:
    config.update_from_flattened_dict(dict(changes))
  except (TypeError, ValueError) as error:
    raise UserError(f'config={dict(changes)}: {error}') from None
  if folder is None or 'sample.preset' in changes:  # a run's config has its preset's values
    presets.apply(config, changes)
  return config, folder


def run_of(name: str) -> pathlib.Path | None:
  """Folder of the run that a name is of; None: it is of a config. Raises UserError: the folder is
  not a run's, or a hub name cannot be had."""
  folder = pathlib.Path(os.path.expanduser(name))
  if any((folder / file).is_file() for file in (CONFIG, weights.OF_RUN)):
    return folder
  if folder.is_dir() and TASK_SCALE.fullmatch(name) is None:
    raise UserError(f'{name}: neither {CONFIG} nor {weights.OF_RUN} in it: give the workdir of a '
                    'run')
  if published.is_hub_name(name) and not name.endswith('.py'):
    return published.run(name)
  return None


def config_of(folder: pathlib.Path) -> ConfigDict:
  """Config of a run: its config.json, or what the header of its weights file says.

  Raises UserError: neither can be read."""
  path = folder / CONFIG
  if not path.is_file():
    path = folder / weights.OF_RUN
    return config_versions.config_of(weights.header(path), path)
  saved = published.read_config(folder)
  if not {'task', 'scale', 'sample'} <= saved.keys():
    raise UserError(f'{path}: of another program: give the workdir of a run of this one')
  return config_versions.complete(saved, str(path))


def for_this_machine(config: ConfigDict) -> None:
  """Replaces a mesh and a kernel that cannot be had here: a run may be of another machine."""
  try:
    sharding.make_mesh(**config.mesh)
  except UserError:
    config.mesh.update(ANY_MESH)
  try:
    attention.choose(config.attention, jax.default_backend())
  except UserError:
    config.attention = 'auto'
