"""A trace of some steps, for XProf or TensorBoard's profile page."""

import re

import jax

from avlink_jax.errors import UserError


class Profile:
  """Traces the steps that `profile.steps` names into `workdir/profile/`, on the first process.

  'A:B' are the steps A to B − 1, counted from 1 as in metrics.jsonl; '' none. Raises UserError
  where that is no such span, or lies beyond `last_step`.
  """

  def __init__(self, workdir, steps, last_step, write=True):
    self._folder, self._write = workdir / 'profile', write
    self._span, self._tracing = span(steps), False
    if self._span and self._span.start > last_step:
      raise UserError(f'profile.steps={steps}: the run ends at step {last_step}')

  def missed(self, first_step):
    """What to say where a run goes on at `first_step`, after the steps that were to be traced."""
    if self._span and self._span.start <= first_step:
      return f'no profile is taken: it was to begin at step {self._span.start}, which is done'
    return ''

  def step(self, step):
    """A context in which to send off `step`: the trace shows it under its number."""
    if self._write and self._span and step == self._span.start:
      jax.profiler.start_trace(str(self._folder))
      self._tracing = True
    return jax.profiler.StepTraceAnnotation('train', step_num=step)

  def ended(self, step):
    """To be called once a step's results are there."""
    if self._tracing and step >= self._span.stop - 1:
      self.close()

  def close(self):
    """Writes what was traced, where a trace is being taken."""
    if self._tracing:
      self._tracing = False
      jax.profiler.stop_trace()


def span(steps):
  """'10:13' -> range(10, 13), '' -> None; UserError for anything else."""
  if not steps:
    return None
  found = re.fullmatch(r'(\d+):(\d+)', steps)
  if not found or not 0 < int(found[1]) < int(found[2]):
    raise UserError(f'profile.steps={steps}: give A:B with 0 < A < B, such as 10:13 for the steps '
                    '10, 11 and 12')
  return range(int(found[1]), int(found[2]))
