"""Onset scores by the published recipe: its oddities, each by hand, and against sklearn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from avlink_jax.metrics import onset, published_onset
from avlink_jax.metrics.onset import Onsets

GRID = 512 / 22050  # seconds between librosa's frames
LISTS = st.lists(st.tuples(st.integers(0, 300), st.floats(0.01, 1), st.floats(0, 1)), max_size=10,
                 unique_by=lambda row: row[0])


def onsets(times, confidences=None, levels=None):
  times = np.asarray(times, np.float64)
  each = (np.ones(len(times)) if row is None else np.asarray(row, np.float64)
          for row in (confidences, levels))
  return Onsets(times, *each)


def from_rows(rows):
  rows = sorted(rows)
  return onsets([GRID * k for k, _, _ in rows], *([row[i] for row in rows] for i in (1, 2)))


def scores(reference, generated):
  return tuple(published_onset.scores(reference, generated).values())


def test_of_three_close_onsets_the_later_neighbour_stays():
  found = published_onset.suppress(onsets([1.0, 1.046, 1.092], [0.5, 0.9, 0.6]))
  np.testing.assert_array_equal(found.times, [1.046, 1.092])
  assert len(onset.suppress(onsets([1.0, 1.046, 1.092], [0.5, 0.9, 0.6])).times) == 1


def test_references_are_not_suppressed():
  """So a copy of two close onsets misses one of them."""
  both = onsets([1.0, 1.046], [0.5, 0.9])
  assert scores(both, both)[:2] == (0.5, 1.0)
  assert onset.scores(both, both)['accuracy'] == 1.0


def test_the_loudest_sample_is_chosen_not_the_loudest_neighbourhood():
  """The first reference takes what the second one needs."""
  reference, generated = onsets([1.0, 1.15]), onsets([0.95, 1.08], [0.9, 0.5], [0.1, 0.4])
  assert scores(reference, generated)[0] == 0.5
  assert scores(reference, generated._replace(levels=np.array([0.4, 0.1])))[0] == 1.0


def test_missed_references_are_ranked_last_and_raise_ap():
  """One hit, one miss, one false: precision 1 at recall 1/2, then 2/3 at recall 1."""
  reference, generated = onsets([1.0, 3.0]), onsets([1.0, 2.0], [0.9, 0.5])
  accuracy, _, ap = scores(reference, generated)
  assert accuracy == 0.5 and ap == pytest.approx(0.5 + 0.5 * 2 / 3)
  assert onset.scores(reference, generated)['ap'] == 0.5


def test_what_is_left_once_all_are_taken_does_not_count_for_ap():
  assert scores(onsets([1.0, 2.0, 3.0]), onsets([1.0])) == (pytest.approx(1 / 3), 0.0, 1.0)


@pytest.mark.parametrize('reference, generated, expected', [
    ([1.0], [], (0.0, 0.0, 1.0)), ([], [1.0], (0.0, 0.0, 0.0)), ([], [], (0.0, 1.0, None))])
def test_empty_sides(reference, generated, expected):
  assert scores(onsets(reference), onsets(generated)) == expected


def test_a_partner_is_nearer_than_100_ms():
  assert scores(onsets([1.0]), onsets([1.0 + 2204 / 22050]))[0] == 1.0
  assert scores(onsets([1.0]), onsets([1.0 + 2205 / 22050]))[0] == 0.0


@settings(deadline=None)
@given(LISTS.filter(bool), LISTS.filter(bool))
def test_ap_is_sklearns_over_hits_misses_and_the_rest(reference, generated):
  reference, generated = from_rows(reference), from_rows(generated)
  kept = published_onset.suppress(generated)
  free, truth, ranked = list(range(len(kept.times))), [], []
  for time in reference.times:
    near = [g for g in free if abs(kept.times[g] - time) < 0.1 - 1e-9]
    truth.append(1)
    ranked.append(0.0)
    if near:
      best = max(near, key=lambda g: (kept.levels[g], g))
      ranked[-1] = kept.confidences[best]
      free.remove(best)
      if not free:
        break
  truth += [0] * len(free)
  ranked += [kept.confidences[g] for g in free]
  found = published_onset.scores(reference, generated)
  assert found['ap'] == pytest.approx(average_precision_score(truth, ranked))
  assert found['accuracy'] == sum(r > 0 for r, t in zip(ranked, truth, strict=True) if t) / len(
      reference.times)
