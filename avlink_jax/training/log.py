"""Log of a training run: a line on the terminal, metrics.jsonl, TensorBoard, Weights & Biases.

metrics.jsonl has a row of a step's own figures (`loss`, …), one of its validation
(`validation/loss`, …) and one of its samples' scores, each with its `step`. In TensorBoard names
are grouped: `train/…`, `validation/…`, `validation_raw/…`, `scores/…`, with samples to look
at and listen to.
"""

import json
import os
import pathlib
import time

from avlink_jax.storage.atomic import write_text
from avlink_jax.storage.console import hms, say
from avlink_jax.training.tensorboard import tensorboardX

VALIDATED = 'validation/loss'  # a figure that every validation has (validation.py)


class Log:
  """Log of a run in `workdir`; on processes other than the first nothing is written.

  A run resumed at `first_step` was trained for `seconds` before, and `skipped` lists the unusable
  clips (name, reason) up to there. `share_of_peak`: MFU of one step a second, None where unknown
  (mfu.py). `also`: gets the grouped figures as well (wandb_run.py), or None.
  """

  def __init__(self, workdir, total_steps, first_step, write=True, seconds=0.0, skipped=(),
               share_of_peak=None, also=None):
    self._share_of_peak, self._also = share_of_peak, also
    self._write, self._total, self._start_step = write, total_steps, first_step
    self._started = self._last = time.monotonic()
    self._paced = None
    self._last_step, self._seconds = first_step, seconds
    self._scored, self._validated = set(), set()
    if write:
      path = pathlib.Path(workdir) / 'metrics.jsonl'
      rows = [row for row in rewind(path, first_step) if 'loss' not in row]
      self._validated = {row['step'] for row in rows if VALIDATED in row}
      self._scored = {row['step'] for row in rows if VALIDATED not in row}
      self._metrics = path.open('a')
      # Events of steps that are taken again are hidden.
      self._board = tensorboardX.SummaryWriter(
          str(workdir), flush_secs=30, purge_step=first_step + 1 if first_step else None)
      write_lines(pathlib.Path(workdir) / 'skipped.jsonl', map(skip_row, skipped))

  @property
  def seconds(self):
    """Seconds of training, over all attempts as far as they were kept."""
    return self._seconds + time.monotonic() - self._started

  def scored(self, step):
    """Tells whether the scores of `step` are written already."""
    return step in self._scored

  def validated(self, step):
    """Tells whether the validation of `step` is written already."""
    return step in self._validated

  def step(self, step, metrics):
    """Logs scalars of `step` (steps taken so far) with the speed since the last call."""
    now = time.monotonic()
    speed = (step - self._last_step) / max(now - self._last, 1e-9)
    self._last, self._last_step = now, step
    row = {'step': step, **{k: float(v) for k, v in metrics.items()}, 'steps_per_second': speed}
    if not self._write:
      return
    used = ''
    if self._share_of_peak:
      row['mfu'] = speed * self._share_of_peak
      used = f'  MFU {row["mfu"]:.1%}'
    self._row(row, 'train/')
    since, first = self._paced or (self._started, self._start_step)
    pace = (now - since) / max(step - first, 1)  # over the run: a steady guess
    self._paced = self._paced or (now, step)  # what comes before is mostly compilation
    left = (self._total - step) * pace
    say(f'step {step}/{self._total}  loss {row["loss"]:.4f}  {speed:.2f} steps/s'
        f'{used}  {hms(left)} left')

  def scores(self, step, scores):
    """Logs the means of an evaluation (evaluate.evaluate) beside the training's own figures, once
    a step: a finished run that is started again samples again."""
    means = {k: v for k, v in scores.items() if isinstance(v, float)}
    if self._write and means and step not in self._scored:
      self._scored.add(step)
      self._row({'step': step, **means}, 'scores/')

  def validation(self, step, figures):
    """Logs the figures of a validation (validation.py), once a step."""
    if self._write and step not in self._validated:
      self._validated.add(step)
      self._row({'step': step, **figures})
      say(f'step {step}/{self._total}  validation loss {figures[VALIDATED]:.4f}')

  def _row(self, row, group=''):
    """Writes a row; in TensorBoard its names are in `group`, such as 'train/'."""
    self._metrics.write(json.dumps(row) + '\n')
    self._metrics.flush()
    figures = {f'{group}{name}': value for name, value in row.items() if name != 'step'}
    for name, value in figures.items():
      self._board.add_scalar(name, value, row['step'])
    if self._also:
      self._also.log(row['step'], figures)

  def image(self, name, pixels, step):
    """Logs an image uint8 (H, W, 3) to TensorBoard."""
    if self._write:
      self._board.add_image(name, pixels, step, dataformats='HWC')

  def audio(self, name, wave, rate, step):
    """Logs a wave float32 (S,) in [−1, 1] at `rate` (Hz) to TensorBoard."""
    if self._write:
      self._board.add_audio(name, wave[:, None], step, sample_rate=rate)

  def skipped(self, workdir, rows):
    """Logs unusable clips, rows of (name, reason), in skipped.jsonl."""
    if self._write and rows:
      with (pathlib.Path(workdir) / 'skipped.jsonl').open('a') as file:
        for name, reason in rows:
          file.write(skip_row((name, reason)))
          say(f'skipped {name}: {reason}')

  def sync(self):
    """Flushes the log to the disk: a checkpoint must not outlive its rows."""
    if self._write:
      os.fsync(self._metrics.fileno())

  def close(self):
    if self._write:
      self._metrics.close()
      self._board.close()
    if self._also:
      self._also.close()


def rewind(path, step):
  """Removes rows of steps after `step` from a .jsonl file, since a resumed run repeats those.
  Returns the remaining rows."""
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  complete = [line for line in lines if line.endswith('\n')]  # a kill may have cut the last one off
  kept = [line for line in complete if json.loads(line)['step'] <= step]
  write_lines(path, kept)
  return [json.loads(line) for line in kept]


def write_lines(path, lines):
  """Rewrites a file atomically; removes it where there are no lines."""
  if text := ''.join(lines):
    write_text(path, text)
  else:
    path.unlink(missing_ok=True)


def skip_row(skipped):
  """Line of skipped.jsonl for (name, reason)."""
  name, reason = skipped
  return json.dumps({'clip': name, 'reason': reason}) + '\n'
