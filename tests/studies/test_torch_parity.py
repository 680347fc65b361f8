"""The PyTorch model that speed is compared with is the same model: same weights, same numbers; and
the comparison's own parts run, in the precision that a GPU gets too."""

import subprocess
import sys

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests import micro
from tests.benchmarks import contenders, contest, speed, torch_training

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('name', ['v2a', 'a2v', 't2v'])
def test_velocity_sample_loss_and_every_gradient_are_the_same_from_the_same_weights(name):
  config = micro.micro_config(name)
  ours, draws = contenders.Jax(config, 'check', 4).check(micro.quick_jit)
  theirs = contenders.Torch(config, 'check', 4).check(draws)
  assert ours.keys() == theirs.keys() and len(ours) > 20
  found = speed.difference(ours, theirs)
  assert max(found.values()) < 1e-3, found


def test_a_difference_in_one_small_gradient_is_seen():
  ours = contenders.Jax(micro.micro_config('v2a'), 'check', 2).params()
  flat = torch_training.named(ours, contenders.build(micro.micro_config('v2a'))[1])
  flat |= dict.fromkeys(('velocity', 'sample', 'loss'), flat['link.blocks.0.in_0.bias'])
  other = dict(flat)
  other['link.blocks.1.attention.out.bias'] = flat['link.blocks.1.attention.out.bias'] * 1.01
  assert speed.difference(flat, other)['gradients'] > 5e-3
  assert speed.difference(flat, flat) == dict.fromkeys(
      ('velocity', 'sample', 'loss', 'gradients'), 0.0)


def test_operations_counted_from_jax_shapes_are_those_that_pytorch_does():
  config = micro.micro_config('v2a', **{'sample.steps': 3})
  side = contenders.Torch(config, 'sample', 2)
  # The counter knows the plain formula's products, not the CPU's fused kernel.
  with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
    side.prepare()
  counted = contenders.Jax(config, 'sample', 2).flops()
  assert counter.get_total_flops() == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize('mode', ['train', 'sample'])
def test_paper_scale_runs_as_on_a_gpu_in_bfloat16_recomputing_with_embedded_text(mode):
  """With a shrunken config of paper scale's kind; on a GPU cuDNN's attention and CUDA come on."""
  config = micro.micro_config('v2a', remat='segment', **{
      'sample.steps': 2, 'text.encoder': 't5', 'text.max_tokens': 5, 'fusion.contrast': 0.0})
  sides = [contenders.Jax(config, mode, 2, half=True), contenders.Torch(config, mode, 2, half=True)]
  for side in sides:
    assert side.prepare() > 0
    assert min(side.time(2)) > 0
    side.peak()  # in a process of many tests, whose memory is given back at any time, any number
  assert {p.dtype for p in sides[1].model.towers.parameters()} == {torch.bfloat16}
  assert sides[0].flops() > 0


WORKER = '''
from tests.benchmarks import contest
worker, other = contest.Worker(dict, {"a": 1}), contest.Worker(dict, {"a": 2})
print(worker("get", "a"), other("get", "a"))
try:
  worker("pop", "b")
except RuntimeError as error:
  print(str(error).splitlines()[-1])
worker.close()
other.close()
'''


def test_a_worker_answers_for_itself_and_tells_what_went_wrong_in_it():
  # In a fresh process: they are forked from one that has not computed anything.
  done = subprocess.run([sys.executable, '-c', WORKER], text=True, capture_output=True,
                        check=True, timeout=60)
  assert done.stdout.splitlines() == ['1 2', "KeyError: 'b'"]


def test_turns_begin_with_another_contender_each_round():
  order = []
  workers = {name: lambda method, calls, name=name: (order.append(name), (1.0, 2.0))[1]
             for name in 'xyz'}
  times = contest.rounds(workers, 2, 5)
  assert order == [*'xyz', *'yzx'] and times['x'] == [(1.0, 2.0)] * 2
  assert contest.ratio([(1, 0), (2, 0), (1, 0)], [(3, 0), (2, 0), (2, 0)], 0) == (2, 1, 3)
