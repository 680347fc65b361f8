"""Mode `evaluate`: any two folders of clips, nothing left out in silence."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avlink_jax import evaluate as evaluation
from avlink_jax.data import mux
from avlink_jax.errors import UserError
from avlink_jax.evaluate import control_shifts, evaluate, summary
from avlink_jax.metrics import onset

RATE = 16000
REAL_CLIPS = Path(__file__).resolve().parents[2] / 'shared' / 'clips'
TIMES = {'a': [0.5, 1.3, 2.2], 'b': [0.9, 1.8], 'c': [0.3, 0.75, 1.6, 2.5], 'd': [1.05, 2.0]}


def clicks(times, duration=3.0, late=0.0):
  rng = np.random.default_rng(0)
  wave = np.zeros(int(duration * RATE), np.float32)
  burst = 0.7 * np.exp(-np.arange(1600) / RATE * 60) * rng.uniform(-1, 1, 1600)
  for time in times:
    at = int((time + late) * RATE)
    wave[at:at + 1600] += burst[:max(0, len(wave) - at)]
  return wave


def write(folder, sounds, manifest=None):
  folder.mkdir(parents=True, exist_ok=True)
  for name, wave in sounds.items():
    soundfile.write(folder / f'{name}.wav', wave, RATE, subtype='FLOAT')
  if manifest is not None:
    (folder / 'manifest.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in manifest))
  return folder


def means(result, prefix='onset_'):
  return [result[prefix + name] for name in onset.NAMES]


@pytest.fixture
def reference(tmp_path):
  return write(tmp_path / 'reference', {name: clicks(times) for name, times in TIMES.items()})


def test_two_copies_of_a_folder_score_exactly_one(reference, tmp_path):
  result = evaluate(str(shutil.copytree(reference, tmp_path / 'copy')), str(reference))
  assert means(result) == [1.0] * 6
  assert result['clips'] == 4
  assert result['control_onset_f1'] < 0.5


def test_silent_copies_score_exactly_zero(reference, tmp_path):
  silent = write(tmp_path / 'silent', {name: np.zeros(3 * RATE) for name in TIMES})
  assert means(evaluate(str(silent), str(reference))) == [0.0] * 6


def test_clips_without_a_sound_track_count_as_silence_and_are_listed(reference, tmp_path):
  for name in TIMES:
    mux.write_mp4(tmp_path / 'mute' / f'{name}.mp4', frames=np.zeros((18, 36, 64, 3), np.uint8),
                  fps=6)
  result = evaluate(str(tmp_path / 'mute'), str(reference))
  assert result['onset_f1'] == 0.0
  assert result['without_sound'] == [{'id': name, 'side': 'generated'} for name in TIMES]


def test_reference_without_onsets_defines_no_accuracy_but_counts_false_alarms(tmp_path):
  theirs = write(tmp_path / 'r', {'a': clicks([1.0]), 'quiet': np.zeros(3 * RATE)})
  ours = write(tmp_path / 'g', {'a': clicks([1.0]), 'quiet': clicks([2.0])})
  result = evaluate(str(ours), str(theirs))
  assert result['onset_accuracy'] == 1.0 and result['onset_ap'] == 1.0
  assert result['onset_f1'] == result['onset_precision'] == 0.5
  assert result['clips_with_reference_onsets'] == 1


def test_control_is_the_mean_over_other_references(tmp_path):
  theirs = write(tmp_path / 'r', {'a': clicks([1.0]), 'b': clicks([2.0])})
  ours = write(tmp_path / 'g', {'a': clicks([1.0, 2.0]), 'b': clicks([1.0])})
  result = evaluate(str(ours), str(theirs))
  # a has both times, so it hits its own reference and the other's; b hits only the other's.
  assert result['onset_accuracy'] == 0.5
  assert result['control_onset_accuracy'] == 1.0
  assert [row['control_onset_precision'] for row in result['per_clip']] == [0.5, 1.0]


def test_one_clip_has_no_control(reference, tmp_path):
  result = evaluate(str(write(tmp_path / 'g', {'a': clicks(TIMES['a'])})), str(reference))
  assert result['onset_f1'] == 1.0
  assert result['control_onset_f1'] is None


@pytest.mark.parametrize('count', range(0, 40))
def test_control_never_meets_its_own_reference(count):
  shifts = control_shifts(count)
  assert len(shifts) == len(set(shifts)) == max(0, min(5, count - 1))
  assert all(0 < shift < count for shift in shifts)


def test_exact_times_in_the_manifest_give_event_scores(tmp_path):
  sounds = {name: clicks(times) for name, times in TIMES.items()}
  rows = [{'id': name, 'events': times} for name, times in TIMES.items()]
  theirs = write(tmp_path / 'r', sounds, rows)
  ours = write(tmp_path / 'g', {**sounds, 'a': np.zeros(3 * RATE)})
  result = evaluate(str(ours), str(theirs))
  assert result['event_f1'] == result['event_recall'] == 0.75
  assert result['control_event_f1'] < 0.5
  assert result['reference_event_f1'] == 1.0
  assert result['clips_with_events'] == 4


def test_without_exact_times_there_are_no_event_scores(reference):
  result = evaluate(str(reference), str(reference))
  assert not [name for name in result if 'event_' in name]


def test_comparison_ends_where_the_shorter_sound_ends(tmp_path):
  theirs = write(tmp_path / 'r', {'a': clicks([0.5, 1.5, 2.5])},
                 [{'id': 'a', 'events': [0.5, 1.5, 2.5]}])
  ours = write(tmp_path / 'g', {'a': clicks([0.5, 1.5], duration=2.0)})
  result = evaluate(str(ours), str(theirs))
  assert result['onset_f1'] == result['event_f1'] == 1.0
  assert result['per_clip'][0]['duration'] == 2.0


def test_what_comes_after_the_common_end_changes_nothing(tmp_path):
  noise = np.random.default_rng(1).uniform(-0.05, 0.05, 3 * RATE).astype(np.float32)
  long = clicks([0.5, 1.5]) * 0.2 + noise
  long[int(2.5 * RATE):] *= 20  # so loud that the clicks before it would be lost beside it
  ours = write(tmp_path / 'g', {'a': long[:2 * RATE]})
  assert evaluate(str(ours), str(write(tmp_path / 'r', {'a': long})))['onset_f1'] == 1.0


def test_wav_is_heard_where_a_clip_stands_twice(reference, tmp_path):
  ours = write(tmp_path / 'g', {'a': clicks(TIMES['a'])})
  mux.write_mp4(ours / 'a.mp4', audio=np.zeros(3 * RATE, np.float32), sample_rate=RATE)
  assert evaluate(str(ours), str(reference))['onset_f1'] == 1.0


def test_mp4_and_wav_of_the_same_sound_agree(tmp_path):
  theirs = write(tmp_path / 'r', {name: clicks(times) for name, times in TIMES.items()})
  for name, times in TIMES.items():
    mux.write_mp4(tmp_path / 'g' / f'{name}.mp4', frames=np.zeros((18, 36, 64, 3), np.uint8),
                  fps=6, audio=clicks(times), sample_rate=RATE)
  assert evaluate(str(tmp_path / 'g'), str(theirs))['onset_f1'] == 1.0


def test_what_is_left_out_is_listed_with_its_reason(reference, tmp_path):
  ours = write(tmp_path / 'g', {'a': clicks(TIMES['a']), 'extra': clicks([1.0])})
  (ours / 'b.mp4').write_bytes(b'no clip at all, only words' * 9)
  (ours / 'c.mp4').write_bytes(b'')
  nan = clicks(TIMES['d'])
  nan[100] = np.nan
  write(ours, {'d': nan})
  result = evaluate(str(ours), str(reference))
  assert result['clips'] == 1
  assert result['unmatched_generated'] == ['extra']
  assert result['unmatched_reference'] == []
  assert {row['id']: row['reason'] for row in result['unreadable']} == {
    'b': 'not a media file', 'c': 'empty file',
    'd': 'its sound holds values that are not finite'}
  assert 'b.mp4: not a media file' in summary(result)


def test_reference_only_clips_are_listed(reference, tmp_path):
  ours = write(tmp_path / 'g', {'b': clicks(TIMES['b'])})
  assert evaluate(str(ours), str(reference))['unmatched_reference'] == ['a', 'c', 'd']


def test_json_holds_what_is_returned_and_no_partial_file_stays(reference, tmp_path):
  output = tmp_path / 'new' / 'scores.json'
  result = evaluate(str(reference), str(reference), str(output))
  assert json.loads(output.read_text()) == result
  assert [path.name for path in output.parent.iterdir()] == ['scores.json']
  assert {row['id'] for row in result['per_clip']} == set(TIMES)


def test_result_does_not_depend_on_the_number_of_workers(reference, tmp_path, monkeypatch):
  ours = write(tmp_path / 'g', {name: clicks(times, late=.06) for name, times in TIMES.items()})
  first = evaluate(str(ours), str(reference))
  monkeypatch.setattr(evaluation, 'WORKERS', 1)
  assert evaluate(str(ours), str(reference)) == first


@pytest.mark.parametrize('generated, expected', [
  ('missing', 'no such folder'), ('other', 'matched by name'), ('broken', 'can be read')])
def test_mistakes_end_in_one_line(reference, tmp_path, generated, expected):
  write(tmp_path / 'other', {'z': clicks([1.0])})
  (tmp_path / 'broken').mkdir()
  (tmp_path / 'broken' / 'a.mp4').write_bytes(b'')
  with pytest.raises(UserError, match=expected) as error:
    evaluate(str(tmp_path / generated), str(reference))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('output', ['.', 'reference/a.wav/scores.json'])
def test_output_that_cannot_be_written_is_found_out_before_the_work(
    reference, tmp_path, output, monkeypatch):
  monkeypatch.setattr(evaluation, '_hear_all', None)
  with pytest.raises(UserError, match='--output='):
    evaluate(str(reference), str(reference), str(tmp_path / output))


@pytest.mark.parametrize('line', ['{"id": "a", "events": ["soon"]}', 'not json', '[1]'])
def test_damaged_manifest_is_one_clear_line(reference, line):
  (reference / 'manifest.jsonl').write_text(line)
  with pytest.raises(UserError, match='manifest.jsonl'):
    evaluate(str(reference), str(reference))


@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason=f'no real clips in {REAL_CLIPS}')
def test_real_clips_score_exactly_one_against_themselves(tmp_path):
  for clip in sorted(REAL_CLIPS.glob('*.mp4'))[:8]:
    (tmp_path / clip.name).symlink_to(clip)
  result = evaluate(str(tmp_path), str(tmp_path))
  assert means(result) == [1.0] * 6
  assert result['control_onset_f1'] < 0.5
