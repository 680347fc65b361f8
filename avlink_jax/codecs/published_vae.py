"""Published autoencoders: the folder `vae/` of a published model (storage/published.py).

`frozen.codec` and `frozen.video_codec` name that model, its `vae/` alone, or a hub name; where they
do not, `frozen.audio` and `frozen.video`, which name the model of the tower, do. Weights are read
strictly: every tensor is used once, and every shape is checked before one is read.
"""

import os
import pathlib
import re

import flax
import jax.numpy as jnp
import numpy as np

from avlink_jax.codecs import weight_norm
from avlink_jax.codecs.codec import Codec, weights_shapes
from avlink_jax.errors import UserError
from avlink_jax.storage import foreign, published, weights

VAE = 'vae'
TENSORS = 'diffusion_pytorch_model.safetensors'
PICKLED_DAC = 'vae_128d_48k.pth'  # may have been converted (storage/foreign.py)
# towers.NAME.codec -> key in `config.frozen`, and the names that its weights may have in the
# folder, of which the first that is there is read.
KINDS = {'wan_vae': ('video_codec', (TENSORS,)),
         'dac': ('codec', (TENSORS, f'{PICKLED_DAC}.safetensors', PICKLED_DAC))}
NUMBERED = re.compile(r'_(\d+)')  # 'block_3' stands for torch's 'block.3'


def of_tower(config, name):
  """Folder with the published autoencoder of the modality `name`.

  Raises UserError: neither its codec's key in `config.frozen` nor the tower's names one.
  """
  part, _ = KINDS[config.towers[name].codec]
  sources = [source for source in (config.frozen[part], config.frozen[name])
             if source and not weights.is_bundled(source)]
  for source in sources:
    if (folder := find(source)) is not None:
      return folder
  where = f'{sources[0]}: no folder with {VAE}/, and no name on the hub: ' if sources else ''
  raise UserError(f'{where}towers.{name}.codec={config.towers[name].codec} is the autoencoder of a '
                  f'published model: set --config.frozen.{part} to its folder or hub name')


def of_part(config, part):
  """(folder, path of the weights) of the published autoencoder that a key of `config.frozen` stands
  for; None: it stands for weights of a run of ours. Raises UserError: they are not there."""
  for name, tower in config.towers.items():
    if not tower.features and KINDS.get(tower.codec, ('',))[0] == part:
      folder = of_tower(config, name)
      return folder, weights_file(folder, tower.codec)
  return None


def find(source):
  """Folder of the autoencoder in a published model's folder, which may be that folder itself, or
  of a model on the hub; None: it is neither. Raises UserError: the hub does not give it."""
  folder = pathlib.Path(os.path.expanduser(source))
  if os.path.isdir(folder) and folder.name == VAE:
    return folder
  if os.path.isdir(folder / VAE) or published.is_hub_name(source):
    return published.locate(source, VAE, '*')
  return None


def weights_file(folder, kind):
  """Path of the weights of a codec of a kind in `folder`. Raises UserError: there are none."""
  _, names = KINDS[kind]
  for name in names:
    if (folder / name).is_file():
      return folder / name
  raise UserError(f'{folder}: no weights: {" or ".join(names)} is expected there')


def torch_name(path):
  """torch's name of a parameter: ('block_3', 'conv1', 'kernel') -> 'block.3.conv1.weight'."""
  *modules, leaf = path
  leaf = {'kernel': 'weight', 'scale': 'gamma'}.get(leaf, leaf)
  return '.'.join([NUMBERED.sub(r'.\1', module) for module in modules] + [leaf])


def read_params(path, like, transposed=lambda name: False, prefix=''):
  """Parameters with the names and shapes of `like` from a file of torch tensors.

  Kernels (out, in, …) become (…, in, out), and (in, out, k) of transposed convolutions, which
  `transposed` tells by their names, (k, in, out). Weight normalisation is folded.

  Args:
    path: the file, in any of foreign.py's formats.
    like: tree of shapes.
    transposed: function of torch's name.
    prefix: of all names in the file, where they have it.

  Raises UserError, which lists the first three tensors that are missing, of another shape, or not
  of this model.
  """
  stored = foreign.scan(path)
  stored = {name.removeprefix(prefix): tensor for name, tensor in stored.items()
            if name.startswith(prefix)} or stored
  stored = weight_norm.folded(stored)
  params, faults = {}, []
  for place, leaf in flax.traverse_util.flatten_dict(like).items():
    name = torch_name(place)
    if name not in stored:
      faults.append(f'{name} is missing')
      continue
    tensor = stored.pop(name)
    expected = _in_torch(leaf.shape, transposed(name))
    if _squeezed(tensor.shape) != _squeezed(expected):
      faults.append(f'{name} is {tuple(tensor.shape)}, not {expected}')
    params[place] = (tensor, leaf, transposed(name))
  faults += [f'{name} is not of this model' for name in sorted(stored)]
  if faults:
    more = f'; and {len(faults) - 3} more' if len(faults) > 3 else ''
    raise UserError(f'{path}: these weights are of another model: {"; ".join(faults[:3])}{more}')
  return flax.traverse_util.unflatten_dict({
      place: _converted(*entry) for place, entry in params.items()})


def _in_torch(shape, transposed):
  """Shape in torch of an array of ours, up to axes of size 1: kernels (…, in, out) become
  (out, in, …), or (in, out, …)."""
  if len(shape) < 2:
    return tuple(shape)
  *window, inner, outer = shape
  return (*((inner, outer) if transposed else (outer, inner)), *window)


def _squeezed(shape):
  return [n for n in shape if n != 1]


def _converted(tensor, leaf, transposed):
  """Array of ours, float32, from a stored tensor."""
  array = np.asarray(tensor.load(), np.float32)
  if array.ndim > 1 and len(leaf.shape) > 1:
    order = (*range(2, array.ndim), *((0, 1) if transposed else (1, 0)))
    array = array.transpose(order)
  return np.ascontiguousarray(array.reshape(leaf.shape))


class PublishedCodec(Codec):
  """Codec with the weights of a published model.

  Attributes:
    kind: its name in codec.KINDS.
    folder: with the weights.
    prefix: of the names in their file, where they have it.
  """
  kind: str
  folder: pathlib.Path
  prefix = ''

  @property
  def part(self):
    return KINDS[self.kind][0]

  def load(self, path):
    like = weights_shapes(self)['params']
    params = read_params(path, like, self.is_transposed, self.prefix)
    return {'params': params, 'std': np.ones((), np.float32)}

  def is_transposed(self, name):
    """Tells whether a kernel, by torch's name, is of a transposed convolution."""
    del name
    return False

  def init(self, key):
    return {'params': self.sizes.init(key), 'std': jnp.ones(())}
