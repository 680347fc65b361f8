"""What a run keeps frozen, as one tree: codecs by their `part`, towers by their modality.

    {"codec": {"params", "std"}, "video_codec": {…}, "towers": {name: {"dit", "text"}}}

`config.frozen.PART` says where each is read from. A run keeps a copy in `workdir/frozen/`; where
that is, it is read, so that a run does not depend on what happens to the run it was built on.
"""

import hashlib
import pathlib

import jax

from avlink_jax.storage import weights


def codecs(models):
  """{part: Codec} of the codecs that have weights."""
  made = (modality.codec for modality in models.modalities.values())
  return {codec.part: codec for codec in made if codec.part}


def shapes(models, parts, dtype=None):
  """Shapes of what `load` gives, as jax.ShapeDtypeStructs, without reading anything."""
  key, of_codecs = jax.random.key(0), codecs(models)

  def make():
    towers = {part: tower(models, part, key) for part in parts if part not in of_codecs}
    if dtype is not None:
      towers = jax.tree.map(lambda x: x.astype(dtype), towers)
    return {'towers': towers} | {
        part: of_codecs[part].init(key) for part in parts if part in of_codecs}

  return jax.eval_shape(make)


def tower(models, name, key):
  """Fresh parameters of a modality's tower and text encoder, {'dit', 'text'}."""
  modality = models.modalities[name]
  return {'dit': modality.tower.init(key), 'text': modality.text.init(key)}


def path_of(config, part, workdir=None):
  """Which file a part is read from: the run's own copy, or what `config.frozen` names."""
  kept = copy_of(workdir or '', part)
  if workdir and kept.exists():
    return kept
  return weights.locate(part, config.frozen[part], config.scale)


def copy_of(workdir, part):
  """Where a run keeps its copy of a part."""
  return pathlib.Path(workdir, 'frozen', f'{part}.safetensors')


def load(config, models, parts, dtype=None, workdir=None):
  """The frozen tree of these parts, as numpy arrays; towers in `dtype`, where one is given.

  Raises UserError where a part is not there, or is of another model.
  """
  frozen, of_codecs = {'towers': {}}, codecs(models)
  like = shapes(models, parts)
  for part in parts:
    path = path_of(config, part, workdir)
    tree = {'params': {}, **weights.read(path)[0]}  # which a file of somebody else's may not have
    if part in of_codecs:
      params = weights.fit(tree['params'], like[part]['params'], path)
      frozen[part] = {'params': params, 'std': tree['stats']['std']}
    else:
      params = weights.fit(tree['params'], like['towers'][part], path)
      frozen['towers'][part] = params if dtype is None else jax.tree.map(
          lambda x: x.astype(dtype), params)
  return frozen


def keep(workdir, frozen, parts):
  """Writes the frozen trees into `workdir/frozen/`, once."""
  for part in parts:
    path = copy_of(workdir, part)
    if path.exists():
      continue
    path.parent.mkdir(exist_ok=True)
    if part in frozen:
      tree = {'params': frozen[part]['params'], 'stats': {'std': frozen[part]['std']}}
    else:
      tree = {'params': frozen['towers'][part]}
    weights.save(path, tree, {'part': part})


def digests(config, parts, workdir=None):
  """{part: SHA-256 of the file that it is read from}, in hexadecimal digits."""
  return {part: digest(path_of(config, part, workdir)) for part in parts}


def digest(path):
  """SHA-256 of a file, in hexadecimal digits."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
