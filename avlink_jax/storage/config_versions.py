"""Completion of configs that earlier versions of this program saved.

A config is saved in a workdir (config.json, a checkpoint's about.json) and in the header of a
weights file, with the `version` of its schema. When it is read, keys that were added since get the
values that reproduce the earlier behaviour; new runs get their defaults from configs/ instead.

    1  the first edition, whose configs have no `version`
    2  has every key that a task's code may read
"""

import copy
import json
import math
from typing import NamedTuple

from ml_collections import ConfigDict

from avlink_jax.errors import UserError

VERSION = 2

# By version, applied in this order: renamed keys, removed keys, added keys. A key is added only if
# its section exists (`codec_loss` belongs to the autoencoders); `towers.*` means each tower. Values
# may be functions of the config. A key that is added within a version needs a line here too.
RENAMED = {2: {'ablation': 'name'}}
REMOVED = {1: ('text.max_bytes',)}
UNUSED_VIDEO_CODEC = {  # of runs on pixels, before every config had that section
    'width': 128, 'multipliers': [1, 2, 4], 'time_halvings': 0, 'blocks': 2, 'decoder_blocks': 2,
    'middle': 2, 'latent_channels': 8, 'patch': [1, 1, 1], 'kernel': [1, 3, 3], 'ends': [1, 3, 3],
    'up_kernel': [1, 3, 3], 'linear': False, 'quantise': 'none', 'kl_weight': 1e-6,
    'std_decay': 0.99, 'entropy_weight': 0.1, 'commitment_weight': 0.25}
ADDED = {
    1: {  # added during the first edition: its oldest weights lack them
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
        'validation': {'every': 0, 'count': 64, 'levels': 8}, 'log': {'wandb': ''},
        'train.transfer_guard': 'disallow', 'train.optimizer': 'adamw', 'train.only': '',
        'data.drop_silent': False,
        'data.crop_height': 0, 'data.crop_width': 0, 'data.clip_seconds': 0.0,
        'towers.*.kind': 'dit', 'towers.*.guide': 0, 'towers.*.local': 0,
        'towers.*.refine': 0, 'towers.*.refine_cell': 2, 'towers.*.refine_levels': 2,
        'codec_loss.fixed_encoder': False, 'codec_loss.latent_noise': 0.0,
        'towers.audio.codec': 'mel_vae',
        'towers.video.codec':
            lambda config: 'video_vae' if 'video_codec' in config else 'pixels',
        'video_codec.kernel': [3, 3, 3], 'video_codec': UNUSED_VIDEO_CODEC,
        'sample.preset': 'paper', 'sample.fast': {}, 'sample.level': 'as_made',
        'sample.original_sound': 'drop',
        'sample.solver': 'euler', 'sample.refresh': 1, 'sample.guidance_from': 0.0,
        'sample.guidance_to': 1.0, 'sample.upsample': None, 'frozen': {}, 'frozen.codec': '',
        'frozen.audio': '', 'frozen.video': '', 'frozen.video_codec': '', 'frozen.upsampler': ''},
}


# The base video model of pixels was `bundled` by itself before nano's was one of latents.
PIXELS = 'bundled:t2v_pixels'


class Changes(NamedTuple):
  """What completing a saved config did to it.

  Attributes:
    renamed: {old path: new path} of keys that it had.
    removed: paths of keys that it had and that mean nothing any more.
    added: {path: value of then} of keys that came since.
  """
  renamed: dict
  removed: list
  added: dict


def upgrade(saved, where='the saved config'):
  """Completes a config (dict) saved by this or an earlier version: (ConfigDict, Changes).

  Raises UserError, which names `where` it was saved: a later version saved it.
  """
  version = saved.get('version', 1)
  if version not in range(1, VERSION + 1):
    raise UserError(f'{where}: its config is of version {version}, and this program reads those up '
                    f'to {VERSION}: use a newer avlink_jax')
  config, changes = copy.deepcopy(saved), Changes({}, [], {})
  for edition in range(version, VERSION + 1):
    for old, new in RENAMED.get(edition, {}).items():
      for branch, key, path in _locations(config, old):
        if key in branch:
          branch[new] = branch.pop(key)
          changes.renamed[path] = path.removesuffix(key) + new
    for removed in REMOVED.get(edition, ()):
      for branch, key, path in _locations(config, removed):
        if key in branch:
          del branch[key]
          changes.removed.append(path)
    for added, value in ADDED.get(edition, {}).items():
      for branch, key, path in _locations(config, added):
        if key not in branch:
          branch[key] = value(config) if callable(value) else copy.deepcopy(value)
          changes.added[path] = branch[key]
  if config.get('towers', {}).get('video', {}).get('codec') == 'pixels':
    _rename(config.get('frozen', {}), 'video')
  if config.get('task') == 'upsampler':
    _rename(config.get('train', {}), 'init_from')
  return ConfigDict(config | {'version': VERSION}), changes


def complete(saved, where='the saved config'):
  """Completes a config as `upgrade` does, without its Changes."""
  return upgrade(saved, where)[0]


def fate(path):
  """What became of a key that earlier versions had, as text for the user; '' of any other."""
  for version in range(1, VERSION + 1):
    *sections, key = path.split('.')
    if (new := RENAMED.get(version, {}).get(path)) is not None:
      return f'its name is --config.{".".join([*sections, new])} now'
    if path in REMOVED.get(version, ()):
      return 'it is no more, as nothing reads it: leave it out'
  return ''


def config_of(header, path):
  """Config of the run that trained a weights file, from its header, completed. Raises UserError: it
  has none."""
  try:
    saved = json.loads(header['config'])
  except (KeyError, ValueError):
    saved = None
  if not isinstance(saved, dict):
    raise UserError(f'{path}: does not say which config made it: use weights.safetensors of a run '
                    'of this program')
  return complete(saved, path)


def _rename(section, key):
  """Gives the bundled base model of pixels its name of now."""
  if section.get(key) == 'bundled':
    section[key] = PIXELS


def _locations(config, path):
  """List of (dict, key, path) for the last name of a dotted `path`, in the sections that `config`
  has."""
  *sections, key = path.split('.')
  branches = [(config, '')]
  for section in sections:
    branches = [(inner, f'{prefix}{name}.') for branch, prefix in branches
                for name, inner in branch.items() if section in ('*', name)]
  return [(branch, key, f'{prefix}{key}') for branch, prefix in branches]
