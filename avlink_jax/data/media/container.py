"""Opens media files: checks their type and that they are complete, and picks the main streams."""

import contextlib
import dataclasses
import io
from pathlib import Path

import av
from av.video.reformatter import Colorspace

from avlink_jax.data.media import moving
from avlink_jax.data.media.limits import DECODE_SECONDS, MAX_PIXELS, Unusable
from avlink_jax.errors import MediaError

MP4_BOXES = frozenset((b'ftyp', b'moov', b'mdat', b'wide', b'free', b'skip'))
EBML, SEGMENT = b'\x1aE\xdf\xa3', b'\x18\x53\x80\x67'  # Matroska and WebM begin with these
MAGIC = (b'RIFF', EBML, b'OggS', b'fLaC')
# Containers whose header states a length; the others estimate one from the bit rate.
DECLARING = ('mov', 'matroska', 'avi', 'wav', 'flac')
SHORT = 0.5  # seconds a stream may lack of its declared length (headers round, players pad)
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
    with path.open() if isinstance(path, InMemory) else open(path, 'rb') as file:
      head = file.read(16)
      cut = _is_cut(file, head)
      video = moving.as_video(file, seconds) if moving.is_candidate(head) and not cut else None
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


class FrameClock:
  """Presentation times of a stream's decoded frames, in units of its time base.

  To be called with the frames in decoder order. A frame without a timestamp is taken to show one
  period after the one before it.
  """

  def __init__(self, stream):
    self._start, self._avi = stream.start_time or 0, _is_avi(stream)
    self.period = round(1 / (stream.average_rate or 25) / stream.time_base)
    self._last, self._lag = None, 0

  def __call__(self, frame) -> int:
    ticks = frame.dts if self._avi or frame.pts is None else frame.pts
    if ticks is None:
      ticks = self._start if self._last is None else self._last + self.period
    else:
      # AVI keeps no presentation times, and where frames are reordered FFmpeg's guess at them
      # is out of order. Decoding times come out in order, late by what reordering takes.
      if self._avi and self._last is None:
        self._lag = ticks - self._start
      ticks -= self._lag
    self._last = ticks
    return ticks


def shown_at(packet):
  """Presentation time of a packet's frame, in time-base units; None where unknown.

  In AVI it is the time of some frame, not always this one.
  """
  return packet.dts if packet.pts is None or _is_avi(packet.stream) else packet.pts


def jumps(seconds: float) -> bool:
  """Tells whether the step between neighbouring timestamps is implausible."""
  return not -1 < seconds < 600


def declared_end(stream) -> int | None:
  """End of a stream by its header, in time-base units; None where it declares none."""
  if stream.duration and stream.container.format.name.startswith(DECLARING):
    return (stream.start_time or 0) + stream.duration
  return None


def video_end(stream, last: int, duration: int) -> int:
  """End of the last frame, which shows at `last` for `duration`; all in time-base units.

  The header comes first: mp4 stores gaps between decoding times instead of durations, and they
  differ where the frame rate varies.
  """
  declared = declared_end(stream)
  if declared is not None and 0 < (declared - last) * stream.time_base <= SHORT:
    return declared
  return last + duration


def _is_avi(stream) -> bool:
  return stream.container.format.name == 'avi'


def untagged_colours(frame):
  """Colour matrix to assume where a frame names none; None leaves it to swscale."""
  # Untagged HD is BT.709 by custom, while swscale would take it for BT.601.
  return Colorspace.ITU709 if frame.colorspace == 2 and frame.height >= 720 else None


def _is_cut(file, head: bytes) -> bool:
  """Tells whether the file has fewer bytes than its container declares."""
  size = file.seek(0, 2)
  if head[4:8] in MP4_BOXES:
    return _is_cut_mp4(file, size)
  if head[:4] == b'RIFF':
    length = int.from_bytes(head[4:8], 'little')  # 0 or the largest number: unknown
    return 0 < length < 2 ** 32 - 1 and length > size
  if head[:4] == EBML:
    return _is_cut_matroska(file, size)
  return False


def _is_cut_mp4(file, size: int) -> bool:
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
  return at > size or b'moov' not in kinds


def _is_cut_matroska(file, size: int) -> bool:
  """Compares the declared size of the Segment, which holds everything, with the file's."""
  file.seek(0)
  head = file.read(4096)
  at = head.find(SEGMENT) + len(SEGMENT)
  if at < len(SEGMENT) or at >= len(head):
    return False
  width = 9 - head[at].bit_length()  # a variable-length number: leading zeros give its width
  length = int.from_bytes(head[at:at + width], 'big') - (1 << 7 * width)
  unknown = (1 << 7 * width) - 1
  return length != unknown and at + width + length > size
