"""A config that notes which of its values are read."""

from ml_collections import ConfigDict


class Recorded(ConfigDict):
  """A copy of a ConfigDict that adds to the set `reads` the path of each value that is read of it:
  'train.steps'. Writing it out whole (`to_dict`) reads nothing: a config that is only saved has not
  been of use."""

  def __init__(self, config, reads, path=''):
    super().__init__()
    object.__setattr__(self, '_reads', reads)
    object.__setattr__(self, '_path', path)
    for key, value in config.items():
      inner = isinstance(value, ConfigDict)
      self[key] = Recorded(value, reads, f'{path}{key}.') if inner else value

  def __getitem__(self, key):
    value = super().__getitem__(key)
    if '.' not in key and not isinstance(value, ConfigDict):
      self._reads.add(self._path + key)
    return value

  def to_dict(self, visit_map=None, preserve_field_references=False):
    del visit_map, preserve_field_references  # which a copy of a config calls it with
    return {key: value.to_dict() if isinstance(value, ConfigDict) else value
            for key, value in self._fields.items()}
