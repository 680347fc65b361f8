"""Configs saved by earlier versions of this program, opened by this one.

A config is saved in a workdir (config.json, a checkpoint's about.json) and in the header of a file
of weights, with the `version` of its schema. Opened today it gets the keys that came since, with
the values that do what the program did before there were such keys; a new run takes its defaults
from configs/ instead.

    1  the first edition, whose configs have no `version`
    2  every key that a task's code may read is there
"""

import copy
import json
import math

from ml_collections import ConfigDict

from avlink_jax.errors import UserError

VERSION = 2

# Per version, in its order: old names, keys that nothing reads any more, keys that came. A key goes
# where its section is (`codec_loss` is the autoencoders' alone); `towers.*` is each tower. A value
# may be a function of the config. To add a key within a version is to add a line here too.
RENAMED = {2: {'ablation': 'name'}}
REMOVED = {1: ('text.max_bytes',)}
ADDED = {
    1: {  # while the first edition was made: its oldest weights lack them
        'compile_cache': '', 'data.decode_seconds': 120.0, 'data.max_broken': 0.5,
        'data.tfds_dir': '', 'codec.centre': math.log(1e-5), 'codec.scale': 1.0,
        'codec.linear': False, 'towers.*.hidden': 0,
        'flow.loss_weight': {'audio': 1.0, 'video': 1.0}, 'train.accumulate': 1,
        'train.max_bad_steps': 10, 'train.watchdog_seconds': 0, 'checkpoint.keep_every': 0,
        'hosts': {'join_seconds': 300, 'heartbeat_seconds': 100, 'patience_seconds': 6 * 3600},
        'profile': {'steps': ''}, 'mesh.sequence': 1, 'codec_loss.perceptual': 'none',
        'codec_loss.perceptual_weight': 1.0, 'codec_loss.frames': 0,
        'video_codec.quantise': 'none', 'video_codec.entropy_weight': 0.1,
        'video_codec.commitment_weight': 0.25},
    2: {
        'name': lambda config: config['task'],
        'data.crop_height': 0, 'data.crop_width': 0, 'data.clip_seconds': 0.0,
        'towers.*.kind': 'dit', 'towers.*.guide': 0, 'towers.*.local': 0,
        'towers.audio.codec': 'mel_vae',
        'towers.video.codec':
            lambda config: 'video_vae' if 'video_codec' in config else 'pixels',
        'sample.upsample': None, 'frozen': {}, 'frozen.codec': '', 'frozen.audio': '',
        'frozen.video': '', 'frozen.video_codec': '', 'frozen.upsampler': ''},
}


def complete(saved, where='the saved config'):
  """The ConfigDict that this version makes of a config (dict) saved by it or an earlier one.

  Raises UserError, naming `where` it was saved, for one of a later version.
  """
  version = saved.get('version', 1)
  if version not in range(1, VERSION + 1):
    raise UserError(f'{where}: its config is of version {version}, and this program reads those up '
                    f'to {VERSION}: use a newer avlink_jax')
  config = copy.deepcopy(saved)
  for edition in range(version, VERSION + 1):
    for old, new in RENAMED.get(edition, {}).items():
      for branch, key in _places(config, old):
        if key in branch:
          branch[new] = branch.pop(key)
    for gone in REMOVED.get(edition, ()):
      for branch, key in _places(config, gone):
        branch.pop(key, None)
    for path, value in ADDED.get(edition, {}).items():
      for branch, key in _places(config, path):
        if key not in branch:
          branch[key] = value(config) if callable(value) else copy.deepcopy(value)
  return ConfigDict(config | {'version': VERSION})


def config_of(header, path):
  """The config that the header of a file of weights says it was trained with, completed; UserError
  where it says none."""
  try:
    saved = json.loads(header['config'])
  except (KeyError, ValueError):
    saved = None
  if not isinstance(saved, dict):
    raise UserError(f'{path}: does not say which config made it: use weights.safetensors of a run '
                    'of this program')
  return complete(saved, path)


def _places(config, path):
  """[(dict, key)] at which the last name of a dotted `path` stands, or would stand, in the sections
  that `config` has."""
  *sections, key = path.split('.')
  branches = [config]
  for section in sections:
    branches = [inner for branch in branches
                for name, inner in branch.items() if section in ('*', name)]
  return [(branch, key) for branch in branches]
