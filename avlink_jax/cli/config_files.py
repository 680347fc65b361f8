"""Config files: where they are, what they give, and what the comments in them say of each key.

`configs/TASK.py` is read where it is; in a folder that has none, it is the package's own.
"""

import ast
import difflib
import importlib.util
import io
import pathlib
import tokenize

from ml_collections import ConfigDict

from avlink_jax.errors import UserError
from avlink_jax.training.resilience.config_drift import flat

OWN = pathlib.Path(__file__).parents[1] / 'configs'
TASKS = ('v2a', 'a2v', 'joint', 'av', 't2a', 't2v', 't2v_pixels', 'mel_vae', 'vocoder', 'base_vae',
         'video_vae', 'upsampler')

FIXED = ('version', 'task', 'scale')  # keys


def find(given):
  """FILE[:SCALE] where it is: the package's own file for a configs/NAME.py that is not there.
  Raises UserError where there is none."""
  path, colon, scale = given.partition(':')
  if path.endswith('.py') and pathlib.Path(path).is_file():
    return given
  own = OWN / pathlib.PurePath(path).name
  if pathlib.PurePath(path) == pathlib.PurePath('configs', own.name) and own.is_file():
    return f'{own}{colon}{scale}'
  raise UserError(f'--config={given}: no such config; give configs/TASK.py[:SCALE], TASK one of '
                  f'{", ".join(TASKS)}')


def load(given):
  """The ConfigDict of FILE[:SCALE]. Raises UserError where there is none."""
  path, _, scale = find(given).partition(':')
  spec = importlib.util.spec_from_file_location('config_file', path)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    return module.get_config(*([scale] if scale else []))
  except Exception as error:  # it is the user's own code, and may do anything
    kind = '' if isinstance(error, ValueError) else f'{type(error).__name__}: '
    raise UserError(f'--config={given}: {kind}{error}') from None


def check_settable(keys):
  """Raises UserError: one of these keys is what the config's name says."""
  for key in FIXED:
    if key in keys:
      raise UserError(f'--config.{key} is not to be set: --config=configs/TASK.py:SCALE chooses it')


def has(config, key):
  """Whether a dotted key, or a section, is in a config."""
  for name in key.split('.'):
    if not isinstance(config, ConfigDict) or name not in config:
      return False
    config = config[name]
  return True


def near(key, config):
  """Up to three keys of a config that a mistyped one might be: those whose last name is spelled
  like its own, the most alike first."""
  last_of = {other: other.rpartition('.')[2] for other in flat(config.to_dict())}
  close = difflib.get_close_matches(key.rpartition('.')[2], set(last_of.values()), 3, 0.7)
  alike = {other: difflib.SequenceMatcher(None, key, other).ratio()
           for other, last in last_of.items() if last in close}
  return sorted(alike, key=alike.get, reverse=True)[:3]


def comments(path):
  """{key: what the comment beside it says} of a config file. `towers.*.width` is the key of every
  tower; a section has the comment on its first line.

  A key is an assignment `c.train.steps = …` or a keyword of a section's dict; its comment stands
  at the end of its line, or else on the lines above it.
  """
  source = pathlib.Path(path).read_text()
  lines = source.splitlines()
  tokens = tokenize.generate_tokens(io.StringIO(source).readline)
  beside = {token.start[0]: token.string.lstrip('# ') for token in tokens
            if token.type == tokenize.COMMENT}

  def said(node):
    above, block = node.lineno - 1, []
    if text := beside.get(node.end_lineno):
      return text
    while above in beside and lines[above - 1].lstrip().startswith('#'):
      block.insert(0, beside[above])
      above -= 1
    return ' '.join(block)

  found = {}

  def keep(key, value, node):
    keywords = _keywords(value)
    section = keywords and '.' not in key
    found.setdefault(key, beside.get(node.lineno, '') if section else said(node))
    for keyword in keywords:
      keep(f'{key}.{keyword.arg}', keyword.value, keyword)

  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Assign):
      for target in node.targets:
        for one in target.elts if isinstance(target, ast.Tuple) else [target]:
          if key := _path(one):
            keep(key, node.value, node)
  return found


def _path(target):
  """The dotted key that `c.a.b` or `c.a[name]` assigns to; '' of other targets."""
  if isinstance(target, ast.Attribute):
    inner = _path(target.value)
    return f'{inner}.{target.attr}' if inner else (
        target.attr if isinstance(target.value, ast.Name) else '')
  if isinstance(target, ast.Subscript):
    inner = _path(target.value)
    name = target.slice.value if isinstance(target.slice, ast.Constant) else '*'
    return f'{inner}.{name}' if inner else ''
  return ''


def _keywords(value):
  """Keywords of a dict(…) or ConfigDict(dict(…))."""
  if not (isinstance(value, ast.Call) and getattr(value.func, 'id', '') in ('dict', 'ConfigDict')):
    return []
  return [keyword for keyword in value.keywords if keyword.arg] + [
      keyword for inner in value.args for keyword in _keywords(inner)]
