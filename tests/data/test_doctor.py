"""The doctor finds in a file what was made wrong with it, and nothing in good ones."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from made_clips import SHARED, make_clip, needs_bad_clips, needs_clips, steady, variable

from avlink_jax.data.doctor import __main__ as command
from avlink_jax.data.doctor import report
from avlink_jax.data.doctor.examine import HAND, NOTE, UNUSABLE, examine
from avlink_jax.data.media import mux
from avlink_jax.errors import INTERRUPTED, MISTAKE

RATE = 48_000
ROOT = pathlib.Path(__file__).resolve().parents[2]


def film(path, wave, seconds=2.0, still=False):
  """A moving picture with a wave float (S,) or (S, C)."""
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (round(6 * seconds), 36, 64, 3), np.uint8)
  mux.write_mp4(path, frames=frames[:1].repeat(len(frames), 0) if still else frames, fps=6,
                audio=None if wave is None else wave.astype(np.float32), sample_rate=RATE)
  return path


def noise(seconds=2.0, level=0.2):
  return level * np.random.default_rng(0).standard_normal(round(seconds * RATE)).clip(-3, 3)


def names(examination):
  return {found.name: found.severity for found in examination.findings}


def test_a_good_clip_has_no_findings(tmp_path):
  found = examine(film(tmp_path / 'a.mp4', noise()))
  assert found.findings == [] and found.severity == ''
  assert found.facts['fps'] == 6 and found.facts['sample_rate'] == RATE
  assert found.facts['rms_dbfs'] == pytest.approx(-18.8, abs=1)  # white noise up to 8 kHz
  assert len(found.wave)
  assert found.thumbnail.shape == (72, 128, 3)


def burst(seconds):
  wave = np.zeros(round(seconds * RATE))
  wave[RATE // 2:RATE // 2 + 2000] = 0.5
  return wave


@pytest.mark.parametrize('name, severity, made', [
    ('no_sound', HAND, lambda path: film(path, None)),
    ('silent', HAND, lambda path: film(path, noise(level=1e-4))),
    ('still', HAND, lambda path: film(path, noise(), still=True)),
    ('short', HAND, lambda path: film(path, noise(0.34), seconds=0.34)),
    ('clipped', NOTE, lambda path: film(path, noise(level=2))),
    ('little_sound', HAND, lambda path: film(path, burst(4), seconds=4)),
    ('counter_phase', NOTE, lambda path: film(path, np.stack([noise(), -noise()], 1))),
    ('start_offset', NOTE, lambda path: make_clip(path, steady(25), sound_starts=0.5)),
    ('variable_rate', NOTE, lambda path: make_clip(path, variable())),
    ('unusable', UNUSABLE, lambda path: path.write_bytes(b'not media'))])
def test_each_oddity_is_found(tmp_path, name, severity, made):
  made(tmp_path / 'a.mp4')
  assert names(examine(tmp_path / 'a.mp4')).get(name) == severity


def test_counter_phase_in_a_part_is_found_with_its_time(tmp_path):
  left, right = noise(3), noise(3)
  right[RATE:2 * RATE] *= -1
  found = examine(film(tmp_path / 'a.mp4', np.stack([left, right], 1), seconds=3))
  part, = (each for each in found.findings if each.name == 'counter_phase')
  assert part.what == 'the channels cancel each other in a mono mix in 1.1 s of it, from 1.0 s on'


def test_a_hole_in_the_sound_is_found(tmp_path):
  """A second of packets is taken out of the middle."""
  film(tmp_path / 'whole.mp4', noise(4), seconds=4)
  with av.open(str(tmp_path / 'whole.mp4')) as given, av.open(
      str(tmp_path / 'holed.mkv'), 'w') as made:
    streams = {s.index: made.add_stream_from_template(s) for s in given.streams}
    for packet in given.demux():
      if packet.dts is None or (packet.stream.type == 'audio'
                                and 1 < packet.pts * packet.time_base < 2):
        continue
      packet.stream = streams[packet.stream.index]
      made.mux(packet)
  found = examine(tmp_path / 'holed.mkv')
  hole, = (each for each in found.findings if each.name == 'holes')
  assert hole.what.startswith('1 holes in the sound, 1.0')


def test_the_command_writes_a_page_and_a_list_and_tells_by_its_status(tmp_path, capsys):
  film(tmp_path / 'good.mp4', noise())
  (tmp_path / 'notes.txt').write_text('x')
  out = tmp_path / 'out' / 'report.html'
  assert command.main([str(tmp_path / 'good.mp4'), '--jobs=1']) == 0
  (tmp_path / 'bad <b>.mp4').write_bytes(b'not media')
  assert command.main([str(tmp_path), f'--output={out}', '--jobs=1']) == 1
  said = capsys.readouterr().out
  assert 'unusable  bad <b>.mp4: not a media file (is left out)' in said and '1 .txt' in said
  told = json.loads(out.with_suffix('.json').read_text())
  assert [row['severity'] for row in told['files']] == ['unusable', '']
  assert told['not_media'] == {'.txt': 1} and not out.with_suffix('.jsonl').exists()
  page = out.read_text()
  assert 'bad &lt;b&gt;.mp4' in page and '<b>' not in page and 'http' not in page


def test_an_interrupted_look_goes_on(tmp_path, monkeypatch):
  for name in 'ab':
    film(tmp_path / f'{name}.mp4', noise())
  journal, files = tmp_path / 'report.jsonl', sorted(tmp_path.glob('*.mp4'))
  rows = command.look(tmp_path, files, journal, 1)
  journal.write_text(journal.read_text().splitlines()[0] + '\n["cut')
  monkeypatch.setattr(command, 'SturdyPool', lambda *_: Counted())
  again = command.look(tmp_path, files, journal, 1)
  assert Counted.given == [files[1]] and again[0] == rows[0]


def test_ctrl_c_ends_it_with_a_line_and_its_processes_with_it(tmp_path):
  film(tmp_path / '0.mp4', None, seconds=1)
  for n in range(1, 40):
    shutil.copy(tmp_path / '0.mp4', tmp_path / f'{n}.mp4')
  journal = tmp_path / 'report.jsonl'
  # As from a terminal: a shell's background commands ignore Ctrl-C.
  process = subprocess.Popen(
      [sys.executable, '-m', 'avlink_jax.data.doctor', str(tmp_path), '--jobs=1',
       f'--output={tmp_path / "report.html"}'], stderr=subprocess.PIPE, text=True, cwd=ROOT,
      start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
  while not journal.exists() and process.poll() is None:
    time.sleep(0.05)
  os.killpg(process.pid, signal.SIGINT)
  said = process.communicate(timeout=100)[1]  # up to the end of all who write there
  assert process.returncode == INTERRUPTED, said
  assert said.splitlines()[-1] == (
      'avlink_jax: interrupted: with --output the same command goes on')
  assert 'Traceback' not in said and 0 < len(journal.read_text().splitlines()) < 40


class Counted:
  """A pool that notes what it is given."""
  given: list = []

  def __call__(self, items):
    Counted.given = list(items)
    return [{'file': str(item)} for item in items]

  def close(self):
    pass


@pytest.mark.parametrize('arguments, told', [
    (['nowhere'], 'no such folder'), (['.', '--jobs=0'], 'give at least 1'),
    (['.', '--output=report.txt'], 'give the name of a page')])
def test_mistakes_are_told(arguments, told, capsys):
  assert command.main(arguments) == MISTAKE
  assert told in capsys.readouterr().err


@needs_bad_clips
def test_broken_clips_are_found_broken():
  rows = {row['file']: row for row in (
      report.examined(SHARED / 'clips_bad', path)
      for path in sorted((SHARED / 'clips_bad').glob('*.mp4')))}
  unusable = {name for name, row in rows.items() if row['severity'] == UNUSABLE}
  assert unusable == {'bit_rot.mp4', 'empty.mp4', 'not_a_video.mp4', 'truncated.mp4'}


@needs_clips
def test_real_clips_are_usable():
  for path in sorted((SHARED / 'clips').glob('*.mp4'))[:5]:
    assert examine(path).severity != UNUSABLE
