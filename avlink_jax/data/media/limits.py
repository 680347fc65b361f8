"""How much one file may take of time and memory: what it says of its own size is only a claim.

Time is looked at between packets and between frames, and by FFmpeg whenever it reads from the
file. A single call into a decoder cannot be broken off from outside; it is bounded by the size of
a packet and by MAX_PIXELS instead.
"""

import time

DECODE_SECONDS = 300.0  # of the clock on the wall, where nobody asks for less
MAX_PIXELS = 8192 * 4320  # of a picture: 8K
MAX_BYTES = 2 << 30  # of what is kept of one file: frames as they are asked for, float32 sound
MAX_LENGTH = 4 * 3600.0  # seconds of a clip
RATES = (1_000, 1_000_000)  # Hz: what is sampled slower or faster is no sound
ASPECTS = (0.1, 10.0)  # of a pixel's shape; there is no such camera outside


class Unusable(Exception):
  """What is wrong with a file. Whoever knows its path makes a MediaError of it."""


class Allowance:
  """What is left of time and memory while one file is decoded."""

  def __init__(self, seconds=DECODE_SECONDS):
    self._seconds, self._until = seconds, time.monotonic() + seconds
    self._bytes = MAX_BYTES

  def check_time(self):
    """Raises Unusable once the time is over."""
    if time.monotonic() > self._until:
      raise Unusable(f'decoding takes more than {self._seconds:g} s')

  def take(self, nbytes):
    """To be asked before so much is kept. Raises Unusable once all is spent."""
    self._bytes -= nbytes
    if self._bytes < 0:
      raise Unusable(f'too large: decoded it takes more than {MAX_BYTES / 2**30:g} GiB')


def check_rate(sample_rate):
  """Raises Unusable for Hz that are no sound's: other numbers would be multiplied by them."""
  if not RATES[0] <= sample_rate <= RATES[1]:
    raise Unusable(f'its sound claims a rate of {sample_rate:,} Hz')


def check_picture(height, width):
  """Raises Unusable for a picture of more than MAX_PIXELS."""
  if height * width > MAX_PIXELS:
    raise Unusable(f'too large: a picture of {width:,} × {height:,} pixels')
