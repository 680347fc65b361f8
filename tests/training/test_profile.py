"""A profile is of the steps that were asked for; MFU is of chips whose peak is known."""

import json

import jax
import numpy as np
import pytest
from micro import build, frozen_of, micro_config

from avlink_jax.errors import UserError
from avlink_jax.hardware import chips
from avlink_jax.training import mfu, programs, sharding
from avlink_jax.training.log import Log
from avlink_jax.training.profile import Profile, span


@pytest.mark.parametrize('steps', ['10', '10-13', '13:10', '10:10', '0:3', 'a:b', '1:2:3', '-1:2'])
def test_what_is_no_span_of_steps_is_told_in_one_line(steps):
  with pytest.raises(UserError, match='10:13'):
    span(steps)


def test_a_span_is_pythons():
  assert span('10:13') == range(10, 13) and span('') is None


def test_steps_beyond_the_end_are_told(tmp_path):
  with pytest.raises(UserError, match='ends at step 9'):
    Profile(tmp_path, '10:13', 9)
  assert 'step 3' in Profile(tmp_path, '3:5', 9).missed(3)
  assert not Profile(tmp_path, '3:5', 9).missed(2)


def traced(folder, monkeypatch, steps, last, write=True):
  """What a loop up to `last` traces: (numbers of started steps, when it was stopped)."""
  events = []
  monkeypatch.setattr(jax.profiler, 'start_trace', lambda path: events.append(('start', path)))
  monkeypatch.setattr(jax.profiler, 'stop_trace', lambda: events.append('stop'))
  profile = Profile(folder, steps, 9, write)
  for step in range(1, last + 1):
    with profile.step(step):
      events.append(step)
    profile.ended(step - 1)  # as the loop does: looked at while the next one runs
  profile.close()
  return events


def test_the_trace_begins_before_its_first_step_and_ends_after_its_last(tmp_path, monkeypatch):
  where = ('start', str(tmp_path / 'profile'))
  assert traced(tmp_path, monkeypatch, '2:4', 5) == [1, where, 2, 3, 4, 'stop', 5]
  assert traced(tmp_path, monkeypatch, '2:9', 3) == [1, where, 2, 3, 'stop']  # left early
  assert traced(tmp_path, monkeypatch, '', 3) == [1, 2, 3]
  assert traced(tmp_path, monkeypatch, '2:4', 3, write=False) == [1, 2, 3]


def share(config):
  models, task = build(config)
  mesh = sharding.make_mesh()
  placed = programs.build(task, mesh, frozen_of(models))
  return mfu.share_of_peak(config, placed, list(mesh.devices.flat))


def test_nothing_is_said_of_chips_whose_peak_is_not_known():
  assert share(micro_config('v2a')) is None


def test_mfu_counts_what_the_model_needs_and_not_what_is_computed_again(monkeypatch):
  monkeypatch.setitem(chips.PEAK, jax.devices()[0].device_kind, 1e9)
  plain = share(micro_config('v2a', remat='none'))
  assert plain > 0
  assert share(micro_config('v2a', remat='segment')) == plain
  assert share(micro_config('v2a', remat='none', **{'train.batch_size': 8})) == pytest.approx(
      2 * plain, rel=0.05)  # but for what is done once a batch


def test_mfu_is_logged_with_the_speed_it_belongs_to(tmp_path, capsys):
  log = Log(tmp_path, 2, 0, share_of_peak=0.25)
  log.step(1, {'loss': np.float32(1)})
  log.close()
  [row] = map(json.loads, (tmp_path / 'metrics.jsonl').read_text().splitlines())
  assert row['mfu'] == pytest.approx(0.25 * row['steps_per_second'])
  assert 'MFU' in capsys.readouterr().err
  log = Log(tmp_path, 2, 0)
  log.step(1, {'loss': np.float32(1)})
  log.close()
  assert 'mfu' not in (tmp_path / 'metrics.jsonl').read_text()
  assert 'MFU' not in capsys.readouterr().err
