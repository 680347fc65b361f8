"""Frozen weights of a run as one tree: codecs by their `part`, towers by their modality.

    {"codec": {"params", "std"}, "video_codec": {…}, "towers": {name: {"dit", "text"}}}

`config.frozen.PART` names their sources. A run copies them to `workdir/frozen/` and reads these
copies from then on, so that it does not depend on later changes of the source. Published models
(model/pretrained.py, codecs/published_vae.py) are too large for that, and are not changed: the run
notes which ones it was begun with, and refuses others.
"""

import functools
import hashlib
import json
import pathlib

import flax
import jax
import ml_dtypes
import numpy as np

from avlink_jax.codecs import published_vae
from avlink_jax.codecs.codec import weights_shapes
from avlink_jax.errors import UserError
from avlink_jax.model import pretrained
from avlink_jax.storage import published, weights
from avlink_jax.storage.atomic import write_text


def codecs(models):
  """Mapping {part: Codec} of the codecs that have weights."""
  every = (modality.codec for modality in models.modalities.values())
  return {codec.part: codec for codec in every if codec.part}


def shapes(models, parts, dtype=None):
  """Shapes of `load`'s result, as jax.ShapeDtypeStructs, without reading anything."""
  by_part = codecs(models)
  towers = {part: {'dit': tower_shapes(models.modalities[part].tower),
                   'text': jax.eval_shape(models.modalities[part].text.init, jax.random.key(0))}
            for part in parts if part not in by_part}
  if dtype is not None:
    towers = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), towers)
  return {'towers': towers} | {
      part: weights_shapes(by_part[part]) for part in parts if part in by_part}


@functools.lru_cache(maxsize=16)
def tower_shapes(tower):
  """Shapes of a tower's parameters; equal towers are traced once."""
  return jax.eval_shape(tower.init, jax.random.key(0))


def path_of(config, part, workdir=None):
  """Path that a part is read from: the run's own copy, or what `config.frozen` names."""
  copy = copy_of(workdir or '', part)
  if workdir and copy.exists():
    return copy
  return weights.locate(part, config.frozen[part], config.scale)


def copy_of(workdir, part):
  """Path of a run's copy of a part."""
  return pathlib.Path(workdir, 'frozen', f'{part}.safetensors')


def note_of(workdir, part):
  """Path of a run's note of the published model that a part is."""
  return pathlib.Path(workdir, 'frozen', f'{part}.json')


def load(config, models, parts, dtype=None, workdir=None, place=None):
  """Reads the frozen tree of these parts, as numpy arrays; towers in `dtype` unless None. With
  `place`, shapes -> shardings, published towers are put on their devices while they are read.

  Raises UserError: a part is missing, or of another model.
  """
  frozen, by_part = {'towers': {}}, codecs(models)
  like = shapes(models, [part for part in parts if part not in by_part])
  for part in parts:
    folder = published_folder(config, part)
    if folder is not None:
      check_note(config, workdir, part, folder)
      if part in by_part:
        frozen[part] = by_part[part].load(published_vae.of_part(config, part)[1])
      else:
        frozen['towers'][part] = published_tower(config, models, part, dtype, place)
      continue
    path = path_of(config, part, workdir)
    if part in by_part:
      frozen[part] = by_part[part].load(path)
    else:
      tree = {'params': {}, **weights.read(path)[0]}  # another program's file may lack 'params'
      params = weights.fit(tree['params'], like['towers'][part], path)
      frozen['towers'][part] = params if dtype is None else jax.tree.map(
          lambda x: x.astype(dtype), params)
  return frozen


def published_folder(config, part):
  """Folder with the published weights of a part; None: it has those of a run of ours."""
  if part in config.towers:
    return pretrained.folder(config, part) if pretrained.source(config, part) else None
  found = published_vae.of_part(config, part)
  return None if found is None else found[0]


def published_tower(config, models, part, dtype=None, place=None):
  """Parameters {'dit', 'text'} of a modality whose tower is a published model; `dtype` and `place`
  as in `load`. Raises UserError: the text encoder is one that is trained with its tower."""
  if jax.tree.leaves(jax.eval_shape(models.modalities[part].text.init, jax.random.key(0))):
    raise UserError(f'frozen.{part}={pretrained.source(config, part)} is a published model, and '
                    "its text encoder here (words) one that is trained with its tower: set "
                    'encoder=t5, umt5 or qwen3, whichever it was trained with')
  tower = models.modalities[part].tower
  return {'dit': pretrained.read(config, part, tower, dtype, place), 'text': {}}


def check_note(config, workdir, part, folder):
  """Raises UserError: the run was begun with another published model than the one in `folder`."""
  note = note_of(workdir or '', part)
  if not (workdir and note.exists()):
    return
  begun = json.loads(note.read_text())
  if begun['fingerprint'] != published.fingerprint(folder):
    raise UserError(f'frozen.{part}={config.frozen[part]} is not the model that {workdir} was '
                    f'begun with ({begun["source"]}): give that one')


def same(config, part, workdir):
  """Tells whether `config.frozen` names the weights that a run has its copy of, wherever they lie:
  they may have been rounded to bfloat16 for it."""
  if (folder := published_folder(config, part)) is not None:
    note = note_of(workdir, part)
    return note.exists() and (
        json.loads(note.read_text())['fingerprint'] == published.fingerprint(folder))
  copy = copy_of(workdir, part)
  try:
    old, new = (flax.traverse_util.flatten_dict(weights.read(path)[0], sep='/') for path in (
        copy, weights.locate(part, config.frozen[part], config.scale)))
  except UserError:
    return False
  rounded = lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32)  # noqa: E731
  return all(name in new and (np.array_equal(x, new[name]) or np.array_equal(x, rounded(new[name])))
             for name, x in old.items())


def keep(config, workdir, frozen, parts):
  """Writes the frozen trees into `workdir/frozen/` unless they are there, and of published models
  which they are."""
  for part in parts:
    path = copy_of(workdir, part)
    if (folder := published_folder(config, part)) is not None:
      write_text(note_of(workdir, part), json.dumps({
          'source': config.frozen[part] or str(folder),
          'fingerprint': published.fingerprint(folder)}))
      continue
    if path.exists():
      continue
    if part in frozen:
      tree = {'params': frozen[part]['params'], 'stats': {'std': frozen[part]['std']}}
    else:
      tree = {'params': frozen['towers'][part]}
    weights.save(path, tree, {'part': part})


def digests(config, parts, workdir=None):
  """Mapping {part: SHA-256 of the file that it is read from, or a published model's fingerprint},
  hexadecimal."""
  folders = {part: published_folder(config, part) for part in parts}
  return {part: digest(path_of(config, part, workdir)) if folder is None
          else published.fingerprint(folder) for part, folder in folders.items()}


def digest(path):
  """SHA-256 of a file, hexadecimal."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
