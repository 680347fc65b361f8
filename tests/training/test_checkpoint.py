"""Damage of every kind, full disks, retention: nothing unsound is ever trained on."""

import contextlib
import functools
import gc
import pathlib
import resource
import shutil
import subprocess
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from avlink_jax.errors import UserError
from avlink_jax.training import sharding
from avlink_jax.training.checkpoint import Checkpoints
from avlink_jax.training.resilience import manifest


def state(step, size=400):
  """Something like a State: it knows its step."""
  return {'params': {'kernel': step + jnp.arange(size, dtype=jnp.float32)},
          'stats': {}, 'step': jnp.int32(step)}


def saved(workdir, steps, size=400, **kept):
  """Checkpoints at these steps; gives `workdir/checkpoints`."""
  checkpoints = Checkpoints(workdir, **kept)
  for step in steps:
    checkpoints.save(step, state(step, size), {'config': {'seed': step}})
  checkpoints.close()
  return workdir / 'checkpoints'


def restored(workdir):
  """(newest sound step, the state that is restored)."""
  checkpoints = Checkpoints(workdir, create=False)
  step = checkpoints.newest_intact()
  made = checkpoints.restore(jax.eval_shape(lambda: state(0)))
  checkpoints.close()
  np.testing.assert_array_equal(made['params']['kernel'], state(step)['params']['kernel'])
  return step


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """Sound checkpoints at 2 and 4, to be copied and spoilt."""
  return saved(tmp_path_factory.mktemp('two'), [2, 4])


@pytest.fixture
def copy(two, tmp_path):
  return pathlib.Path(shutil.copytree(two, tmp_path / 'checkpoints'))


def flip(path, bit):
  content = bytearray(path.read_bytes())
  content[bit // 8 % len(content)] ^= 1 << bit % 8
  path.write_bytes(content)


def files(folder):
  return sorted(path for path in folder.rglob('*') if path.is_file() and path.stat().st_size)


def test_what_was_saved_comes_back_with_what_the_host_knew(two):
  checkpoints = Checkpoints(two.parent)
  assert checkpoints.newest_intact() == checkpoints.latest_step == 4
  assert checkpoints.about(4) == {'config': {'seed': 4}}
  checkpoints.close()
  assert restored(two.parent) == 4


def test_branches_come_back_placed_and_nothing_else_is_read(two):
  mesh = sharding.make_mesh(1)
  like = {'params': jax.eval_shape(lambda: state(0))['params'], 'stats': {}}
  like = sharding.abstract(like, sharding.shardings(like, mesh))
  checkpoints = Checkpoints(two.parent, create=False)
  read = checkpoints.branches(4, like)
  assert read.keys() == {'params', 'stats'} and read['stats'] == {}
  np.testing.assert_array_equal(read['params']['kernel'], state(4)['params']['kernel'])
  assert read['params']['kernel'].sharding == like['params']['kernel'].sharding
  wrong = jax.tree.map(lambda x: jax.ShapeDtypeStruct(
      (x.shape[0] + 1, *x.shape[1:]), x.dtype, sharding=x.sharding), like)
  with pytest.raises(UserError, match=r'4: these.*another model: kernel: \(400,\) in the file, '
                                      r'\(401,\) in the model'):
    checkpoints.branches(4, wrong)
  checkpoints.close()


def test_a_flipped_bit_anywhere_is_found_and_the_one_before_is_used(copy, capfd):
  """Every file of the newest, in three places each, the manifest included."""
  rng = np.random.default_rng(0)
  for path in files(copy / '4'):
    kept = path.read_bytes()
    for bit in rng.integers(8 * len(kept), size=3):
      flip(path, int(bit))
      assert manifest.damage(copy / '4'), (path, bit)
      path.write_bytes(kept)
  assert manifest.damage(copy / '4') is None
  flip(max(files(copy / '4'), key=lambda path: path.stat().st_size), 5000)
  assert restored(copy.parent) == 2
  assert f'DAMAGED CHECKPOINT {copy / "4"}: state/' in capfd.readouterr().err


@pytest.mark.parametrize('how', ['truncated', 'emptied', 'removed', 'added'])
def test_files_that_are_not_as_they_were_written_are_found(copy, how):
  for i, path in enumerate(files(copy / '4')):
    kept = path.read_bytes()
    if how == 'truncated':
      path.write_bytes(kept[:-1])
    elif how == 'emptied':
      path.write_bytes(b'')
    elif how == 'removed':
      path.unlink()
    else:
      (path.parent / f'more{i}').write_bytes(b'')
    assert manifest.damage(copy / '4'), path
    (path.parent / f'more{i}').unlink(missing_ok=True)
    path.write_bytes(kept)
  assert manifest.damage(copy / '4') is None


def test_a_save_that_was_killed_is_no_checkpoint(copy):
  """In whatever state: Orbax's temporary folder, the State alone, all but the name."""
  for name, spared in (('6', 0), ('8', 1), ('10', 99)):
    partial = copy / f'{name}.unfinished'
    shutil.copytree(copy / '4', partial)
    for path in files(partial)[spared:]:
      path.unlink()
  assert restored(copy.parent) == 4
  checkpoints = Checkpoints(copy.parent)
  checkpoints.tidy(4)
  checkpoints.close()
  assert sorted(path.name for path in copy.iterdir()) == ['2', '4']


def test_where_none_is_sound_the_run_stops_rather_than_begin_anew(copy):
  for step in ('2', '4'):
    flip(files(copy / step)[0], 77)
  checkpoints = Checkpoints(copy.parent)
  with pytest.raises(UserError, match='none of the checkpoints is sound'):
    checkpoints.newest_intact()
  checkpoints.close()


def test_where_nothing_was_ever_saved_the_run_begins(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  (tmp_path / 'checkpoints' / '2.unfinished').mkdir()  # the very first save was killed
  assert checkpoints.newest_intact() is None
  checkpoints.close()


def test_what_is_damaged_is_set_aside_and_saved_again(copy):
  flip(files(copy / '4')[0], 77)
  checkpoints = Checkpoints(copy.parent)
  checkpoints.tidy(checkpoints.newest_intact())
  checkpoints.save(4, state(4))
  checkpoints.close()
  assert sorted(path.name for path in copy.iterdir()) == ['2', '4', '4.damaged']
  assert restored(copy.parent) == 4


def test_the_newest_and_every_nth_are_kept(tmp_path):
  folder = saved(tmp_path, range(1, 9), keep=2, keep_every=3)
  assert sorted(path.name for path in folder.iterdir()) == ['3', '6', '7', '8']


def test_retention_never_deletes_the_last_sound_one(tmp_path, monkeypatch):
  """keep=1: the old one stays until the new one is vouched for, and if it never is."""
  folder, write = saved(tmp_path, [2], keep=1), manifest.write

  def checked(partial):
    assert manifest.damage(folder / '2') is None
    write(partial)

  def refused(partial):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(manifest, 'write', refused)
  with pytest.raises(UserError, match='checkpoints/4: .*No space left on device'):
    saved(tmp_path, [4], keep=1)
  assert restored(tmp_path) == 2
  monkeypatch.setattr(manifest, 'write', checked)
  saved(tmp_path, [4], keep=1)
  assert [path.name for path in folder.iterdir()] == ['4']


def test_a_deletion_that_was_killed_leaves_no_half_checkpoint(copy):
  (copy / '2').rename(copy / '2.deleted')
  files(copy / '2.deleted')[0].unlink()
  assert restored(copy.parent) == 4


@contextlib.contextmanager
def full_disk():
  """A limit on a file's size stands for the disk: the system refuses in the midst of writing."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
  try:
    yield {**state(4), 'params': {'kernel': jax.random.normal(jax.random.key(0), (100_000,))}}
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_the_earlier_checkpoints_stay(tmp_path, capfd):
  folder = saved(tmp_path, [2])
  checkpoints = Checkpoints(tmp_path)
  with full_disk() as large:
    checkpoints.save(4, large)
    with pytest.raises(UserError, match=r'checkpoints/4: .*could not be written \(File too large'):
      checkpoints.wait()
  gc.collect()  # tasks that failed beside the first are reported when they go
  assert 'Traceback' not in capfd.readouterr().err  # of Orbax's, beside our line
  assert [path.name for path in folder.iterdir()] == ['2']
  checkpoints.save(4, state(4))  # room was made
  checkpoints.close()
  assert restored(tmp_path) == 4


def test_a_refused_save_leaves_nothing_behind_however_late_its_other_writers_are(
    tmp_path, monkeypatch, capfd):
  """One array is refused while another file's folder is still being made, in another thread."""
  folder, late = saved(tmp_path, [2]), threading.Event()
  kind = type(epath.Path('/'))
  mkdir = kind.mkdir

  def slow(path, *arguments, **keywords):
    if path.name == 'array_metadatas':
      time.sleep(0.5)  # by which time the disk has long refused
      mkdir(path, *arguments, **keywords)
      late.set()
    else:
      mkdir(path, *arguments, **keywords)

  monkeypatch.setattr(kind, 'mkdir', slow)
  checkpoints = Checkpoints(tmp_path)
  with full_disk() as large:
    checkpoints.save(4, large)
    with pytest.raises(UserError, match='File too large'):
      checkpoints.wait()
  assert late.wait(60)
  assert [path.name for path in folder.iterdir()] == ['2']
  assert 'Traceback' not in capfd.readouterr().err
  checkpoints.close()


def test_what_an_earlier_try_left_is_not_vouched_for(copy):
  partial = copy / '6.unfinished' / 'state'
  partial.mkdir(parents=True)
  (partial.parent / 'stray').write_text('of a save that was killed')
  saved(copy.parent, [6])
  assert not (copy / '6' / 'stray').exists()
  assert restored(copy.parent) == 6


def test_a_checkpoint_is_the_state_at_its_step_though_training_goes_on(tmp_path):
  """The next step takes the State's memory over while it is being written."""
  checkpoints = Checkpoints(tmp_path, keep=9)
  step = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
  now = state(0, 400_000)
  for i in range(1, 7):
    now = step(now)
    checkpoints.save(i, now)
    now = functools.reduce(lambda made, _: step(made), range(3), now)
  checkpoints.close()
  like = jax.eval_shape(lambda: state(0, 400_000))
  for i in range(1, 7):
    made = Checkpoints(tmp_path).restore(like, i)
    assert int(made['step']) == 4 * i - 3
    np.testing.assert_array_equal(made['params']['kernel'],
                                  np.arange(400_000, dtype=np.float32) + 4 * i - 3)


def test_the_manifest_can_be_checked_by_hand(two):
  checked = subprocess.run(['sha256sum', '-c', '--quiet', manifest.NAME], cwd=two / '4')
  assert checked.returncode == 0
