"""Published models: a folder in the layout of public hubs, or a hub name OWNER/NAME.

    transformer/  vae/  text_encoder/  tokenizer/  scheduler/

A part is a folder of its own, with config.json and weights in safetensors: one file, or several and
their index.
"""

import functools
import hashlib
import json
import os
import pathlib
import re
import textwrap

from avlink_jax.errors import UserError
from avlink_jax.storage.weights import OF_RUN

HUB_NAME = re.compile(r'\w[\w.-]*/\w[\w.-]*')
WEIGHTS = ('diffusion_pytorch_model.safetensors', 'diffusion_pytorch_model.safetensors.index.json')
SUFFIXES = ('.safetensors', '.pth')  # of weights
SAMPLES, SAMPLE_BYTES = 256, 4096  # a fingerprint's look at a file: how many places, how much each


def is_folder(source):
  """Tells whether `source` is a published model's folder on this machine."""
  return bool(source) and os.path.isdir(os.path.join(os.path.expanduser(source), 'transformer'))


def is_hub_name(source):
  """Tells whether `source` can be a hub name: OWNER/NAME, and nothing that is here."""
  return (bool(HUB_NAME.fullmatch(source)) and not source.endswith('.safetensors')
          and not os.path.exists(source))


def locate(source, part, *files):
  """Folder of a published model's `part`, such as 'transformer'; of a hub name only `files`
  (patterns, such as 'config.json') are fetched. Raises UserError: not there, nor to be fetched."""
  folder = pathlib.Path(os.path.expanduser(source))
  if is_hub_name(source):
    folder = _fetched(source, tuple(f'{part}/{name}' for name in files))
  if not os.path.isdir(folder / part):  # as of a name that is too long
    raise UserError(f'{source}: no {part}/ in it: give a folder in the layout of a published model')
  return folder / part


def run(name):
  """Folder of a run of this program that is on the hub, without its checkpoints. Raises UserError:
  not to be fetched."""
  return _fetched(name, ('config.json', OF_RUN, 'frozen/*'))


@functools.cache
def _fetched(name, patterns):
  """Snapshot of these files of a hub's model: its folder."""
  import huggingface_hub  # half a second: for hub names alone
  try:
    return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=list(patterns)))
  except Exception as error:  # HTTP's, the disk's, ...
    reason = textwrap.shorten(str(error), 160, placeholder=' …') or type(error).__name__
    wanted = 'that a run left' if OF_RUN in patterns else 'in the layout of a published model'
    raise UserError(f'{name}: no such folder, nor to be had from the hub ({reason}): give a folder '
                    f'{wanted}') from None


def read_config(folder):
  """Reads a part's config.json: dict. Raises UserError: missing, or no JSON object."""
  path = folder / 'config.json'
  try:
    config = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    reason = getattr(error, 'strerror', None) or 'not JSON'
    raise UserError(f'{path}: {reason}: fetch it again') from None
  if not isinstance(config, dict):
    raise UserError(f'{path}: not a JSON object: fetch it again')
  return config


def weights_file(folder):
  """Path of a part's weights: the file, or the index of several. Raises UserError: neither."""
  for name in WEIGHTS:
    if (folder / name).is_file():
      return folder / name
  raise UserError(f'{folder}: neither {" nor ".join(WEIGHTS)} in it: fetch it again')


def fingerprint(folder):
  """SHA-256, hexadecimal, of a part's config, if any, and of each weights file its name, its length
  and a sample of its bytes. It tells models apart without reading gigabytes; a flipped bit it does
  not notice."""
  config = folder / 'config.json'
  digest = hashlib.sha256(config.read_bytes() if config.is_file() else b'')
  for path in sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES):
    size = path.stat().st_size
    digest.update(f'{path.name} {size} '.encode())
    with path.open('rb') as file:
      for sample in range(SAMPLES):
        file.seek(max(0, size - SAMPLE_BYTES) * sample // (SAMPLES - 1))
        digest.update(file.read(SAMPLE_BYTES))
  return digest.hexdigest()
