"""Jobs of the page, without the page: an upload and settings become takes, as files of a folder.

Whatever is wrong with them is a UserError in words that name no path of this machine.
"""

import dataclasses
import pathlib
import re
import shutil
import threading
from collections.abc import Callable
from typing import Any

import librosa
import numpy as np
from jax.errors import JaxRuntimeError

from avlink_jax.cli.presets import PRESETS
from avlink_jax.data.media.container import main_stream, opened, packets_of
from avlink_jax.errors import MediaError, UserError, out_of_memory
from avlink_jax.metrics import onset
from avlink_jax.samples.folder import file_stem
from avlink_jax.samples.spectrogram import spectrogram_png

MAX_BYTES = 200 * 2**20  # of an upload
MAX_SECONDS = 60.0  # of an upload
MAX_TAKES = 4
PATH = re.compile(r"(?<![\w.:/])/(?:[^\s'\",:;/]+/)*([^\s'\",:;/]+)")


class Stopped(Exception):
  """Notice that a job was stopped by who asked for it."""


@dataclasses.dataclass(frozen=True)
class Job:
  """What a visitor asks for.

  Attributes:
    upload: file of the conditioning modality; None: nothing was given.
    prompt, negative_prompt: words; '' for none.
    takes: how many of them.
    preset: of sampling (cli/presets.py).
    seed: of the noise.
  """
  upload: str | None
  prompt: str = ''
  negative_prompt: str = ''
  takes: int | None = 1
  preset: str = PRESETS[0]
  seed: int | None = 0


@dataclasses.dataclass(frozen=True)
class Take:
  """One generated clip: its name, files (None: it has no such file), and a line about its audio."""
  name: str
  video: pathlib.Path
  wav: pathlib.Path | None
  spectrogram: pathlib.Path | None
  note: str


def generate(load: Callable[[str], Any], condition: str, job: Job, folder: pathlib.Path,
             progress: Callable[[int, int], None] = lambda done, count: None,
             stop: threading.Event | None = None) -> list[Take]:
  """Generates the takes of a job, those of the highest AV-Align first.

  Args:
    load: gives the model (api.Model) of a preset; called after the job was checked.
    condition: 'video' or 'audio', what the upload is to the model.
    folder: where the files go. What an earlier job left there is deleted.
    progress: called with (steps done, steps in all).
    stop: set where the job is not wanted any more: it ends at its next step.

  Raises UserError: the job is out of bounds, the upload cannot be used, or the model refuses it;
  Stopped.
  """
  def wanted():
    if stop is not None and stop.is_set():
      raise Stopped

  def on_step(done, count):
    wanted()
    progress(done, count)

  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  upload = check(job, condition)
  try:
    length = seconds(upload, MAX_SECONDS)
    if length > MAX_SECONDS:
      raise UserError(f'{upload.name} is longer than {MAX_SECONDS:g} s: give a shorter one')
    wanted()
    model = load(job.preset)
    wanted()
    samples = model(
        **{condition: upload}, prompt=job.prompt.strip() or None,
        negative_prompt=job.negative_prompt.strip() or None, seed=int(job.seed or 0),
        takes=int(job.takes or 1), on_step=on_step)
    made = []
    for sample in sorted(samples, key=lambda sample: -(sample.av_align or 0.0)):
      wanted()
      made.append(take(sample, folder, file_stem(sample.id)))
    return made
  except (UserError, MediaError) as error:
    raise UserError(in_words(error, upload)) from None
  except JaxRuntimeError as error:
    if not out_of_memory(error):
      raise
    raise UserError('the device is out of memory: ask for fewer takes or a shorter clip') from None


def check(job: Job, condition: str) -> pathlib.Path:
  """Path of a job's upload. Raises UserError: something of the job is missing or out of bounds."""
  if not job.upload:
    raise UserError(f'no {condition} yet: drop a file or record one')
  upload = pathlib.Path(job.upload)
  if not upload.is_file():
    raise UserError('the upload was deleted in the meantime: drop the file again')
  if upload.stat().st_size > MAX_BYTES:
    raise UserError(f'{upload.name} has more than {MAX_BYTES >> 20} MiB: give a smaller file')
  if job.takes is None or not 1 <= job.takes <= MAX_TAKES or job.takes % 1:
    raise UserError(f'takes: give 1 to {MAX_TAKES}')
  if job.seed is None or not 0 <= job.seed < 2**31 or job.seed % 1:
    raise UserError(f'seed: give a whole number from 0 to {2**31 - 1}')
  if job.preset not in PRESETS:
    raise UserError(f'preset: choose {" or ".join(PRESETS)}')
  return upload


def seconds(path: pathlib.Path, limit: float) -> float:
  """Length of a file by the times of its packets, which is known of recordings too, whose headers
  lack it. Reading stops where `limit` is passed. Raises MediaError."""
  with opened(path) as container:
    streams = [stream for stream in map(main_stream, (
        container.streams.video, container.streams.audio)) if stream is not None]
    first, length = None, 0.0
    for packet in packets_of(container, *streams):
      if packet is None:
        break
      if packet.pts is None:
        continue
      begin = float(packet.pts * packet.time_base)
      first = begin if first is None else min(first, begin)
      length = max(length, begin + float((packet.duration or 0) * packet.time_base) - first)
      if length > limit + 0.1:  # audio codecs pad their last packet
        return length
  return min(length, limit)


def take(sample: Any, folder: pathlib.Path, name: str) -> Take:
  """Writes the files of an api.Sample: video with audio, generated audio, its spectrogram."""
  video = sample.save(folder / f'{name}.mp4')
  wav = sample.save(folder / f'{name}.wav') if 'audio' in sample.generated else None
  score = '' if sample.av_align is None else f', AV-Align {sample.av_align:.2f}'
  if sample.audio is None or not len(sample.audio):
    return Take(name, video, wav, None, 'no sound')
  audio = np.asarray(sample.audio, np.float32)
  if sample.sample_rate != onset.DETECTION_RATE:
    audio = librosa.resample(audio, orig_sr=sample.sample_rate, target_sr=onset.DETECTION_RATE)
  onsets = onset.suppress(onset.detect_onsets(audio, onset.DETECTION_RATE)).times
  image = folder / f'{name}.png'
  image.write_bytes(spectrogram_png(audio, onset.DETECTION_RATE, onsets))
  count = f'{len(onsets)} onset{"" if len(onsets) == 1 else "s"}'
  return Take(name, video, wav, image, f'{len(audio) / onset.DETECTION_RATE:.1f} s, {count}{score}')


def in_words(error: Exception, upload: pathlib.Path) -> str:
  """What an error says, with names of files instead of paths."""
  text = f'{upload.name}: {error.reason}' if isinstance(error, MediaError) else str(error)
  text = text.replace(str(upload), upload.name).replace(str(upload.parent), 'the upload')
  return PATH.sub(r'\1', text)
