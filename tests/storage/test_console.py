"""Lines on stderr: said once, at once, and what they tell of how far a command is."""

import itertools
import re

import pytest

from avlink_jax.storage import console
from avlink_jax.storage.console import Progress, hms, say


@pytest.fixture
def seconds(monkeypatch):
  """A clock that goes on by a second at each look."""
  monkeypatch.setattr(console.time, 'monotonic', map(float, itertools.count()).__next__)


def lines(capsys):
  out, err = capsys.readouterr()
  assert out == ''
  return err.splitlines()


def test_only_the_first_process_of_a_run_speaks(capsys):
  say('here')
  say('there', write=False)
  Progress('sampled', 1, write=False).add()
  assert lines(capsys) == ['here']


@pytest.mark.parametrize('seconds, text', [(0, '0:00'), (59.9, '0:59'), (61, '1:01'),
                                           (3600, '1:00:00'), (100 * 3600 + 5, '100:00:05')])
def test_seconds_are_read_as_hours_minutes_seconds(seconds, text):
  assert hms(seconds) == text


def test_a_line_tells_count_speed_and_time_left(seconds, capsys):
  """The speed since the first line: what comes before is mostly compilation."""
  progress = Progress('sampled', 4, every=0.0)
  progress.add()
  progress.add(2, note='1 unreadable')
  assert lines(capsys) == ['sampled 1/4 clips, 1.00 a second, 0:03 left',
                           'sampled 3/4 clips, 1 unreadable, 2.00 a second, 0:00 left']


def test_lines_come_seldom_and_the_last_one_always(seconds, capsys):
  progress = Progress('checked', 12, 'files', every=5.0)
  for _ in range(12):
    progress.add()
  assert [re.match(r'checked (\d+)/12 files', line)[1] for line in lines(capsys)] == [
      '5', '10', '12']


def test_the_last_piece_has_one_line(seconds, capsys):
  progress = Progress('prepare:', 3)
  progress.at(3)
  progress.at(3, last=True)
  assert len(lines(capsys)) == 1


def test_the_end_is_told_where_less_was_to_do_than_counted(seconds, capsys):
  progress = Progress('prepare:', 9)
  progress.at(0, last=True)
  Progress('prepare:', 0).at(0, last=True)  # nothing to do, nothing to tell
  assert lines(capsys) == ['prepare: 0/9 clips, 0.00 a second, unknown time left']
