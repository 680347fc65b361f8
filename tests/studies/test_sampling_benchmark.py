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


def test_a_score_of_each_clip_has_intervals_and_one_of_the_whole_set_none():
  row, other = ({'scores': {'event_f1': 0.5, 'fid_x': 12.25}, 'per_clip': {
      clip: {'event_f1': value} for clip, value in zip('ab', values, strict=True)}}
      for values in ((0.4, 0.6), (0.4, 0.5)))
  shown = sampling.shown(row, other, 'event_f1')
  assert shown.startswith('  event_f1 0.500 [0.400, 0.600]') and '[+0.000, +0.100]' in shown
  assert sampling.shown(row, other, 'fid_x') == '  fid_x 12.250'
