"""Onsets: found where the sound begins, scored as the table in `metrics/onset.py` says."""

import librosa
import mir_eval
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from avlink_jax.metrics import onset


def clicks(times, duration=4.0, sample_rate=22050, gains=None):
  """Decaying noise bursts at `times`, over nothing."""
  rng = np.random.default_rng(0)
  wave = np.zeros(int(duration * sample_rate), np.float32)
  length = int(0.1 * sample_rate)
  envelope = np.exp(-np.arange(length) / sample_rate * 60)
  for time, gain in zip(times, gains or [0.8] * len(times), strict=True):
    at = int(time * sample_rate)
    burst = gain * envelope * rng.uniform(-1, 1, length)
    wave[at:at + length] += burst[:len(wave) - at]
  return wave


def onsets(times, confidences=None):
  times = np.asarray(times, np.float64)
  return onset.Onsets(times, np.ones(len(times)) if confidences is None
                      else np.asarray(confidences, np.float64))


NONE = onset.NO_ONSETS
LISTS = st.lists(st.tuples(st.integers(0, 400), st.floats(0, 1)), max_size=12,
                 unique_by=lambda pair: pair[0])


def from_pairs(pairs):
  """Onsets on a 23 ms grid, as librosa gives them."""
  pairs = sorted(pairs)
  return onsets([512 / 22050 * k for k, _ in pairs], [c for _, c in pairs])


# --- detection -----------------------------------------------------------------------------------

@pytest.mark.parametrize('sample_rate', [16000, 22050, 44100])
def test_clicks_are_found_where_they_are_at_any_rate(sample_rate):
  times = [0.5, 1.1, 1.9, 2.6, 3.3]
  found = onset.detect_onsets(clicks(times, sample_rate=sample_rate), sample_rate)
  np.testing.assert_allclose(found.times, times, atol=0.05)


@pytest.mark.parametrize('samples', [3, 700, 2048, 9 * 512, 60_000])
def test_the_strength_of_onsets_is_librosas_however_it_is_cut(monkeypatch, samples):
  monkeypatch.setattr(onset, 'PART', 5)
  wave = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
  np.testing.assert_allclose(
      onset.strength(wave), librosa.onset.onset_strength(y=wave, sr=onset.DETECTION_RATE),
      rtol=1e-5, atol=1e-5)


def test_louder_click_gets_more_confidence():
  found = onset.detect_onsets(clicks([1.0, 2.0, 3.0], gains=[0.4, 0.8, 0.6]), 22050)
  assert len(found.times) == 3
  assert np.argsort(found.confidences).tolist() == [0, 2, 1]
  assert found.confidences.max() == 1.0


def test_onset_before_50_ms_has_a_confidence_too():
  wave = clicks([1.0])
  confidences, _ = onset._loudness(wave, np.array([512, 22050]))
  assert confidences[0] == 0.0 and confidences[1] == 1.0
  wave[600] = 0.5 * np.abs(wave).max()
  assert onset._loudness(wave, np.array([512]))[0] == pytest.approx([0.5])


@pytest.mark.parametrize('wave', [
  np.zeros(0), np.zeros(22050), np.full(22050, 0.3),
  np.random.default_rng(0).integers(-2, 3, 22050) / 32768,
  np.random.default_rng(0).uniform(-9e-4, 9e-4, 44100),
], ids=['empty', 'digital silence', 'constant', 'dither', 'below the floor'])
def test_silence_has_no_onsets(wave):
  assert len(onset.detect_onsets(wave, 22050).times) == 0


@pytest.mark.parametrize('samples', [1, 2, 100, 511, 2047])
def test_sound_shorter_than_the_analysis_window_is_no_error(samples):
  found = onset.detect_onsets(np.random.default_rng(0).uniform(-1, 1, samples), 16000)
  assert len(found.times) == len(found.confidences)


@pytest.mark.parametrize('wave', [np.zeros((2, 100)), np.array([0.0, np.nan]),
                                  np.array([0.0, np.inf])])
def test_what_is_no_mono_sound_is_refused(wave):
  with pytest.raises(ValueError):
    onset.detect_onsets(wave, 22050)


# --- suppression ---------------------------------------------------------------------------------

def test_of_two_close_onsets_the_stronger_stays():
  kept = onset.suppress(onsets([1.0, 1.04, 2.0, 2.04, 3.0], [.2, .9, .8, .1, .5]))
  np.testing.assert_array_equal(kept.times, [1.04, 2.0, 3.0])
  np.testing.assert_array_equal(kept.confidences, [.9, .8, .5])


def test_a_suppressed_onset_suppresses_nothing():
  kept = onset.suppress(onsets([1.0, 1.04, 1.08], [.9, .5, .1]))
  np.testing.assert_array_equal(kept.times, [1.0, 1.08])


@given(LISTS)
def test_suppression_leaves_gaps_and_changes_nothing_the_second_time(pairs):
  kept = onset.suppress(from_pairs(pairs))
  assert (np.diff(kept.times) >= onset.SUPPRESSION).all()
  assert bool(len(kept.times)) == bool(pairs)
  np.testing.assert_array_equal(onset.suppress(kept).times, kept.times)


# --- matching ------------------------------------------------------------------------------------

def test_reference_takes_the_strongest_candidate_rather_than_the_nearest():
  partners = onset.match([1.0], onsets([0.99, 1.08], [.3, .6]))
  assert partners.tolist() == [1]


def test_each_candidate_is_used_once():
  assert onset.match([1.0, 1.05], onsets([1.02])).tolist() == [0, -1]


def test_window_is_100_ms_to_either_side():
  made = onsets([0.91, 2.09, 2.89, 4.11])
  assert onset.match([1.0, 2.0, 3.0, 4.0], made).tolist() == [0, 1, -1, -1]


def test_taken_candidates_move_on_where_that_helps():
  # In order of time the first takes the strong one in the middle, the second is left with none.
  assert onset.match([1.0, 1.15], onsets([0.95, 1.08], [.2, .9])).tolist() == [0, 1]


@settings(deadline=None)
@given(LISTS, LISTS)
def test_f1_equals_that_of_mir_eval(reference, generated):
  reference, generated = (onset.suppress(from_pairs(p)) for p in (reference, generated))
  ours = onset.scores(reference, generated)
  if len(reference.times) and len(generated.times):
    f1, precision, recall = mir_eval.onset.f_measure(
      reference.times, generated.times, window=onset.TOLERANCE)
    np.testing.assert_allclose([ours['f1'], ours['precision'], ours['recall']],
                               [f1, precision, recall])


# --- average precision ---------------------------------------------------------------------------

def test_average_precision_in_closed_form():
  # Ranked: hit (1/1), miss, hit (2/3), and one reference of three is never found.
  value = onset.average_precision([True, False, True], [.9, .8, .7], 3)
  assert value == pytest.approx((1 / 1 + 2 / 3) / 3)


def test_order_of_equally_confident_onsets_does_not_matter():
  values = {onset.average_precision(hit, [.5, .5], 1) for hit in ([True, False], [False, True])}
  assert values == {0.5}


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([.1, .3, .5, .9])), min_size=1,
                max_size=20).filter(lambda items: any(hit for hit, _ in items)))
def test_average_precision_is_sklearns_where_no_reference_is_missed(items):
  hit, confidences = zip(*items, strict=True)
  assert onset.average_precision(hit, confidences, sum(hit)) == pytest.approx(
    average_precision_score(hit, confidences))


@given(LISTS, LISTS)
def test_average_precision_never_exceeds_recall(reference, generated):
  result = onset.scores(from_pairs(reference), from_pairs(generated))
  if reference:
    assert 0 <= result['ap'] <= result['recall'] + 1e-12


# --- scores --------------------------------------------------------------------------------------

@given(LISTS.filter(bool))
def test_a_copy_scores_exactly_one_however_dense(pairs):
  copy = from_pairs(pairs)
  assert set(onset.scores(copy, copy).values()) == {1.0}


def test_scores_in_closed_form():
  # 2 of 4 references hit by 3 onsets; the strongest onset is the wrong one.
  result = onset.scores(onsets([1, 2, 3, 4]), onsets([1.05, 2.95, 3.5], [.5, .4, .9]))
  assert result == {
    'accuracy': 0.5, 'recall': 0.5, 'precision': pytest.approx(2 / 3), 'count_accuracy': 0.0,
    'f1': pytest.approx(4 / 7), 'ap': pytest.approx((1 / 2 + 2 / 3) / 4)}


@pytest.mark.parametrize('reference, generated, expected', [
  (onsets([1.0]), NONE, dict(accuracy=0, recall=0, ap=0, precision=0, f1=0, count_accuracy=0)),
  (NONE, onsets([1.0]),
   dict(accuracy=None, recall=None, ap=None, precision=0, f1=0, count_accuracy=0)),
  (NONE, NONE,
   dict(accuracy=None, recall=None, ap=None, precision=None, f1=None, count_accuracy=1)),
], ids=['nothing generated', 'nothing to find', 'both empty'])
def test_empty_sides_are_defined(reference, generated, expected):
  assert onset.scores(reference, generated) == expected


def test_count_accuracy_asks_for_the_same_number_not_the_same_times():
  assert onset.scores(onsets([1, 2]), onsets([3, 3.5]))['count_accuracy'] == 1
  assert onset.scores(onsets([1, 2]), onsets([1, 2, 3]))['count_accuracy'] == 0


def test_exact_times_are_taken_as_they_are_in_any_order():
  made = onsets([1.0, 2.0])
  assert onset.scores_against_times(made, [2.0, 1.0])['f1'] == 1
  # Two events 10 ms apart make one onset: it can stand for one of them only.
  assert onset.scores_against_times(made, [1.0, 1.01, 2.0])['recall'] == pytest.approx(2 / 3)
  assert onset.scores_against_times(made, [])['accuracy'] is None


def test_sounds_late_by_less_than_the_tolerance_score_one_and_by_more_score_zero():
  times = [0.6, 1.4, 2.2, 3.0]
  truth = onset.detect_onsets(clicks(times), 22050)
  for late, expected in ((0.05, 1.0), (0.2, 0.0)):
    made = onset.detect_onsets(clicks([t + late for t in times]), 22050)
    assert onset.scores(truth, made)['f1'] == expected


def test_scores_are_plain_numbers():
  for value in onset.scores(onsets([1.0, 2.0]), onsets([1.0])).values():
    assert type(value) is float
