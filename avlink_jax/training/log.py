"""What a run says while it runs: a line on the terminal, metrics.jsonl, TensorBoard."""

import json
import pathlib
import sys
import time

import tensorboardX


class Log:
  """Writes to `workdir`; on other processes than the first it writes nothing."""

  def __init__(self, workdir, total_steps, first_step, write=True):
    self._write, self._total, self._start_step = write, total_steps, first_step
    self._started = self._last = time.monotonic()
    self._last_step = first_step
    if write:
      self._metrics = rewound(pathlib.Path(workdir) / 'metrics.jsonl', first_step)
      self._board = tensorboardX.SummaryWriter(str(workdir), flush_secs=30)

  def step(self, step, metrics):
    """Logs scalars of `step` (steps taken so far) with the speed since the last call."""
    now = time.monotonic()
    speed = (step - self._last_step) / max(now - self._last, 1e-9)
    self._last, self._last_step = now, step
    row = {'step': step, **{k: float(v) for k, v in metrics.items()}, 'steps_per_second': speed}
    if not self._write:
      return
    self._metrics.write(json.dumps(row) + '\n')
    self._metrics.flush()
    for name, value in row.items():
      if name != 'step':
        self._board.add_scalar(name, value, step)
    pace = (now - self._started) / max(step - self._start_step, 1)  # over the run: a steady guess
    left = (self._total - step) * pace
    print(f'step {step}/{self._total}  loss {row["loss"]:.4f}  {speed:.2f} steps/s  '
          f'{clock(left)} left', file=sys.stderr, flush=True)

  def scores(self, step, scores):
    """Logs the means of an evaluation (evaluate.evaluate) beside the training's own figures."""
    means = {k: v for k, v in scores.items() if isinstance(v, float)}
    if self._write and means:
      self._metrics.write(json.dumps({'step': step, **means}) + '\n')
      self._metrics.flush()
      for name, value in means.items():
        self._board.add_scalar(f'scores/{name}', value, step)

  def image(self, name, picture, step):
    """A picture uint8 (H, W, 3) for TensorBoard."""
    if self._write:
      self._board.add_image(name, picture, step, dataformats='HWC')

  def skipped(self, workdir, rows):
    """Lists clips that could not be used: rows of (name, reason), in skipped.jsonl."""
    if self._write and rows:
      with (pathlib.Path(workdir) / 'skipped.jsonl').open('a') as file:
        for name, reason in rows:
          file.write(json.dumps({'clip': name, 'reason': reason}) + '\n')
          print(f'skipped {name}: {reason}', file=sys.stderr, flush=True)

  def close(self):
    if self._write:
      self._metrics.close()
      self._board.close()


def rewound(path, step):
  """Opens metrics.jsonl for appending, without rows of steps after `step`: a resumed run takes
  those again, and no step shall stand there twice."""
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  whole = [line for line in lines if line.endswith('\n')]  # a kill may have torn the last one
  path.write_text(''.join(line for line in whole if json.loads(line)['step'] <= step))
  return path.open('a')


def clock(seconds):
  """Seconds as h:mm:ss or m:ss."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
