"""The protocol of a task is all that the rest of the package knows of it."""

import ast
import pathlib

import pytest

import avlink_jax

PACKAGE = pathlib.Path(avlink_jax.__file__).parent
ROOMS = ('codecs', 'tasks')  # which may know what a task, or a modality, is


def offences(tree):
  """Yields (line, what is wrong) of a module: asking what class a task is of or what it may lack,
  and comparing with the name of a modality."""
  for node in ast.walk(tree):
    match node:
      case ast.Call(func=ast.Name(id='isinstance' | 'getattr' | 'hasattr'), args=[subject, *rest]):
        if 'task' in ast.unparse(subject).lower() or any('Task' in ast.unparse(x) for x in rest):
          yield node.lineno, ast.unparse(node)
      case ast.Compare(left=left, ops=ops, comparators=others):
        equal = any(isinstance(op, ast.Eq | ast.NotEq) for op in ops)
        if equal and any(isinstance(x, ast.Constant) and x.value in ('audio', 'video')
                         for x in (left, *others)):
          yield node.lineno, ast.unparse(node)


def test_outside_of_codecs_and_tasks_nobody_asks_which_task_or_modality_it_is():
  found = [f'{path.relative_to(PACKAGE)}:{line}: {what}' for path in PACKAGE.rglob('*.py')
           if path.relative_to(PACKAGE).parts[0] not in ROOMS
           for line, what in offences(ast.parse(path.read_text()))]
  assert found == []


@pytest.mark.parametrize('text', [
    'isinstance(task, FlowTask)', 'isinstance(self.task, tasks.UpsamplerTask)',
    "getattr(task, 'given', ())", "split = name == 'video'", "if 'audio' != name: pass",
    'isinstance(x, tasks.FlowTask)'])
def test_asking_would_be_found(text):
  assert len(list(offences(ast.parse(text)))) == 1
