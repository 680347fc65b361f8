"""Files of pretrained text encoders, with Hugging Face's names: folders, weights, tokenizer.

Two layouts are read: everything in one folder, as T5 is published, and the folder of a pipeline,
with the model in `text_encoder/` and what belongs to its tokenizer in `tokenizer/`.
"""

import contextlib
import hashlib
import importlib
import json
import os
import pathlib
import re
import textwrap
import typing

import flax
import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.errors import UserError
from avlink_jax.storage import foreign, weights

TOKENIZERS = {'tokenizer.json': 'tokenizers', 'spiece.model': 'sentencepiece'}  # file: library
WEIGHTS = ('model.safetensors', 'model.safetensors.index.json')
MODEL, TOKENIZER = 'text_encoder', 'tokenizer'  # folders of a pipeline
FLOATS = (jnp.float32, jnp.bfloat16, jnp.float16)


class Folders(typing.NamedTuple):
  """Folders of a model and of its tokenizer; in T5's layout both are the same."""
  model: pathlib.Path
  tokenizer: pathlib.Path


@contextlib.contextmanager
def as_user_error(where, remedy, *kinds):
  """Context that turns errors of these kinds into a one-line UserError."""
  try:
    yield
  except kinds as error:
    reason = getattr(error, 'strerror', None) or textwrap.shorten(
        str(error), 160, placeholder=' …')
    raise UserError(f'{where}: {reason or type(error).__name__}: {remedy}') from None


def is_pipeline(source):
  """Tells whether a source of a tower's weights is a pipeline with a text encoder: a folder, or a
  name OWNER/NAME on the hub."""
  path = pathlib.Path(os.path.expanduser(source))
  return os.path.isdir(path / MODEL) or (
      not os.path.exists(path) and path.suffix != '.safetensors'
      and bool(re.fullmatch(r'\w[\w.-]*/\w[\w.-]*', source)))


def find(source, remedy, config_only=False) -> Folders:
  """Folders of a text encoder in a local folder or, with a network, by its hub name.

  Args:
    source: folder or hub name.
    remedy: end of messages: what to give instead.
    config_only: fetch no more than the model's config from a hub.
  Raises UserError: no such folder, nor on the hub.
  """
  folder, where = pathlib.Path(os.path.expanduser(source)), f'{source}: no such folder'
  if not os.path.isdir(folder):
    if os.path.exists(folder) or not re.fullmatch(r'\w[\w.-]*(/\w[\w.-]*)?', str(source)):
      raise UserError(f'{where}: {remedy}')
    with as_user_error(where, 'pip install huggingface_hub, or ' + remedy, ImportError):
      hub = importlib.import_module('huggingface_hub')
    model, tokenizer = ['config.json'], []
    if not config_only:
      model, tokenizer = [*model, 'model-*.safetensors', *WEIGHTS], [*TOKENIZERS]
    patterns = [*model, *tokenizer, *(f'{MODEL}/{name}' for name in model),
                *(f'{TOKENIZER}/{name}' for name in tokenizer)]
    with as_user_error(  # HTTP's, the disk's, ...
        f'{where}, nor to be had from the hub', remedy, Exception):
      folder = pathlib.Path(hub.snapshot_download(str(source), allow_patterns=patterns))
  if (folder / MODEL).is_dir():
    return Folders(folder / MODEL, folder / TOKENIZER)
  return Folders(folder, folder)


def read_json(path, remedy):
  """Content of config.json, a dict. Raises UserError: missing, or no JSON object."""
  with as_user_error(path, remedy, OSError, ValueError):
    raw = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  return raw if isinstance(raw, dict) else {}


def weights_file(folder, remedy):
  """Path of a folder's safetensors file, or of the index of its shards."""
  for name in WEIGHTS:
    if (folder / name).exists():
      return folder / name
  if any(folder.glob('pytorch_model*.bin')):
    raise UserError(f'{folder}: pickled weights (.bin) are not read: convert them once: python -m '
                    f'avlink_jax.storage.foreign {folder}/pytorch_model*.bin {folder}/{WEIGHTS[0]}')
  raise UserError(f'{folder}: neither {" nor ".join(WEIGHTS)} in it: {remedy}')


def read_weights(folder, files, shapes, name_of, dtype):
  """Reads a model: (parameters as numpy arrays, digest of the tensors read).

  Shards are read a tensor at a time, straight to where they belong, so that the host holds the
  parameters once.

  Args:
    folder: for messages.
    files: {name: foreign.Stored} of the tensors that are the model's, all of which must be used.
    shapes: tree of the parameters' shapes; leaves below 'layers' have the layers as first axis.
    name_of: function of our name 'a/b/kernel' -> the name in files, with {} for the layer.
    dtype: of matrices ('kernel') and of the table of tokens; all else is float32.
  Raises UserError: tensors missing, unexpected, of wrong shape or quantised.
  """
  targets, tree, digest = {}, {}, hashlib.sha256()
  for ours, leaf in flax.traverse_util.flatten_dict(shapes, sep='/').items():
    matrix = ours.endswith('kernel')
    tree[ours] = np.empty(leaf.shape, dtype if matrix or ours == 'embedding' else jnp.float32)
    for layer in range(len(tree[ours])) if ours.startswith('layers/') else [...]:
      view = tree[ours][layer]
      # Files have matrices as (out, in).
      targets[name_of(ours).format(layer)] = view.T if matrix else view
  weights.fit({name: jax.ShapeDtypeStruct(stored.shape, dtype) for name, stored in files.items()},
              targets, folder)
  for name, target in sorted(targets.items()):
    target[...] = tensor = files[name].load()
    if tensor.dtype not in FLOATS:
      raise UserError(f'{folder}: {name} is {tensor.dtype}: give weights that are not quantised')
    digest.update(f'{name} {tensor.dtype} {tensor.shape}'.encode())
    digest.update(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8))
  return flax.traverse_util.unflatten_dict(tree, sep='/'), digest.hexdigest()


def scan(folder, remedy):
  """Lists the tensors of a folder's weights: {name: foreign.Stored}. Raises UserError."""
  return foreign.scan(weights_file(folder, remedy))


def read_tokenizer(folder, vocab_size, remedy, kinds=tuple(TOKENIZERS), end=None):
  """Reads a tokenizer: (function from text to token ids, digest of the file).

  Args:
    folder: with one of the files in `kinds`; the first that is there is read.
    vocab_size: number of the model's tokens.
    end: token that ends each text; None: what the file itself adds.
  Raises UserError: no tokenizer, damaged, of another model, missing library.
  """
  path = next((folder / name for name in kinds if (folder / name).exists()), None)
  if path is None:
    names = f'neither {" nor ".join(kinds)}' if len(kinds) > 1 else f'no {kinds[0]}'
    raise UserError(f'{folder}: {names} in it: {remedy}')
  with as_user_error(path, f'pip install {TOKENIZERS[path.name]}', ImportError):
    library = importlib.import_module(TOKENIZERS[path.name])
  with as_user_error(path, 'fetch it again', Exception):  # `tokenizers` raises plain Exception
    if path.suffix == '.json':
      tokenizer = library.Tokenizer.from_file(str(path))
      tokenizer.no_truncation()
      tokenizer.no_padding()
      split = lambda text: tokenizer.encode(text, add_special_tokens=end is None).ids  # noqa: E731
      last, size = end and tokenizer.token_to_id(end), tokenizer.get_vocab_size()
    else:
      tokenizer = library.SentencePieceProcessor(model_file=str(path))
      split, size = tokenizer.encode, tokenizer.get_piece_size()
      last = end and tokenizer.piece_to_id(end)
      last = None if last == tokenizer.unk_id() else last
  if end and last is None or size > vocab_size:
    fault = f'no {end} in it' if end and last is None else (
        f'{size:,} tokens, {vocab_size:,} in the model')
    raise UserError(f'{path}: {fault}: give the tokenizer that came with the weights')
  ending = [] if end is None else [last]
  tokenize = lambda text: [*split(text.encode(errors='replace').decode()), *ending]  # noqa: E731
  return tokenize, hashlib.sha256(path.read_bytes()).hexdigest()
