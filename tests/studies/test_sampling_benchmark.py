"""The sweep of samplers: what its plot shows."""

import pytest

from tests.benchmarks import sampling


def test_rows_that_differ_in_steps_alone_are_a_line():
  pytest.importorskip('matplotlib')
  rows = {name: {'settings': sampling.ROWS[name], 'flops': 1e9 * n,
                 'scores': {'event_f1': 0.1 * n}, 'per_clip': {
                     'a': {'event_f1': 0.0}, 'b': {'event_f1': 0.2 * n}}}
          for n, name in enumerate(['paper', '8 steps', '16 steps, refresh 16',
                                    '8 steps, refresh 8', 'guidance 3 to 0.3', 'refresh 4'], 1)}
  drawn = sampling.plot(rows, 'v2a', 'event_f1')
  for label in ('as the paper', 'condition once', 'guidance 3, guidance to 0.3', 'refresh 4'):
    assert drawn.count(f'>{label}<') == 1
  assert drawn.count('GFLOP a clip') == 1
