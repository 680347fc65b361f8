"""Limits on the time and memory that one file may take, whatever size it declares.

Time is checked between packets and between frames, and by FFmpeg whenever it reads from the file.
A single call into a decoder cannot be interrupted; it is bounded by the size of a packet and by
MAX_PIXELS instead.
"""

import time

DECODE_SECONDS = 300.0  # wall time, by default
MAX_PIXELS = 8192 * 4320  # a frame: 8K
MAX_BYTES = 2 << 30  # kept of one file: frames at the requested size, float32 audio
MAX_LENGTH = 4 * 3600.0  # seconds of a clip
RATES = (1_000, 1_000_000)  # Hz, of audio
ASPECTS = (0.1, 10.0)  # width over height of a pixel


class Unusable(Exception):
  """A fault of a file, to be raised again as MediaError where its path is known."""


class Allowance:
  """Time and memory that are left while one file is decoded."""

  def __init__(self, seconds=DECODE_SECONDS):
    self._seconds, self._until = seconds, time.monotonic() + seconds
    self._bytes = MAX_BYTES

  def check_time(self):
    """Raises Unusable once the time is over."""
    if time.monotonic() > self._until:
      raise Unusable(f'decoding takes more than {self._seconds:g} s')

  def take(self, nbytes):
    """Spends bytes, before they are allocated. Raises Unusable once all are spent."""
    self._bytes -= nbytes
    if self._bytes < 0:
      raise Unusable(f'too large: decoded it takes more than {MAX_BYTES / 2**30:g} GiB')


def check_rate(sample_rate):
  """Raises Unusable for an implausible sample rate (Hz): array sizes are computed from it."""
  if not RATES[0] <= sample_rate <= RATES[1]:
    raise Unusable(f'its sound claims a rate of {sample_rate:,} Hz')


def check_frame_size(height, width):
  """Raises Unusable for a frame of more than MAX_PIXELS."""
  if height * width > MAX_PIXELS:
    raise Unusable(f'too large: a picture of {width:,} × {height:,} pixels')
