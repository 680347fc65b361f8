"""Checkpoints of a run (Orbax): the whole State, saved in the background, newest restored."""

import pathlib

import jax
import orbax.checkpoint as ocp


class Checkpoints:
  """`workdir/checkpoints/STEP/`; keeps the newest `keep`."""

  def __init__(self, workdir, keep=3, create=True):
    self._manager = ocp.CheckpointManager(
        pathlib.Path(workdir).absolute() / 'checkpoints',
        options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=create))

  @property
  def latest_step(self):
    """The newest step saved, or None."""
    return self._manager.latest_step()

  def save(self, step, state):
    """Starts saving; returns while it is being written. Saving a saved step does nothing."""
    if step != self.latest_step:
      self._manager.save(step, args=ocp.args.StandardSave(state))

  def restore(self, like, step=None):
    """The State saved at `step` (default: the newest), shaped and placed as `like`."""
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    return self._manager.restore(
        self.latest_step if step is None else step, args=ocp.args.StandardRestore(abstract))

  def close(self):
    """Waits until everything is written."""
    self._manager.wait_until_finished()
    self._manager.close()
