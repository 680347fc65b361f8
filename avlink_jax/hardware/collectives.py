"""Bytes that a compiled program's chips exchange, by kind of collective, from its HLO text.

Counts are bytes sent by one of n chips in a ring algorithm, the least that any algorithm sends,
given the operand's size on one chip:

    all-gather (n − 1) · operand         reduce-scatter, all-to-all (n − 1)/n · operand
    all-reduce 2 (n − 1)/n · operand     collective-permute operand

A loop's body counts as often as it runs; a conditional as its branch that sends most.
"""

import collections
import dataclasses
import functools
import math
import re

KINDS = {
    'all-gather': lambda n: n - 1,
    'all-reduce': lambda n: 2 * (n - 1) / n,
    'reduce-scatter': lambda n: (n - 1) / n,
    'all-to-all': lambda n: (n - 1) / n,
    'collective-permute': lambda n: 1,
}
# ragged-all-to-all sends at most what all-to-all does; collective-broadcast passes its operand on.
ALIASES = {'ragged-all-to-all': 'all-to-all', 'collective-broadcast': 'collective-permute'}
ARRAY = re.compile(r'\b(pred|bf16|[sufc]\d+)(?:e\w+)?\[([\d,]*)\]')


@dataclasses.dataclass(frozen=True)
class Instruction:
  """Line `name = shape opcode(operands), attributes` of HLO text."""
  name: str
  shape: str
  opcode: str
  operands: str
  attributes: str
  is_root: bool

  @functools.cached_property
  def inputs(self):
    """Names of the operands."""
    return re.findall(r'%([\w.-]+)', self.operands)

  def called(self, *keys):
    """Names of the computations under the attributes `keys`."""
    matches = re.findall(rf'\b(?:{"|".join(keys)})=(\{{[^}}]*\}}|%[\w.-]+)', self.attributes)
    return [name for text in matches for name in re.findall(r'%([\w.-]+)', text)]


def count(hlo, chips):
  """Counts a program of `chips` partitions from its HLO text: ({kind: bytes that a chip sends},
  number of loops with unknown trip count, whose collectives are counted once).

  Raises ValueError: unknown notation of replica groups.
  """
  module = HloModule(hlo, chips)
  sent = module.sent(module.entry)
  return {kind: round(sent[kind]) for kind in KINDS}, module.unknown_loops


class HloModule:
  """Computations of HLO text: {name: {name: Instruction}}."""

  def __init__(self, hlo, chips):
    self.computations, self.entry, self.chips, self.unknown_loops = {}, None, chips, 0
    self._sent = {}
    current = None
    for line in hlo.splitlines():
      if head := re.match(r'(ENTRY )?%?([\w.-]+) (?:\(.*)?\{$', line):
        current = self.computations[head[2]] = {}
        self.entry = head[2] if head[1] else self.entry
      elif current is not None and (instruction := _instruction(line)):
        current[instruction.name] = instruction

  def sent(self, name):
    """Counter {kind: bytes} of one execution of a computation."""
    if name not in self._sent:
      total = collections.Counter()
      for instruction in self.computations[name].values():
        total.update(self._sent_by(instruction, name))
      self._sent[name] = total
    return self._sent[name]

  def _sent_by(self, instruction, where):
    """Counter {kind: bytes} of one instruction in the computation `where`."""
    opcode = instruction.opcode.removesuffix('-start')
    kind = ALIASES.get(opcode, opcode)
    if kind in KINDS:
      if 'chain_id=' in instruction.attributes and not self._begins(where):
        return {}
      if where.startswith('all-reduce-scatter'):  # TPU's name for it
        kind = 'reduce-scatter'
      size = sum(_bytes(self.computations[where][x].shape) for x in instruction.inputs)
      return {kind: size * KINDS[kind](self._group(instruction.attributes))}
    if opcode == 'while':
      body, = instruction.called('body')
      return self._loop(instruction, where, self.sent(body))
    if opcode == 'conditional':
      branches = [self.sent(x) for x in instruction.called(
          'branch_computations', 'true_computation', 'false_computation')]
      return max(branches, key=lambda branch: branch.total())
    if opcode in ('fusion', 'call', 'async', 'custom-call'):
      total = collections.Counter()
      for inner in instruction.called('calls', 'to_apply', 'called_computations'):
        total.update(self.sent(inner))
      return total
    return {}

  def _begins(self, where):
    """Tells whether a computation starts an asynchronous collective.

    On TPUs the start, the overlapped work and the end are separate computations that all contain
    the collective; it is counted at its start."""
    return any('AsyncCollectiveStart' in x.attributes for x in self.computations[where].values())

  def _loop(self, loop, where, sent):
    if not sent.total():
      return {}
    times = self.trip_count(loop, where)
    if times is None:
      self.unknown_loops += 1
      times = 1
    return {kind: times * size for kind, size in sent.items()}

  def trip_count(self, loop, where):
    """Trip count of a while loop, or None if unknown.

    It is in `known_trip_count`, or follows from a counter that is compared with a constant.
    """
    if match := re.search(r'known_trip_count[^}]*?"n":"?(\d+)', loop.attributes):
      return int(match[1])
    body, condition = (self.computations[loop.called(key)[0]] for key in ('body', 'condition'))
    compare = next((x for x in condition.values() if x.is_root), None)
    if compare is None or 'direction=LT' not in compare.attributes:
      return None
    counter, end = (condition[x] for x in compare.inputs)
    index = re.search(r'index=(\d+)', counter.attributes)
    end = _constant(end)
    if counter.opcode != 'get-tuple-element' or end is None:
      return None
    start = self._start(loop, where, int(index[1]))
    step = self._step(body, int(index[1]))
    return None if start is None or step is None else -(-(end - start) // step)

  def _start(self, loop, where, index):
    """Initial value of a loop variable, or None if it is not constant."""
    instructions = self.computations[where]
    operand = instructions[loop.inputs[0]]
    if operand.opcode != 'tuple':
      return None
    value = instructions[operand.inputs[index]]
    while value.opcode in ('copy', 'copy-start', 'copy-done', 'bitcast', 'convert'):
      value = instructions[value.inputs[0]]
    return _constant(value)

  def _step(self, body, index):
    """Increment of a loop variable, or None if it is not constant."""
    root = next(x for x in body.values() if x.is_root)
    value = body[root.inputs[index]] if root.opcode == 'tuple' else root
    while value.opcode in ('copy', 'copy-start', 'copy-done', 'bitcast', 'convert'):
      value = body[value.inputs[0]]
    constants = [_constant(body[x]) for x in value.inputs]
    steps = [x for x in constants if x is not None]
    if value.opcode == 'fusion':  # an addition that stands alone, or with its constant inside
      inner = self.computations[value.called('calls')[0]]
      steps += [x for x in map(_constant, inner.values()) if x is not None]
      value = next(x for x in inner.values() if x.is_root)
    return steps[0] if value.opcode == 'add' and len(steps) == 1 and steps[0] > 0 else None

  def _group(self, attributes):
    """Number of chips in a replica group."""
    if pairs := re.search(r'source_target_pairs=', attributes):
      return 2 if pairs else 1
    if groups := re.search(r'replica_groups=\{\{([\d,]+)\}', attributes):
      return groups[1].count(',') + 1
    if re.search(r'replica_groups=\{\}', attributes):
      return self.chips
    if groups := re.search(r'replica_groups=\[\d+,(\d+)\]<=', attributes):
      return int(groups[1])
    if groups := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
      sizes = dict(re.findall(r"'([^']+)'=(\d+)", groups[1]))
      axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", groups[2])  # an axis, or a part of one
      return math.prod(int(part or sizes[axis]) for axis, part in axes)
    raise ValueError(f'replica groups in a form not known here: {attributes[:200]}')


def _instruction(line):
  """Parses a line of a computation: Instruction, or None."""
  head = re.match(r'\s+(ROOT )?%?([\w.-]+) = ', line)
  if not head:
    return None
  rest = line[head.end():]
  end = _closing(rest, 0) + 1 if rest.startswith('(') else rest.index(' ')
  shape, rest = rest[:end], rest[end:].lstrip()
  opened = rest.index('(')
  closed = _closing(rest, opened)
  return Instruction(head[2], shape, rest[:opened], rest[opened + 1:closed], rest[closed + 1:],
                     bool(head[1]))


def _closing(text, opened):
  """Position of the parenthesis that closes the one at `opened`."""
  depth = 0
  for match in re.finditer(r'[()]', text[opened:]):
    depth += 1 if match[0] == '(' else -1
    if depth == 0:
      return opened + match.start()
  raise ValueError(f'HLO text with a parenthesis left open: {text[:200]}')


def _bytes(shape):
  """Bytes of the arrays in a shape, which may be a tuple."""
  total = 0
  for kind, sizes in ARRAY.findall(shape):
    bits = {'pred': 8, 'bf16': 16}.get(kind) or int(kind[1:])
    total += bits * math.prod(map(int, filter(None, sizes.split(','))))
  return total / 8


def _constant(instruction):
  """Value of an integer constant, or None."""
  if instruction.opcode == 'constant' and re.fullmatch(r'-?\d+', instruction.operands):
    return int(instruction.operands)
  return None
