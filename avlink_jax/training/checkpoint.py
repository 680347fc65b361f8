"""Checkpoints of a run: the State and what the host knows, written by Orbax in the background,
vouched for by checksums, and read only where those agree.

    checkpoints/STEP/state/            the State (Orbax)
    checkpoints/STEP/about.json        what the host knows: config, seconds trained, skipped clips
    checkpoints/STEP/manifest.sha256   checksums of all of it (manifest.py)

A save begins as `STEP.unfinished` and gets its name last of all, so that a kill leaves a whole
checkpoint or none. In a bucket, where nothing can be renamed, it has its name from the beginning
and is a checkpoint once its manifest is there. Orbax by itself restores flipped bits without a
word.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import sys
import threading

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from avlink_jax.errors import UserError
from avlink_jax.storage import bucket as storage
from avlink_jax.storage import weights
from avlink_jax.training.resilience import manifest, patient_loop


class Checkpoints:
  """`workdir/checkpoints/`; keeps the newest `keep`, and of the older ones those of every
  `keep_every`-th step (0: none). Several processes share the folder."""

  def __init__(self, workdir, keep=3, keep_every=0, create=True):
    self._folder = storage.absolute(workdir) / 'checkpoints'
    self._in_bucket = storage.is_bucket(workdir)
    self._keep, self._keep_every = max(keep, 1), keep_every
    self._first = jax.process_index() == 0
    patient_loop.install()  # a refused save ends with all of its writers, not with the first
    self._orbax = ocp.StandardCheckpointer()
    for name in ('absl', 'asyncio'):
      logging.getLogger(name).addFilter(untold)  # a second time changes nothing
    self._thread, self._failure = None, None
    if create and self._first and not self._in_bucket:  # which has no folders to make
      self._folder.mkdir(parents=True, exist_ok=True)

  def steps(self):
    """Steps that were saved and not deleted, in order; sound or not."""
    unfinished = self._unfinished()
    return sorted(int(name) for name in storage.entries(self._folder)
                  if name.isdigit() and name not in unfinished)

  def _unfinished(self):
    """Names of what killed saves and deletions left."""
    names = storage.entries(self._folder)
    if not self._in_bucket:
      return [name for name in names if re.fullmatch(r'\d+\.(unfinished|deleted)', name)]
    there = set(storage.files(self._folder))
    return [name for name in names if name.isdigit() and f'{name}/{manifest.NAME}' not in there]

  @property
  def latest_step(self):
    """The newest step saved, sound or not; None where there is none."""
    return max(self.steps(), default=None)

  def newest_intact(self):
    """The newest step of which every byte is as it was written; None where nothing was ever saved.

    Says what is wrong with newer ones. Raises UserError where there are checkpoints and none is
    sound: that is no reason to begin anew. With several processes the first one looks.
    """
    step = self._look() if self._first else NONE
    if jax.process_count() > 1:
      step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
    if step == LOST:
      raise UserError(f'{self._folder}: none of the checkpoints is sound, so the run stops here; '
                      'to begin anew, remove that folder or give another --workdir')
    return None if step == NONE else step

  def _look(self):
    """The newest sound step, or NONE, or LOST."""
    with storage.reached(self._folder):
      steps = self.steps()
    for step in reversed(steps):
      with storage.reached(self._folder):
        wrong = manifest.damage(self._folder / str(step))
      if wrong is None:
        return step
      print(f'DAMAGED CHECKPOINT {self._folder / str(step)}: {wrong}; trying the one before',
            file=sys.stderr, flush=True)
    return LOST if steps else NONE

  def tidy(self, step):
    """Makes room to go on from `step` (None: from the beginning): what a killed save or deletion
    left is removed, and damaged checkpoints are set aside as `STEP.damaged`, for a look.

    For the one run that trains here, not for those who only read."""
    if self._first:
      with storage.reached(self._folder):
        self._tidy(step)

  def _tidy(self, step):
    for name in self._unfinished():
      print(f'removing {self._folder / name}: it was not finished', file=sys.stderr, flush=True)
      storage.remove(self._folder / name)
    for damaged in self.steps():
      if step is not None and damaged > step:
        aside = self._folder / f'{damaged}.damaged'
        storage.remove(aside, missing_ok=True)
        storage.rename(self._folder / str(damaged), aside)

  def about(self, step):
    """What the host knew at `step`, as given to `save`."""
    with storage.reached(self._folder):
      return json.loads((self._folder / str(step) / 'about.json').read_text())

  def digest(self, step):
    """SHA-256 of a step's manifest, in hexadecimal digits: what tells its bytes from all others."""
    with storage.reached(self._folder):
      return hashlib.sha256((self._folder / str(step) / manifest.NAME).read_bytes()).hexdigest()

  def restore(self, like, step=None):
    """The State saved at `step` (default: the newest that is sound), shaped and placed as `like`,
    whatever it was placed on when it was saved; shapes without a placement go to one device."""
    step = self.newest_intact() if step is None else step
    alone = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=getattr(leaf, 'sharding', None) or alone), like)
    return self._orbax.restore(self._folder / str(step) / 'state', abstract)

  def branches(self, step, like):
    """Branches of the State saved at `step`, shaped and placed as `like`, {name: tree of
    ShapeDtypeStruct}; no other is read. Raises UserError, which lists differences: they are of
    another model."""
    with storage.reached(self._folder), contextlib.closing(ocp.PyTreeCheckpointer()) as reader:
      wanted = {name: tree for name, tree in like.items() if jax.tree.leaves(tree)}
      saved = self._metadata(reader, step)
      for name, tree in wanted.items():
        weights.fit(saved[name], tree, self._folder / str(step))
      read = self._read(reader, step, wanted, ocp.checkpoint_utils.construct_restore_args(wanted))
    return like | read

  def arrays(self, step, *branches):
    """Branches of the State saved at `step`, {name: tree of numpy arrays}; no other is read, and
    what it was sharded over does not matter."""
    with storage.reached(self._folder), contextlib.closing(ocp.PyTreeCheckpointer()) as reader:
      saved = self._metadata(reader, step)
      shape = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)  # noqa: E731
      wanted = {name: jax.tree.map(shape, saved[name]) for name in branches if saved.get(name)}
      how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
      read = self._read(reader, step, wanted, how)
    return dict.fromkeys(branches, {}) | read

  def _metadata(self, reader, step):
    """Shapes and types of a step's State, as a tree."""
    return reader.metadata(self._folder / str(step) / 'state').item_metadata.tree

  def _read(self, reader, step, wanted, how):
    return reader.restore(self._folder / str(step) / 'state', ocp.args.PyTreeRestore(
        item=wanted, restore_args=how, partial_restore=True))

  def save(self, step, state, about=None):
    """Starts saving and returns while it is being written. Saving a saved step does nothing.

    The next `save`, `wait` or `close` raises UserError where the disk did not take it.
    """
    self.wait()
    with storage.reached(self._folder):
      if step in self.steps():
        return
    partial = self._folder / (str(step) if self._in_bucket else f'{step}.unfinished')
    with told(partial):
      if self._first:
        storage.remove(partial, missing_ok=True)  # else its files would be vouched for
        if not self._in_bucket:
          partial.mkdir()
      self._orbax.save(partial / 'state', state, force=True)
    if self._first:
      self._thread = threading.Thread(target=self._finish, args=(step, partial, about or {}),
                                      name=f'checkpoint {step}')
      self._thread.start()

  def _finish(self, step, partial, about):
    """In the background: waits for Orbax, vouches, names, makes room."""
    try:
      with told(partial):
        self._orbax.wait_until_finished()
        (partial / 'about.json').write_text(json.dumps(about))
        manifest.write(partial)
        if not self._in_bucket:
          partial.rename(self._folder / str(step))
          manifest.sync(self._folder)
        self._retain()
    except Exception as error:  # of whatever kind: it is raised where the run waits for it
      self._failure = error

  def _retain(self):
    """Deletes what is neither new nor to be kept: only ever after a sound one was written."""
    for step in self.steps()[:-self._keep]:
      if not (self._keep_every and step % self._keep_every == 0):
        dead = self._folder / str(step)
        if self._in_bucket:
          (dead / manifest.NAME).unlink()  # first, so that a half-deleted one is none
        else:
          dead = dead.rename(self._folder / f'{step}.deleted')
        storage.remove(dead)

  def wait(self):
    """Waits until everything is written; raises UserError where it could not be."""
    if self._thread is not None:
      self._thread.join()
      self._thread = None
    elif not self._first:
      self._orbax.wait_until_finished()
    if self._failure is not None:
      failure, self._failure = self._failure, None
      raise failure

  def close(self):
    """`wait`, and the end."""
    try:
      self.wait()
    finally:
      self._orbax.close()


NONE, LOST = -1, -2  # no checkpoint at all; none that is sound


def refusal(error):
  """What the system said no to, in words, if that is what an exception is about; else None."""
  if reason := storage.refusal(error):
    return reason
  code = re.search(r"os_error_code='(\d+)'", str(error))  # as TensorStore tells it
  return os.strerror(int(code[1])) if code and isinstance(error, ValueError) else None


@contextlib.contextmanager
def told(partial):
  """What the disk refuses, in one line, without the partial save: it would only take up room."""
  try:
    yield
  except Exception as error:  # a disk's, TensorStore's, a store's own
    if not (reason := refusal(error)):
      raise
    with contextlib.suppress(UserError), storage.reached(partial):
      storage.remove(partial, missing_ok=True)
    raise UserError(
        f'{partial.with_suffix("")}: the checkpoint could not be written ({reason}); those before '
        'it are as they were: make room and start the same command again') from None


def untold(record):
  """A filter of Orbax's log and its tasks': `told` says it better than a traceback."""
  return not (record.exc_info and refusal(record.exc_info[1]))
