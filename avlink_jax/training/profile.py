"""Traces of training steps, for XProf or TensorBoard's profile page."""

import re

import jax

from avlink_jax.errors import UserError


class Profile:
  """Tracer of the steps in `profile.steps`, into `workdir/profile/`, on the first process.

  'A:B' means steps A to B − 1, counted from 1 as in metrics.jsonl; '' none. Raises UserError: not
  such a span, or beyond `last_step`.
  """

  def __init__(self, workdir, steps, last_step, write=True):
    self._folder, self._write = workdir / 'profile', write
    self._span, self._tracing = span(steps), False
    if self._span and self._span.start > last_step:
      raise UserError(f'profile.steps={steps}: the run ends at step {last_step}')

  def missed(self, first_step):
    """Message for a run that resumes at `first_step`, after the span began; else ''."""
    if self._span and self._span.start <= first_step:
      return f'no profile is taken: it was to begin at step {self._span.start}, which is done'
    return ''

  def step(self, step):
    """Context for dispatching `step`, which the trace shows by its number."""
    if self._write and self._span and step == self._span.start:
      jax.profiler.start_trace(str(self._folder))
      self._tracing = True
    return jax.profiler.StepTraceAnnotation('train', step_num=step)

  def ended(self, step):
    """Ends the trace after its last step; to be called when a step's results are available."""
    if self._tracing and step >= self._span.stop - 1:
      self.close()

  def close(self):
    """Writes the trace, if one is being taken."""
    if self._tracing:
      self._tracing = False
      jax.profiler.stop_trace()


def span(steps):
  """Parses '10:13' as range(10, 13), '' as None. Raises UserError: anything else."""
  if not steps:
    return None
  match = re.fullmatch(r'(\d+):(\d+)', steps)
  if not match or not 0 < int(match[1]) < int(match[2]):
    raise UserError(f'profile.steps={steps}: give A:B with 0 < A < B, such as 10:13 for the steps '
                    '10, 11 and 12')
  return range(int(match[1]), int(match[2]))
