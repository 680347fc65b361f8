"""Documents: their links lead somewhere, and their commands are commands that there are."""

import functools
import importlib.util
import pathlib
import re
import shlex

import pytest
from absl import flags

from avlink_jax import main
from avlink_jax.cli import config_files
from avlink_jax.configs import common

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / 'avlink_jax'
FOLDERS = ('avlink_jax', 'configs', 'launch', 'tests')
DOCUMENTS = sorted({path.resolve() for path in (
    *ROOT.glob('*.md'), *(path for folder in FOLDERS for path in (ROOT / folder).rglob('*.md')))})
CODE = ('.py', '.sh', '.yaml', '.toml')  # suffixes of the project's own files
README_LINES = 150

documents = pytest.mark.parametrize(
    'document', DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])


# What a document says

def parts(text):
  """(prose, [line of a code block], [inline code]) of Markdown. Prose has its inline code taken
  out, and a command over several lines of a block is one line."""
  prose, lines, fenced = [], [], False
  for line in text.splitlines():
    if line.startswith('```'):
      fenced = not fenced
    elif fenced or line.startswith('    '):
      lines.append(line)
    else:
      prose.append(line)
  joined = '\n'.join(prose)
  block = re.sub(r'\\\n\s*', '', '\n'.join(lines)).splitlines()
  return re.sub(r'`[^`]+`', '', joined), block, re.findall(r'`([^`]+)`', joined)


def words(code):
  """Words of a line of code, as a shell splits them."""
  try:
    return shlex.split(code, comments=True)
  except ValueError:  # a quotation mark that is an apostrophe
    return code.split()


def is_placeholder(text):
  """Whether part of it is to be filled in: TASK, step_N, "…"."""
  return bool(re.search(r'(?<![A-Za-z])(?!README|LICENSE)[A-Z]+(?![a-z])|…|\*', text))


def anchors(path):
  """What a link may name after '#': a document's headings, as GitHub spells them."""
  headings = re.findall(r'^#+ (.+)$', path.read_text(), re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


# What is wrong with it

def faults(text, document):
  """What does not hold in the Markdown `text` of the file `document`: [line for the writer]."""
  prose, block, inline = parts(text)
  found = [fault for link in re.findall(r'\]\(([^)\s]+)\)', prose)
           for fault in faults_of_link(link, document)]
  for code in [*block, *inline]:
    found += faults_of_command(words(code))
  for code in inline:
    found += faults_of_name(' '.join(code.split()), document.parent)
  return found


def faults_of_link(link, document):
  path, _, anchor = link.partition('#')
  if '://' in path:
    return
  target = (document.parent / path).resolve() if path else document
  if path and not target.exists():
    yield f'link to {link}: no such file'
  elif anchor and anchor not in anchors(target):
    yield f'link to {link}: no such heading'


def faults_of_name(code, folder):
  """Of inline code that is a path of the project, or a key of a config."""
  if is_placeholder(code.partition('=')[0]):
    return
  path, key = re.fullmatch(r'[\w./-]+', code), re.fullmatch(r'([a-z]\w*(\.\w+)+)(=.*)?', code)
  places = (ROOT, PACKAGE, folder)
  ours = path and ('/' in code and any((place / code.split('/')[0]).is_dir() for place in places)
                   or code.endswith(CODE))
  if ours and not any((place / code).exists() for place in places):
    yield f'{code}: no such file'
  section = key and not code.endswith(CODE) and key[1].split('.')[0] in sections()
  if section and not in_configs(key[1]):
    yield f'{key[1]}: no config has such a key'


def faults_of_command(command):
  """Of a command's words, or of flags alone."""
  config, known = None, program(command)
  for word in command:
    name, equals, value = word.partition('=')
    path = (value if equals and name != '--config' else word).partition(':')[0]
    if path.startswith(tuple(f'{folder}/' for folder in FOLDERS)) and not is_placeholder(path) and (
        not (ROOT / path).exists()):
      yield f'{path}: no such file'
    if name == '--config' and not is_placeholder(value):
      config = config_of(value)
      if config is None:
        yield f'{word}: no such config'
    elif name.startswith('--config.') and not is_placeholder(name):
      key = name.removeprefix('--config.')
      if not (config_files.has(config, key) if config is not None else in_configs(key)):
        yield f'{name}: no such key'
    elif name.startswith('--') and name != '--' and known is not None and name[2:] not in known:
      yield f'{name}: no such flag of {" ".join(command[:3])}'
  for flag, module in zip(command, command[1:], strict=False):
    if flag == '-m' and not is_placeholder(module) and not exists(module):
      yield f'python -m {module}: no such module'


def program(command):
  """Names of the flags that a command's program knows; None of what is not the project's own. Of
  flags alone: those that anything of the project knows."""
  command = [word for word in command if not re.match(r'[A-Z_]+=', word)]  # variables before it
  if not command or command[0] not in ('bash', 'python'):
    return every_flag() if command and command[0].startswith('--') else None
  if command[1:2] == ['-m'] and len(command) > 2:
    return flags_of_module(command[2])
  script = ROOT / command[1] if len(command) > 1 else ROOT
  return flags_of_script(script) if script.is_file() else None


# What there is

def exists(module):
  try:
    return importlib.util.find_spec(module) is not None
  except ModuleNotFoundError:
    return False


@functools.cache
def flags_of_module(module):
  """Names of a module's flags; None of one that is somebody else's, or not there."""
  if module == main.__name__:
    return {*flags.FLAGS, 'help'}
  place = ROOT / module.replace('.', '/')
  files = list(place.glob('*.py')) if place.is_dir() else [place.with_suffix('.py')]
  if not all(file.is_file() for file in files):
    return None
  return {'help'} | {flag for file in files
                     for flag in re.findall(r"add_argument\(\s*'--(\w+)'", file.read_text())}


@functools.cache
def flags_of_script(script):
  """Names of the flags that a script of launch/ mentions, and of those of the modules it starts."""
  text = script.read_text()
  started = map(flags_of_module, re.findall(r'avlink_jax(?:\.\w+)+', text))
  return set(re.findall(r'--([a-z][a-z_-]*)', text)).union(*filter(None, started))


@functools.cache
def every_flag():
  files = [path for folder in ('avlink_jax', 'tests', 'launch')
           for path in (ROOT / folder).rglob('*.py')]
  return flags_of_module(main.__name__).union(
      *(re.findall(r"add_argument\(\s*'--(\w+)'", path.read_text()) for path in files),
      *(flags_of_script(path) for path in (ROOT / 'launch').glob('*.sh')))


@functools.cache
def config_of(given):
  """The ConfigDict of FILE[:SCALE]; None where there is none."""
  try:
    return config_files.load(given)
  except main.UserError:
    return None


@functools.cache
def configs():
  return [config_of(f'configs/{task}.py:{scale}') for task in config_files.TASKS
          for scale in common.SCALES]


def in_configs(key):
  return any(config_files.has(config, key) for config in configs())


@functools.cache
def sections():
  return {name for config in configs() for name, value in config.items() if hasattr(value, 'keys')}


# Tests

@documents
def test_links_paths_and_commands_are_ones_that_there_are(document):
  assert not faults(document.read_text(), document)


@pytest.mark.parametrize('text, fault', [
    ('See [it](no_such.md).', 'no_such.md'),
    ('See [it](configs/README.md#no-such-heading).', 'no-such-heading'),
    ('See [it](#no-such-heading).', 'no-such-heading'),
    ('In `avlink_jax/no_such.py` it is.', 'no_such.py'),
    ('In `model/no_such.py` it is.', 'no_such.py'),
    ('In `no_such.py` it is.', 'no_such.py'),
    ('Set `train.stpes=3`.', 'train.stpes'),
    ('Set `--config.train.stpes=3`.', 'train.stpes'),
    ('Give `--no_such_flag=3`.', 'no_such_flag'),
    ('```bash\npython -m avlink_jax.no_such --mode=train\n```', 'avlink_jax.no_such'),
    ('Run `python -m avlink_jax.no_such.deeper`.', 'no_such.deeper'),
    ('    python -m avlink_jax.main --config=configs/no_such.py', 'configs/no_such.py'),
    ('```\npython -m avlink_jax.main --config=configs/v2a.py:huge\n```', ':huge'),
    ('```\npython -m avlink_jax.main --config=configs/t2a.py:nano \\\n'
     '  --config.fusion.blocks=3\n```', 'fusion.blocks'),
    ('```\npython -m avlink_jax.main --mode=train --workdri=x\n```', 'workdri'),
    ('```\npython -m avlink_jax.data.prepare --sorce=x\n```', 'sorce'),
    ('```\nbash launch/no_such.sh\n```', 'no_such.sh'),
    ('```\nBUCKET=x bash launch/tpu_pod.sh run --no_such_flag=x\n```', 'no_such_flag')])
def test_what_there_is_not_is_found(text, fault):
  assert [found for found in faults(text, ROOT / 'README.md') if fault in found]


def test_the_readme_is_short():
  assert len((ROOT / 'README.md').read_text().splitlines()) <= README_LINES


def test_every_document_is_reached_from_the_readme():
  reached, waiting = set(), [ROOT / 'README.md']
  while waiting:
    document = waiting.pop().resolve()
    if document not in reached:
      reached.add(document)
      links = re.findall(r'\]\(([^)\s#]+\.md)[^)]*\)', document.read_text())
      waiting += [document.parent / link for link in links if '://' not in link]
  assert set(DOCUMENTS) <= reached


def test_every_launch_script_is_told_of():
  told = (ROOT / 'launch' / 'README.md').read_text()
  scripts = {path.name for pattern in ('*.sh', '*.py') for path in (ROOT / 'launch').glob(pattern)}
  assert not [name for name in scripts - {'env.sh'} if name not in told]
