"""Opens media files: checks their type and that they are complete, and picks the main streams."""

import contextlib
import dataclasses
import io
import math
from pathlib import Path

import av
from av.video.reformatter import Colorspace

from avlink_jax.data.media import moving
from avlink_jax.data.media.limits import DECODE_SECONDS, MAX_PIXELS, Unusable
from avlink_jax.errors import MediaError

MP4_BOXES = frozenset((b'ftyp', b'moov', b'mdat', b'wide', b'free', b'skip'))
EBML, SEGMENT = b'\x1aE\xdf\xa3', b'\x18\x53\x80\x67'  # Matroska and WebM begin with these
MAGIC = (b'RIFF', EBML, b'OggS', b'fLaC')
IMAGE_FORMATS = frozenset(('image2', 'gif', 'apng', 'ico'))
IMAGE_BRANDS = frozenset(('avif', 'heic', 'mif1'))
# Formats that are lists of other files: a clip is one file, and reads none that it names.
LISTS = frozenset(('concat', 'concatf', 'dash', 'hls', 'imf', 'rtp', 'rtsp', 'sap', 'sdp', 'vobsub',
                   'webm_dash_manifest'))
OPTIONS = {'protocol_whitelist': 'file', 'max_pixels': str(MAX_PIXELS),
           'format_whitelist': ','.join(sorted(av.formats_available - LISTS))}
# What PyAV, soxr and NumPy raise on nonsensical numbers from a damaged file.
DAMAGE = (av.error.FFmpegError, ArithmeticError, LookupError, MemoryError, RuntimeError, ValueError)


class SeekFailed(Exception):
  """A seek landed after the start of the span: the file must be read from its beginning."""


@dataclasses.dataclass(frozen=True)
class InMemory:
  """The bytes of a media file, opened like a path; `stem` names it."""
  stem: str
  content: bytes

  def __str__(self):
    return self.stem

  def open(self):
    """The bytes as a seekable file."""
    return io.BytesIO(self.content)


@contextlib.contextmanager
def opened(path, seconds=DECODE_SECONDS):
  """Opens a file (a path, or InMemory) as a PyAV container, and reads no other file. A picture that
  moves is opened as the video that it is (moving.py).

  FFmpeg gives up after `seconds` of reading up to the first packet, and then for each packet.

  Raises:
    MediaError: missing, unreadable, empty, not media, an image, truncated (fewer bytes than the
      container declares), or reading took too long.
  """
  path = path if isinstance(path, InMemory) else Path(path)
  try:
    head, size, by_header = _bytes(path)
    cut = by_header is not None and by_header > size
    video = None if cut else _moving(path, head, seconds)
  except Unusable as error:
    raise MediaError(path, str(error)) from None
  except FileNotFoundError:
    raise MediaError(path, 'no such file') from None
  except IsADirectoryError:
    raise MediaError(path, 'is a folder') from None
  except OSError as error:
    raise MediaError(path, f'cannot be read ({error.strerror})') from None
  if not head:
    raise MediaError(path, 'empty file')
  if cut:
    raise MediaError(path, 'truncated')
  try:
    container = av.open(video or (path.open() if isinstance(path, InMemory) else f'file:{path}'),
                        options=OPTIONS, metadata_errors='replace', timeout=seconds)
  except av.error.ExitError:
    raise MediaError(path, f'opening takes more than {seconds:g} s') from None
  except DAMAGE:
    known = head.startswith(MAGIC) or head[4:8] in MP4_BOXES
    raise MediaError(path, 'corrupt stream' if known else 'not a media file') from None
  with container:
    name = container.format.name
    if (name.endswith('_pipe') or name in IMAGE_FORMATS
        or container.metadata.get('major_brand') in IMAGE_BRANDS):
      raise MediaError(path, 'is an image')
    # FFmpeg plays text (tty) as a video of a terminal.
    if not (container.streams.video or container.streams.audio) or name == 'tty':
      raise MediaError(path, 'not a media file')
    yield container


def states_bytes(path) -> bool:
  """Tells whether the header says how many bytes the file has: an opened one has them all."""
  return _bytes(path)[2] is not None


def main_stream(streams):
  """The stream a player would pick, None where there is none. Cover art does not count."""
  streams = [s for s in streams if s.codec_context
             and not s.disposition & av.stream.Disposition.attached_pic]
  default = [s for s in streams if s.disposition & av.stream.Disposition.default]
  return (default or streams or [None])[0]


def packets_of(container, *streams):
  """Yields the packets of the streams, including the empty ones that flush a decoder.

  Where the container breaks off, None is the last item.
  """
  packets = container.demux(*streams)
  while True:
    try:
      packet = next(packets, None)
    # IndexError: damage made FFmpeg find a new stream, which PyAV does not know.
    except (av.error.FFmpegError, IndexError):
      yield None
      return
    if packet is None:
      return
    yield packet


def untagged_colours(frame):
  """Colour matrix to assume where a frame names none; None leaves it to swscale."""
  # Untagged HD is BT.709 by custom, while swscale would take it for BT.601.
  return Colorspace.ITU709 if frame.colorspace == 2 and frame.height >= 720 else None


def _open(path):
  return path.open() if isinstance(path, InMemory) else open(path, 'rb')


def _moving(path, head: bytes, seconds):
  """A picture that moves as a video (moving.as_video); None of any other file."""
  if not moving.is_candidate(head):
    return None
  with _open(path) as file:
    return moving.as_video(file, seconds)


def _bytes(path) -> tuple[bytes, int, float | None]:
  """A file's first bytes, its size, and the size by its header; None where it states none."""
  with _open(path) as file:
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    if head[4:8] in MP4_BOXES:
      return head, size, _mp4_bytes(file, size)
    if head[:4] == b'RIFF':
      return head, size, _riff_bytes(file, size)
    return head, size, _matroska_bytes(file) if head[:4] == EBML else None


def _mp4_bytes(file, size: int) -> float | None:
  """Walks the top-level boxes, [size, kind, content] each; the index is the one called moov."""
  at, kinds = 0, set()
  while at + 8 <= size:
    file.seek(at)
    header = file.read(16)
    length, kind = int.from_bytes(header[:4], 'big'), header[4:8]
    if length == 1:  # a 64-bit size follows
      length = int.from_bytes(header[8:16], 'big')
    kinds.add(kind)
    # 0 is 'up to the end of the file', and padding; other sizes below 8 are damage.
    at = at + length if length >= 8 else size
  if b'moov' not in kinds:
    return math.inf
  return None if b'moof' in kinds and at <= size else at  # there may be more fragments to come


def _riff_bytes(file, size: int) -> int | None:
  """Walks the parts of an AVI or a WAV, ['RIFF', size, content] each: large files have several."""
  at, end = 0, None
  while at + 8 <= size:
    file.seek(at)
    header = file.read(8)
    length = int.from_bytes(header[4:], 'little')
    if header[:4] != b'RIFF':
      break
    if length in (0, 2 ** 32 - 1):  # unknown
      return None
    end, at = at + length, at + 8 + length + length % 2
  return end


def _matroska_bytes(file) -> int | None:
  """End of the Segment, which holds everything."""
  file.seek(0)
  head = file.read(4096)
  at = head.find(SEGMENT) + len(SEGMENT)
  if at < len(SEGMENT) or at >= len(head):
    return None
  width = 9 - head[at].bit_length()  # a variable-length number: leading zeros give its width
  length = int.from_bytes(head[at:at + width], 'big') - (1 << 7 * width)
  unknown = (1 << 7 * width) - 1
  return None if length == unknown else at + width + length
