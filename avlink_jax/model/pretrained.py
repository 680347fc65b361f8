"""Published models in a tower's place: what `config.frozen.NAME` means beside files and workdirs.

A frozen tower is a weights file, a workdir, or a published model: a folder in the public layout or
a hub name (storage/published.py). Of a published model the tower's sizes are its own config's, not
those of `config.towers.NAME`.
"""

from avlink_jax.errors import UserError
from avlink_jax.model import wan_import
from avlink_jax.storage import published

READERS = {'wan': wan_import}  # towers.NAME.kind -> module with read_sizes(folder), read(folder, …)


def source(config, name):
  """What `frozen.NAME` names, if that is a published model, or ''.

  Raises UserError: the tower is of a kind for which none are read.
  """
  value, tower = config.frozen[name], config.towers[name]
  if published.is_folder(value) and tower.kind not in READERS:
    raise UserError(f'frozen.{name}={value} is a published model, and towers.{name}.kind='
                    f'{tower.kind}: set it to {" or ".join(READERS)}')
  found = published.is_folder(value) or tower.kind in READERS and published.is_hub_name(value)
  return value if found else ''


def tower_config(config, name, channels, text_width):
  """`config.towers.NAME`, with the sizes of the published model if `frozen.NAME` names one.

  Raises UserError: it is unavailable, or does not go with the codec, whose data have `channels`, or
  with the text encoder, whose embeddings have `text_width` numbers.
  """
  tower, value = config.towers[name], source(config, name)
  if not value:
    return tower
  sizes = READERS[tower.kind].read_sizes(
      published.locate(value, 'transformer', 'config.json'))
  if sizes.channels != channels:
    raise UserError(f'frozen.{name}={value} models data of {sizes.channels} channels, and the '
                    f'codec {tower.codec} makes {channels}: set towers.{name}.codec to the one '
                    'that it was trained with')
  if sizes.text_width != text_width:
    raise UserError(f'frozen.{name}={value} takes embeddings of {sizes.text_width} numbers, and '
                    f'the text encoder makes {text_width}: use the one that it was trained with')
  tower = tower.copy_and_resolve_references()
  tower.update(width=sizes.width, depth=sizes.depth, heads=sizes.heads, mlp=sizes.mlp,
               patch=sizes.patch, rope_base=10_000.0, prediction='velocity', hidden=0, detail=0.0)
  return tower


def folder(config, name):
  """Folder of the published model that `frozen.NAME` names, its weights there: what to read."""
  return published.locate(source(config, name), 'transformer', '*.json', '*.safetensors')


def read(config, name, tower, dtype=None, place=None):
  """Parameters of `tower` from the published model; arguments as in wan_import.read."""
  return READERS[config.towers[name].kind].read(folder(config, name), tower, dtype, place)
