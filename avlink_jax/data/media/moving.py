"""Pictures that move (GIF, APNG, WebP) as a video that FFmpeg opens.

FFmpeg takes some of them for stills, and forgets what is transparent. One round is shown, on white,
as a page shows it; as in browsers, a frame of 10 ms or less lasts 100.
"""

import io
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from avlink_jax.data.media.limits import Allowance, Unusable, check_frame_size

ENDINGS = frozenset(('.apng', '.gif', '.png', '.webp'))
FORMATS = ('GIF', 'PNG', 'WEBP')
SHORTEST, INSTEAD = 10, 100  # ms: frames up to that long, and how long they last
FAULTS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)  # Pillow's


def is_candidate(head: bytes) -> bool:
  """Tells by a file's first 16 bytes whether it may be one."""
  return head.startswith((b'GIF8', b'\x89PNG')) or head[:4] == b'RIFF' and head[8:12] == b'WEBP'


def moves(path) -> bool:
  """Tells whether a file is a picture with more than one frame."""
  try:
    with open(path, 'rb') as file:
      return is_candidate(file.read(16)) and _opened(file) is not None
  except OSError:
    return False


def as_video(file, seconds: float) -> io.BytesIO | None:
  """Video (QuickTime, lossless, ms) of an open file's picture; None where that does not move.

  Raises Unusable: damaged, too large, or it takes more than `seconds`.
  """
  image = _opened(file)
  if image is None:
    return None
  allowance, result, shows = Allowance(seconds), io.BytesIO(), 0
  check_frame_size(image.height, image.width)
  with av.open(result, 'w', format='mov') as container:
    stream = container.add_stream('qtrle', rate=25)
    stream.width, stream.height, stream.pix_fmt = image.width, image.height, 'rgb24'
    stream.codec_context.time_base = Fraction(1, 1000)
    for pixels, lasts in _frames(image):
      allowance.check_time()
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      frame.pts, frame.time_base = shows, Fraction(1, 1000)
      for packet in stream.encode(frame):  # one, at once
        packet.duration = lasts
        allowance.take(packet.size)
        container.mux(packet)
      shows += lasts
    container.mux(stream.encode())
  result.seek(0)
  return result


def _opened(file):
  """Pillow's image of an open file that moves, else None."""
  file.seek(0)
  try:
    image = Image.open(file, formats=FORMATS)
    return image if getattr(image, 'is_animated', False) else None
  except FAULTS:
    return None


def _frames(image):
  """Yields (uint8 (H, W, 3), ms) of each frame. Raises Unusable: damaged."""
  try:
    # A PNG's first picture may be for programs that show no movement.
    for n in range(int(getattr(image, 'default_image', False)), image.n_frames):
      image.seek(n)
      shown = image.convert('RGBA')
      lasts = round(float(image.info.get('duration') or 0))
      white = Image.new('RGBA', shown.size, 'white')
      pixels = np.asarray(Image.alpha_composite(white, shown).convert('RGB'))
      yield pixels, lasts if lasts > SHORTEST else INSTEAD
  except FAULTS:
    raise Unusable('corrupt stream') from None
