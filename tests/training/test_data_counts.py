"""What is odd about a run's data is counted over all of its processes, and each example once."""

import json

import numpy as np

from avlink_jax.data.batch import Meta
from avlink_jax.training import hosts
from avlink_jax.training.data_counts import DataCounts

BROKEN, SILENT = ('a', 'corrupt stream'), ('s', 'silence')


def met(monkeypatch, *of_processes):
  """Counts of processes that met, of each (rows, odd), and what `meet` returned to the first."""
  counts = []
  for rows, odd in of_processes:
    counts.append(DataCounts({}))
    counts[-1].add(7, np.array(rows), Meta(['x'] * len(rows), [None] * len(rows), odd))
  together = json.loads(json.dumps([each._own for each in counts]))
  monkeypatch.setattr(hosts, 'exchange', lambda own: together)
  news = [each.meet() for each in counts]
  assert all(each == news[0] for each in news)
  assert all(each.as_saved() == counts[0].as_saved() for each in counts)
  return counts[0], news[0]


def test_counts_are_those_of_all_processes(monkeypatch):
  counts, news = met(monkeypatch,
                     ([0, 1], [(1, [BROKEN], [])]),
                     ([2, 3], [(0, [BROKEN, ('b', 'truncated')], []), (1, [], [SILENT])]))
  assert counts.figures() == {'skipped_clips': 2, 'replaced_examples': 2, 'silent_clips': 1,
                              'silent_examples': 1}
  assert news == ([BROKEN, ('b', 'truncated')], [SILENT])


def test_an_example_that_two_processes_read_is_counted_once(monkeypatch):
  counts, _ = met(monkeypatch, *[([0, 1], [(0, [BROKEN], [SILENT])])] * 2)
  assert set(counts.figures().values()) == {1}


def test_counts_go_on_from_a_checkpoint_and_tell_nothing_twice():
  counts = DataCounts({})
  for step in (1, 2):
    counts.add(step, [4], Meta(['x'], [None], [(0, [BROKEN], [SILENT])]))
    assert counts.meet() == (([BROKEN], [SILENT]) if step == 1 else ([], []))
  again = DataCounts(json.loads(json.dumps(counts.as_saved())))
  assert again.figures() == counts.figures() and again.skipped == {BROKEN: 2}
  again.add(3, [4], Meta(['x'], [None], [(0, [BROKEN], [])]))
  assert again.meet() == ([], []) and again.replaced == 3
  assert DataCounts({'skipped': [['a', 'corrupt stream', 3]]}).replaced == 3  # of older runs
