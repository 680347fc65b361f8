"""Mode `evaluate`: any two folders of clips, nothing left out in silence."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from timed_clips import RATE, TIMES, clicks, moves, write_sounds

from avlink_jax.data.media import mux
from avlink_jax.errors import UserError
from avlink_jax.evaluate import control_shifts, evaluate, summary
from avlink_jax.evaluation import pairs as clips_on_disk
from avlink_jax.metrics import onset
from avlink_jax.samples.folder import write_sample

REAL_CLIPS = Path(__file__).resolve().parents[3] / 'shared' / 'clips'


def means(result, prefix='onset_'):
  return [result[prefix + name] for name in onset.NAMES]


@pytest.fixture
def reference(tmp_path):
  return write_sounds(
      tmp_path / 'reference', {name: clicks(times) for name, times in TIMES.items()})


def test_two_copies_of_a_folder_score_exactly_one(reference, tmp_path):
  result = evaluate(str(shutil.copytree(reference, tmp_path / 'copy')), str(reference))
  assert means(result) == [1.0] * 6
  assert result['clips'] == 4
  assert result['control_onset_f1'] < 0.5


def test_silent_copies_score_exactly_zero(reference, tmp_path):
  silent = write_sounds(tmp_path / 'silent', {name: np.zeros(3 * RATE) for name in TIMES})
  assert means(evaluate(str(silent), str(reference))) == [0.0] * 6


def test_clips_without_a_sound_track_count_as_silence_and_are_listed(reference, tmp_path):
  for name in TIMES:
    mux.write_mp4(tmp_path / 'mute' / f'{name}.mp4', frames=np.zeros((18, 36, 64, 3), np.uint8),
                  fps=6)
  result = evaluate(str(tmp_path / 'mute'), str(reference))
  assert result['onset_f1'] == 0.0
  assert result['without_sound'] == [{'id': name, 'side': 'generated'} for name in TIMES]


def test_a_picture_before_it_was_enlarged_is_no_clip_of_its_own(tmp_path):
  frames = np.zeros((6, 12, 24, 3), np.uint8)
  for name in ('a', 'a_low', 'b', 'b_low'):
    mux.write_mp4(tmp_path / f'{name}.mp4', frames=frames, fps=6)
  rows = [{'id': 'a', 'files': {'video': 'a.mp4', 'low': 'a_low.mp4'}},
          # Somebody's clip that happens to be called so.
          {'id': 'b', 'files': {'video': 'b.mp4', 'low': 'b_low.mp4'}},
          {'id': 'b_low', 'files': {'video': 'b_low.mp4'}}]
  (tmp_path / 'manifest.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  assert sorted(clips_on_disk.find(tmp_path, '--generated')) == ['a', 'b', 'b_low']


def test_reference_without_onsets_defines_no_accuracy_but_counts_false_alarms(tmp_path):
  theirs = write_sounds(tmp_path / 'r', {'a': clicks([1.0]), 'quiet': np.zeros(3 * RATE)})
  ours = write_sounds(tmp_path / 'g', {'a': clicks([1.0]), 'quiet': clicks([2.0])})
  result = evaluate(str(ours), str(theirs))
  assert result['onset_accuracy'] == 1.0 and result['onset_ap'] == 1.0
  assert result['onset_f1'] == result['onset_precision'] == 0.5
  assert result['clips_with_reference_onsets'] == 1


def test_control_is_the_mean_over_other_references(tmp_path):
  theirs = write_sounds(tmp_path / 'r', {'a': clicks([1.0]), 'b': clicks([2.0])})
  ours = write_sounds(tmp_path / 'g', {'a': clicks([1.0, 2.0]), 'b': clicks([1.0])})
  result = evaluate(str(ours), str(theirs))
  # a has both times, so it hits its own reference and the other's; b hits only the other's.
  assert result['onset_accuracy'] == 0.5
  assert result['control_onset_accuracy'] == 1.0
  assert [row['control_onset_precision'] for row in result['per_clip']] == [0.5, 1.0]


def test_one_clip_has_no_control(reference, tmp_path):
  result = evaluate(str(write_sounds(tmp_path / 'g', {'a': clicks(TIMES['a'])})), str(reference))
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
  theirs = write_sounds(tmp_path / 'r', sounds, rows)
  ours = write_sounds(tmp_path / 'g', {**sounds, 'a': np.zeros(3 * RATE)})
  result = evaluate(str(ours), str(theirs))
  assert result['event_f1'] == result['event_recall'] == 0.75
  assert result['control_event_f1'] < 0.5
  assert result['reference_event_f1'] == 1.0
  assert result['clips_with_events'] == 4


def test_without_exact_times_there_are_no_event_scores(reference):
  result = evaluate(str(reference), str(reference))
  assert not [name for name in result if 'event_' in name]


def test_comparison_ends_where_the_shorter_sound_ends(tmp_path):
  theirs = write_sounds(tmp_path / 'r', {'a': clicks([0.5, 1.5, 2.5])},
                 [{'id': 'a', 'events': [0.5, 1.5, 2.5]}])
  ours = write_sounds(tmp_path / 'g', {'a': clicks([0.5, 1.5], duration=2.0)})
  result = evaluate(str(ours), str(theirs))
  assert result['onset_f1'] == result['event_f1'] == 1.0
  assert result['per_clip'][0]['duration'] == 2.0


def test_what_comes_after_the_common_end_changes_nothing(tmp_path):
  noise = np.random.default_rng(1).uniform(-0.05, 0.05, 3 * RATE).astype(np.float32)
  long = clicks([0.5, 1.5]) * 0.2 + noise
  long[int(2.5 * RATE):] *= 20  # so loud that the clicks before it would be lost beside it
  ours = write_sounds(tmp_path / 'g', {'a': long[:2 * RATE]})
  assert evaluate(str(ours), str(write_sounds(tmp_path / 'r', {'a': long})))['onset_f1'] == 1.0


def test_wav_is_heard_where_a_clip_stands_twice(reference, tmp_path):
  ours = write_sounds(tmp_path / 'g', {'a': clicks(TIMES['a'])})
  mux.write_mp4(ours / 'a.mp4', audio=np.zeros(3 * RATE, np.float32), sample_rate=RATE)
  assert evaluate(str(ours), str(reference))['onset_f1'] == 1.0


def test_mp4_and_wav_of_the_same_sound_agree(tmp_path):
  theirs = write_sounds(tmp_path / 'r', {name: clicks(times) for name, times in TIMES.items()})
  for name, times in TIMES.items():
    mux.write_mp4(tmp_path / 'g' / f'{name}.mp4', frames=np.zeros((18, 36, 64, 3), np.uint8),
                  fps=6, audio=clicks(times), sample_rate=RATE)
  assert evaluate(str(tmp_path / 'g'), str(theirs))['onset_f1'] == 1.0


def test_what_is_left_out_is_listed_with_its_reason(reference, tmp_path):
  ours = write_sounds(tmp_path / 'g', {'a': clicks(TIMES['a']), 'extra': clicks([1.0])})
  (ours / 'b.mp4').write_bytes(b'no clip at all, only words' * 9)
  (ours / 'c.mp4').write_bytes(b'')
  nan = clicks(TIMES['d'])
  nan[100] = np.nan
  write_sounds(ours, {'d': nan})
  result = evaluate(str(ours), str(reference))
  assert result['clips'] == 1
  assert result['unmatched_generated'] == ['extra']
  assert result['unmatched_reference'] == []
  assert {row['id']: row['reason'] for row in result['unreadable']} == {
    'b': 'not a media file', 'c': 'empty file',
    'd': 'its sound holds values that are not finite'}
  assert 'b.mp4: not a media file' in summary(result)


def test_reference_only_clips_are_listed(reference, tmp_path):
  ours = write_sounds(tmp_path / 'g', {'b': clicks(TIMES['b'])})
  assert evaluate(str(ours), str(reference))['unmatched_reference'] == ['a', 'c', 'd']


def test_json_holds_what_is_returned_and_no_partial_file_stays(reference, tmp_path):
  output = tmp_path / 'new' / 'scores.json'
  result = evaluate(str(reference), str(reference), str(output))
  assert json.loads(output.read_text()) == result
  assert [path.name for path in output.parent.iterdir()] == ['scores.json']
  assert {row['id'] for row in result['per_clip']} == set(TIMES)


def test_result_does_not_depend_on_the_number_of_workers(reference, tmp_path, monkeypatch):
  ours = write_sounds(
      tmp_path / 'g', {name: clicks(times, late=.06) for name, times in TIMES.items()})
  first = evaluate(str(ours), str(reference))
  monkeypatch.setattr(clips_on_disk, 'WORKERS', 1)
  assert evaluate(str(ours), str(reference)) == first


@pytest.mark.parametrize('generated, expected', [
  ('missing', 'no such folder'), ('other', 'matched by name'), ('broken', 'can be read')])
def test_mistakes_end_in_one_line(reference, tmp_path, generated, expected):
  write_sounds(tmp_path / 'other', {'z': clicks([1.0])})
  (tmp_path / 'broken').mkdir()
  (tmp_path / 'broken' / 'a.mp4').write_bytes(b'')
  with pytest.raises(UserError, match=expected) as error:
    evaluate(str(tmp_path / generated), str(reference))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('output', ['.', 'reference/a.wav/scores.json'])
def test_output_that_cannot_be_written_is_found_out_before_the_work(
    reference, tmp_path, output, monkeypatch):
  monkeypatch.setattr(clips_on_disk, 'measure_pairs', None)
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


# -- pictures

def write_moving(folder, times_of, sounds=None, events=False, **options):
  for name, times in times_of.items():
    sound = clicks(times) if sounds is None else sounds[name]
    write_sample(folder, name, frames=moves(times), fps=12, audio=sound, sample_rate=RATE,
                 record={'events': times} if events else None, **options)
  return folder


@pytest.fixture
def moving(tmp_path):
  return write_moving(tmp_path / 'moving', TIMES, events=True)


def test_picture_and_sound_that_move_together_score_high_and_above_the_control(moving, tmp_path):
  ours = write_moving(tmp_path / 'g', TIMES, generated=('video',))
  result = evaluate(str(ours), str(moving))
  assert result['clips_with_picture'] == 4 and result['without_picture'] == []
  for score in ('av_align', 'motion_event_precision', 'motion_event_recall', 'motion_event_f1'):
    assert result[score] > 0.85 and result['reference_' + score] > 0.85
    assert result['control_' + score] < 0.5
    assert result['difference_intervals'][score][0] > 0.3
  assert 'av_align' in summary(result)


def test_sound_made_for_a_picture_is_scored_against_that_picture(moving, tmp_path):
  exchanged = dict(zip(TIMES, [clicks(times) for times in [*TIMES.values()][::-1]], strict=True))
  good = evaluate(str(write_moving(tmp_path / 'good', TIMES, generated=('audio',))), str(moving))
  bad = evaluate(str(write_moving(tmp_path / 'bad', TIMES, exchanged, generated=('audio',))),
                 str(moving))
  assert good['av_align'] > 0.85 and bad['av_align'] < 0.6
  assert bad['reference_av_align'] == good['reference_av_align']
  assert bad['motion_event_f1'] == good['motion_event_f1']


def test_a_picture_without_sound_is_scored_against_the_references(moving, tmp_path):
  for name, times in TIMES.items():
    mux.write_mp4(tmp_path / 'mute' / f'{name}.mp4', frames=moves(times), fps=12)
  result = evaluate(str(tmp_path / 'mute'), str(moving))
  assert result['av_align'] > 0.85
  assert result['onset_f1'] == 0.0 and len(result['without_sound']) == 4


def test_without_pictures_there_are_no_scores_of_them(reference, moving, tmp_path):
  for ours, theirs in ((reference, reference), (reference, moving)):
    result = evaluate(str(ours), str(theirs))
    assert result['clips_with_picture'] == 0
    assert not [name for name in result if 'av_align' in name or 'motion' in name]
  for name in TIMES:  # a picture drawn for a sound is none
    write_sample(tmp_path / 't2a', name, audio=clicks(TIMES[name]), sample_rate=RATE,
                 generated=('audio',))
  result = evaluate(str(tmp_path / 't2a'), str(moving))
  assert result['clips_with_picture'] == 0 and 'av_align' not in result
  assert result['onset_f1'] == 1.0


def test_a_damaged_picture_is_told_and_its_sound_still_counts(moving, tmp_path):
  ours = write_moving(tmp_path / 'g', TIMES)
  (ours / 'a.mp4').write_bytes(b'no clip at all, only words' * 9)
  result = evaluate(str(ours), str(moving))
  assert result['clips'] == 4 and result['clips_with_picture'] == 3
  assert result['without_picture'] == [
    {'id': 'a', 'side': 'generated', 'reason': 'not a media file'}]
  assert result['per_clip'][0]['av_align'] is None and result['onset_f1'] == 1.0
  assert 'without_picture: 1' in summary(result)


# -- intervals

def test_every_mean_has_an_interval_and_every_control_a_difference(moving, tmp_path):
  late = {name: clicks(times, late=0.05) for name, times in TIMES.items()}
  result = evaluate(str(write_moving(tmp_path / 'g', TIMES, late)), str(moving))
  means = [name for name in result if name in result['per_clip'][0] and name != 'events']
  assert result['intervals'].keys() == set(means)
  # 2 * 3: by the published recipe; 5: of exact times alone
  assert len(means) == 4 * 6 + 2 * 3 + 5 + 6 + 3 * 4
  controlled = {name.removeprefix('control_') for name in means if name.startswith('control_')}
  assert result['difference_intervals'].keys() == controlled
  assert result['intervals'].pop('event_strength') is None  # the manifest has no strengths
  for name, (low, high) in result['intervals'].items():
    assert low <= result[name] <= high
  for name, (low, high) in result['difference_intervals'].items():
    assert low - 1e-9 <= result[name] - result['control_' + name] <= high + 1e-9


def test_intervals_of_one_clip_and_of_what_is_undefined_are_none(tmp_path):
  theirs = write_sounds(tmp_path / 'r', {'a': np.zeros(3 * RATE), 'b': np.zeros(3 * RATE)})
  result = evaluate(str(write_sounds(tmp_path / 'g', {'a': clicks([1.0])})), str(theirs))
  assert set(result['intervals'].values()) == set(result['difference_intervals'].values()) == {None}
  result = evaluate(str(write_sounds(tmp_path / 'h', {'a': clicks([1.0]), 'b': clicks([2.0])})),
                    str(theirs))
  assert result['onset_accuracy'] is None and result['intervals']['onset_accuracy'] is None
  assert result['intervals']['onset_precision'] == [0.0, 0.0]
  assert '[0.000, 0.000]' in summary(result)


def test_clips_in_sub_folders_are_found_by_name_or_by_path(tmp_path):
  sounds = {name: clicks(times) for name, times in TIMES.items()}
  for day, names in (('day1', 'ab'), ('day2', 'bc')):
    write_sounds(tmp_path / 'r' / day, {name: sounds[name] for name in names})
    write_sounds(tmp_path / 'g' / day, {name: sounds[name] for name in names})
  # Another's samples, and what is compared with, are no clips of a folder.
  write_sounds(tmp_path / 'g' / 'old', sounds, [])
  shutil.move(tmp_path / 'r', tmp_path / 'g' / 'r')
  result = evaluate(str(tmp_path / 'g'), str(tmp_path / 'g' / 'r'))
  assert [row['id'] for row in result['per_clip']] == ['a', 'c', 'day1__b', 'day2__b']
  assert result['unmatched_generated'] == [] and result['onset_f1'] == 1.0


def test_where_no_name_matches_one_of_each_side_is_shown(reference, tmp_path):
  ours = write_sounds(tmp_path / 'g', {'b_ours': clicks([1.0])})
  with pytest.raises(UserError, match='1 clips, such as b_ours.*4 clips, such as b.*by name'):
    evaluate(str(ours), str(reference))
  (tmp_path / 'none').mkdir()
  with pytest.raises(UserError, match='none: no media files in it'):
    evaluate(str(tmp_path / 'none'), str(reference))


def test_copies_of_one_clip_are_told_since_they_narrow_intervals(reference, tmp_path):
  ours = write_sounds(tmp_path / 'g', {name: clicks(TIMES['a']) for name in 'abc'}
                      | {'d': clicks(TIMES['d'])})
  result = evaluate(str(ours), str(reference))
  assert result['identical'] == {'generated': [['a', 'b', 'c']], 'reference': []}
  assert result['warnings'] == ['3 generated clips are 1, over and over (the first: a, b, c): '
                                'intervals are narrower than they should be']
