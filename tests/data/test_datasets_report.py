"""What a build leaves out is counted and listed; what a user gets wrong is one line."""

import collections
import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from avlink_jax.data import build as build_module
from avlink_jax.data.build import build, main
from avlink_jax.data.datasets import builder as builder_module
from avlink_jax.data.datasets import check
from avlink_jax.data.datasets.builder import Options
from avlink_jax.data.datasets.check import Candidate, Needs
from avlink_jax.data.datasets.check import examiner as make_examiner
from avlink_jax.data.media import mux
from avlink_jax.data.sources.tfds import TfdsSource
from avlink_jax.errors import UserError
from tests import crashing, made_clips, official_lists

SIZES = dict(height=36, width=64, sample_rate=16000)


def make(root, name='vggsound', options=Options(), **more):  # noqa: B008
  return build(name, root / 'manual', root / 'data', options=options, **more)


def left_out(builder):
  with open(builder.data_path / 'left_out.csv', encoding='utf-8', newline='') as file:
    return list(csv.DictReader(file))


def test_every_row_left_out_is_counted_and_listed_with_its_reason(tmp_path):
  manual = tmp_path / 'manual'
  official_lists.vggsound(manual)
  official_lists.write(
    manual / 'vggsound.csv', '-abc_DEF012,30,howling,train', 'ghi,0,piano,test',
    'jkl,12,hail,train', 'gone,5,rain,train', 'brief,0,snap,train', 'mute,0,nothing,train',
    'cut,0,crash,train', 'deaf,0,silence,train', 'ghi,0,piano again,train', 'odd,start,rain,train',
    'odd,7,rain')
  official_lists.video(manual / 'jkl_12.mp4')
  official_lists.video(manual / 'brief_000000.mp4', seconds=0.5, flash=1)
  wave = np.zeros(32000, np.float32)
  mux.write_mp4(manual / 'mute_0.mp4', frames=np.zeros((12, 36, 64, 3), np.uint8), fps=6,
                audio=wave, sample_rate=16000)
  mux.write_mp4(manual / 'deaf.mp4', frames=np.zeros((12, 36, 64, 3), np.uint8), fps=6)
  whole = (manual / 'b' / 'ghi.mp4').read_bytes()
  (manual / 'cut.mp4').write_bytes(whole[:len(whole) // 2])
  builder = make(tmp_path)
  rows = {(row['id'], row['kind']): row['reason'] for row in left_out(builder)}
  assert rows == {
    ('gone_000005', 'missing'): 'looked for gone_000005.*',
    ('brief_000000', 'short'): rows['brief_000000', 'short'],
    ('mute_000000', 'silent'): 'no sound above -60 dB',
    ('deaf_000000', 'broken'): 'no audio stream',
    ('cut_000000', 'broken'): 'truncated',
    ('ghi_000000', 'duplicate'): 'the first row of this id is used',
    ('odd,start,rain,train', 'malformed'): "start seconds are 'start'",
    ('odd,7,rain', 'malformed'): '3 columns, not 4'}
  assert rows['brief_000000', 'short'].endswith('less than 1 s')
  report = json.loads((builder.data_path / 'report.json').read_text())
  assert report['built'] == {'train': 2, 'test': 1}
  assert report['left_out'] == {'missing': 1, 'short': 1, 'silent': 1, 'broken': 2,
                                'duplicate': 1, 'malformed': 2}
  assert sum(report['listed'].values()) == 11 == sum(report['left_out'].values()) + 3
  assert {'kind': 'broken', 'reason': 'truncated', 'rows': 1} in report['reasons']
  assert len(TfdsSource('vggsound', 'train', tmp_path / 'data', **SIZES)) == 2


def test_real_clips_and_broken_ones(tmp_path, shared_clips, shared_clips_bad):
  manual = tmp_path / 'manual'
  files = [*sorted(shared_clips.glob('*_0000[0-9]0.mp4'))[:2], *sorted(shared_clips_bad.iterdir())]
  for file in files:
    (manual / 'media').mkdir(parents=True, exist_ok=True)
    os.symlink(file, manual / 'media' / file.name)
  official_lists.write(manual / 'vggsound.csv',
                       *(f'{file.stem.removesuffix("_000030")},30,noise,train' for file in files))
  builder = make(tmp_path)
  kinds = {row['id'].removesuffix('_000030'): row['kind'] for row in left_out(builder)}
  surely = dict.fromkeys(('audio_only', 'empty', 'no_audio_track', 'not_a_video', 'truncated'),
                         'broken')
  assert surely.items() <= kinds.items()
  assert set(kinds) - set(surely) <= {'bit_rot', 'one_second'}
  source = TfdsSource('vggsound', 'train', tmp_path / 'data', **SIZES)
  assert source.load(0).duration == pytest.approx(10.0, abs=0.2)


@pytest.mark.slow
def test_checking_in_other_processes_gives_the_same(tmp_path):
  for name, processes in (('one', 0), ('two', 2)):
    official_lists.vggsound(tmp_path / name / 'manual')
    (tmp_path / name / 'manual' / 'b' / 'ghi.mp4').write_bytes(b'broken')
    make(tmp_path / name, options=Options(processes=processes))
  read = [[TfdsSource('vggsound', 'train', tmp_path / name / 'data', **SIZES).example(0),
           (tmp_path / name / 'data/vggsound/1.0.0/left_out.csv').read_text().replace(name, '')]
          for name in ('one', 'two')]
  assert read[0] == read[1]


@pytest.mark.slow
def test_a_file_that_crashes_a_decoder_is_found_and_the_rest_goes_on(monkeypatch):
  monkeypatch.setattr(check, 'examine', crashing.examine)
  examiner = make_examiner(1)
  jobs = [Candidate(path, True, 0.0, None, Needs()) for path in ('a', 'bad', 'c', 'd')]
  assert [v.reason for v in examiner(jobs)] == ['', 'a decoder crashes on it', '', '']
  assert [v.reason for v in examiner(jobs[2:])] == ['', '']
  examiner.close()


def test_without_checks_only_headers_are_read(tmp_path):
  official_lists.magnatagatune(tmp_path / 'manual')
  official_lists.sound(tmp_path / 'manual/mp3/b/horn-0-29.mp3', level=0.0)
  (tmp_path / 'manual/mp3/c/horn-59-88.mp3').write_bytes(b'')
  builder = make(tmp_path, 'magnatagatune', Options(check=False))
  assert builder.report.left_out == {'broken': 1}  # the empty one; silence is not heard
  checked = make(tmp_path, 'magnatagatune', Options(), overwrite=True)
  assert checked.report.left_out == {'broken': 1, 'silent': 1}


def test_shards_follow_the_sizes_and_hold_all(tmp_path, monkeypatch):
  official_lists.magnatagatune(tmp_path / 'manual')
  lines = [f'"{n}"\t"0"\t"1"\t"0"\t"0/{n}.mp3"' for n in range(7)]
  official_lists.write(tmp_path / 'manual/annotations_final.csv',
                       '"clip_id"\t"no voice"\t"guitar"\t"slow"\t"mp3_path"', *lines)
  official_lists.sound(tmp_path / 'manual/mp3/0/0.mp3')
  size = (tmp_path / 'manual/mp3/0/0.mp3').stat().st_size
  for n in range(1, 7):
    os.link(tmp_path / 'manual/mp3/0/0.mp3', tmp_path / f'manual/mp3/0/{n}.mp3')
  monkeypatch.setattr(builder_module, 'SHARD_BYTES', 3 * size)
  made = make(tmp_path, 'magnatagatune')
  assert made.info.splits['train'].shard_lengths == [3, 3, 1]
  source = TfdsSource('magnatagatune', 'train', tmp_path / 'data', need_video=False, **SIZES)
  assert [source.name(i) for i in range(7)] == [str(n) for n in range(7)]  # in the list's order


MISTAKES = {
  'vggsound': ('vggsound.csv', 'id,start,label,split\na,0,b,train\n', 'expected the columns You'),
  'audioset_strong': ('audioset_train_strong.tsv', 'filename\tonset\toffset\tevent_label\n',
                      'its columns are filename, onset, offset, event_label; expected segment_id'),
  'autorecap': ('autocap_audioset_vggsounds.json', '[1, 2]\n', r'its first line is'),
  'fma': ('fma_metadata/tracks.csv', ',set\n,split\n', 'there is no set/subset'),
  'magnatagatune': ('annotations_final.csv', 'clip_id,mp3_path\n', 'expected clip_id, mp3_path'),
  'mtg_jamendo': ('data/splits/split-0/autotagging-train.tsv', 'A\tB\n', 'its columns are A, B'),
  'song_describer': ('song_describer.csv', 'id,text\n1,a\n', 'there is no caption_id'),
  'movie_gen_bench': ('MovieGenAudioBenchSfx.jsonl', '{"id": 0}\n', 'expected JSON with id')}


@pytest.mark.parametrize('name', MISTAKES)
def test_another_table_in_a_lists_place_is_one_line_with_what_was_found(tmp_path, capsys, name):
  getattr(official_lists, name)(tmp_path / 'manual')
  table, text, told = MISTAKES[name]
  (tmp_path / 'manual' / table).write_text(text)
  flags = [name, f'--manual_dir={tmp_path}/manual', f'--data_dir={tmp_path}/data', '--processes=0']
  assert main(flags) == 2
  line, = [line for line in capsys.readouterr().err.splitlines() if line.startswith('avlink_jax:')]
  assert told in line and table.rpartition('/')[2] in line
  assert not list((tmp_path / 'data').rglob('dataset_info.json'))


@pytest.mark.parametrize('name', MISTAKES)
def test_a_list_that_is_not_there_is_named(tmp_path, name):
  getattr(official_lists, name)(tmp_path / 'manual')
  for path in list((tmp_path / 'manual').rglob(MISTAKES[name][0].rpartition('/')[2][:16] + '*')):
    if path.is_file():
      path.unlink()
  for path in (tmp_path / 'manual').rglob('*.tsv'):
    path.unlink()
  with pytest.raises(UserError, match='is not there; it comes with the data set'):
    make(tmp_path, name)


def test_other_mistakes_are_one_line(tmp_path):
  for prepare, more, told in (
      (lambda m: None, {}, 'no such folder'),
      (lambda m: m.mkdir(), {}, 'does not exist or is empty'),
      (lambda m: official_lists.write(m / 'vggsound.csv', 'a,0,b,train'), {}, 'no media files in'),
      (lambda m: official_lists.video(m / 'other.mp4'), {}, 'none of its media files belongs'),
      (lambda m: (m / 'a_0.mp4').write_bytes(b''), {}, 'nothing could be built'),
      (lambda m: None, {'config': 'large'}, "no config 'large': leave --config out"),
      (lambda m: None, {'options': Options(caption='the sound of')}, '{label} in it')):
    prepare(tmp_path / 'manual')
    with pytest.raises(UserError, match=told) as error:
      make(tmp_path, **more)
    assert '\n' not in str(error.value)
  assert [path for path in (tmp_path / 'data').rglob('*') if path.is_file()] == []


@pytest.mark.slow
def test_the_command_builds_and_tells_and_does_not_build_twice(tmp_path, capsys):
  official_lists.song_describer(tmp_path / 'manual')
  arguments = ['song_describer', '--processes=0', f'--manual_dir={tmp_path}/manual',
               f'--data_dir={tmp_path}/data']
  done = subprocess.run([sys.executable, '-m', 'avlink_jax.data.build', *arguments],
                        capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('song_describer/1.0.0: 2 of 2 rows built (test 2); left out: none')
  assert main(arguments) == 2  # what another process built is seen here
  assert '--overwrite' in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_one_line_and_leaves_nothing_half_done(tmp_path):
  intervals = {'intervals': [{'start': 0, 'end': 2, 'text': 'a tone'}] * 8}
  official_lists.write(tmp_path / 'manual/autocap.json', json.dumps({'vid': intervals}))
  noise = np.random.default_rng(0).uniform(-0.5, 0.5, 88200)  # records are packed; noise is not
  for n in range(8):
    soundfile.write(tmp_path / f'manual/vid_{n:03d}.wav', noise, 44100)
  command = (f'ulimit -f 1000; {sys.executable} -m avlink_jax.data.build autorecap --processes=0 '
             f'--manual_dir={tmp_path}/manual --data_dir={tmp_path}/data')
  done = subprocess.run(['bash', '-c', command], capture_output=True, text=True)
  assert done.returncode == 2
  assert 'cannot be written (File too large)' in done.stderr.splitlines()[-1]
  assert [path for path in (tmp_path / 'data').rglob('*') if path.is_file()] == []


def test_a_caption_of_a_megabyte_is_cut_and_counted(tmp_path):
  official_lists.autorecap(tmp_path / 'manual')
  interval = {'start': 0, 'end': 2, 'text': 'rain ' * 200_000}
  official_lists.write(tmp_path / 'manual/autocap_audioset_vggsounds.json',
                       json.dumps({'vid': {'intervals': [interval]}}))
  builder = make(tmp_path, 'autorecap')
  assert builder.report.shortened == ['vid_000'] and '1 captions were cut' in str(builder.report)
  source = TfdsSource('autorecap', 'train', tmp_path / 'data', need_video=False, **SIZES)
  assert len(source.load(0).audio_caption) <= 10_000


def test_links_that_go_round_and_hidden_files_are_no_trouble(tmp_path):
  official_lists.vggsound(tmp_path / 'manual')
  os.symlink(tmp_path / 'manual', tmp_path / 'manual' / 'a' / 'round')
  os.rename(tmp_path / 'manual/b/ghi.mp4', tmp_path / 'manual/b/.ghi.mp4')
  assert make(tmp_path).report.left_out == {'missing': 2}


def test_what_a_killed_build_has_left_is_told_and_not_in_the_way(tmp_path, capsys):
  official_lists.vggsound(tmp_path / 'manual')
  left = tmp_path / 'data/vggsound/incomplete.ABC123_1.0.0'
  official_lists.write(left / 'vggsound-train.array_record-00000-of-00001', 'half')
  assert sum(make(tmp_path).report.built.values()) == 2
  assert f'{left}: a build that runs, or was killed' in capsys.readouterr().err
  assert len(TfdsSource('vggsound', 'train', tmp_path / 'data', **SIZES)) == 1


def test_captions_follow_the_template(tmp_path):
  official_lists.fma(tmp_path / 'manual')
  make(tmp_path, 'fma', Options(caption='a {label} song'), config='medium')
  source = TfdsSource('fma/medium', 'train', tmp_path / 'data', need_video=False, **SIZES)
  assert source.caption(0) == 'a Hip-Hop song'


def test_only_the_clip_of_a_whole_recording_is_its_span(tmp_path):
  official_lists.write(tmp_path / 'manual/vggsound.csv', 'abc,2,bells,train')
  path = tmp_path / 'manual' / 'abc.mp4'
  made_clips.make_clip(path, made_clips.steady(6, 15.0), flash=20)
  make(tmp_path)
  source = TfdsSource('vggsound', 'train', tmp_path / 'data', max_fps=6, **SIZES)
  assert (source.example(0)['start'], source.example(0)['end']) == (2.0, 12.0)
  clip = source.load(0)
  assert clip.duration == pytest.approx(10.0)
  assert made_clips.flash_time(clip) == pytest.approx(20 / 6 - 2.0, abs=0.02)


def test_every_data_set_is_there_and_documented():
  for name in build_module.DATASETS:
    cls = build_module.dataset(name)
    assert cls.name == name and cls.MANUAL_DOWNLOAD_INSTRUCTIONS.strip()
  counts = collections.Counter(build_module.DATASETS.values())
  assert max(counts.values()) == 1
