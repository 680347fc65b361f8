"""Converts a clip of a source into records: cut at its shots, in windows, as the models read it."""

import dataclasses
import functools
import io
import math

import numpy as np
from PIL import Image

from avlink_jax.codecs import codec as codec_seam
from avlink_jax.codecs import dac_codec, mel_codec, published_vae, video_latents, wan_codec
from avlink_jax.data import batch as batches
from avlink_jax.data.boxes import shrink
from avlink_jax.data.clip import EPSILON, Clip, resample_frames, samples_of
from avlink_jax.data.media import silence
from avlink_jax.data.prepare import shots
from avlink_jax.data.sources import records
from avlink_jax.data.sources.captions import LONGEST_CAPTION, clean_caption
from avlink_jax.data.sources.folder import Folder
from avlink_jax.errors import MediaError, UserError
from avlink_jax.storage import config_versions, weights

PIECE = 60.0  # seconds of a long file that are decoded at a time
HIGH_PIECE = 15.0  # the same where frames are large
QUALITY = 95  # of JPEG
MEDIA = {'audio': ('audio',), 'video': ('frames', 'frame_times')}  # a Clip's fields, by modality


@dataclasses.dataclass(frozen=True)
class High:
  """Size of the upsampler's frames; the small frames beside them are their means over boxes."""
  fps: float = records.HIGH[0]
  height: int = records.HIGH[1]
  width: int = records.HIGH[2]


@dataclasses.dataclass(frozen=True)
class Codec:
  """A frozen codec and its weights {'params', 'std'}."""
  codec: codec_seam.Codec
  weights: dict

  @property
  def fingerprint(self):
    return self.codec.fingerprint(self.weights)

  def encode(self, window, layout):
    """A whole window (a Clip) -> scaled latents float32 (T, …, C)."""
    return self.codec.encode_window(self.weights, batches.read(window, 0.0, layout, self.codec))

  def decode(self, latents, seconds, layout):
    """Media of a window's latents: float32 (S,) or uint8 (N, H, W, 3)."""
    decoded = np.asarray(self.codec.decode(self.weights, latents[None]))[0]
    return self.codec.finish(self.weights, decoded, seconds, layout)


@functools.lru_cache(maxsize=2)
def load_codec(given, name='audio', fps=0.0) -> Codec:
  """Loads a modality's codec, with its own sizes: of a workdir or file of ours, 'bundled' (nano's),
  or a published model (a folder or a hub name). `fps` is the frame rate of video.

  Raises UserError: there is none.
  """
  if not weights.is_bundled(given) and (folder := published_vae.find(given)) is not None:
    codec = {'audio': lambda: dac_codec.of_folder(name, folder),
             'video': lambda: wan_codec.of_folder(name, folder, fps)}[name]()
    return Codec(codec, codec.load(published_vae.weights_file(folder, codec.kind)))
  path = weights.locate(records.LATENTS[name].codec, given, 'nano')
  config = config_versions.config_of(weights.read(path)[1], path)
  config.data.fps = fps or config.data.fps
  config.sample.vocoder = 'griffin_lim'  # to look at latents, any is good enough
  build = {'audio': mel_codec.build, 'video': video_latents.build}[name]
  codec = build(name, config, codec_seam.Context(np.float32))
  return Codec(codec, codec.load(path))


@dataclasses.dataclass(frozen=True)
class Converter:
  """Conversion of a clip to records, a function of the clip alone.

  Attributes:
    layout: of the windows (data/batch.py).
    reads: 'audio', 'video' or both.
    codecs: {modality: Codec} of which latents are stored instead of the media.
    keep_media: store the media beside latents too.
    high: None, or the size of the high-resolution frames.
    threshold: of the shot detector, 0 to cut nowhere.
    shortest: seconds of the shortest window that is kept.
    drop_silent: leave out windows that lack sound (media/silence.py).
  """
  layout: batches.Layout
  reads: tuple[str, ...] = ('audio', 'video')
  codecs: dict = dataclasses.field(default_factory=dict)
  keep_media: bool = True
  high: High | None = None
  threshold: float = shots.THRESHOLD
  shortest: float = 1.0
  drop_silent: bool = False

  def __call__(self, source, i):
    """([record], outcome) of clip i. The outcome has its records' `ids` and `captions`, `seconds`
    in records and `left` in none, [(id, reason)] of what was `skipped`, and how many of its records
    are `silent` (media/silence.py)."""
    blobs, outcome = [], {'ids': [], 'captions': [], 'seconds': 0.0, 'left': 0.0, 'skipped': [],
                          'silent': 0}
    try:
      for piece, windows, unused in self.pieces(source, i):
        outcome['left'] += unused
        for start, length in windows:
          window = self.window(piece, start, length)
          lack = silence.lacking(window.audio, window.sample_rate) if len(window.audio) else ''
          if lack and self.drop_silent:
            outcome['skipped'].append((window.id, lack))
            outcome['left'] += length
            continue
          outcome['silent'] += bool(lack)
          blobs.append(self.record(piece, window, start))
          outcome['ids'].append(window.id)
          outcome['captions'] += [window.audio_caption, window.video_caption]
          outcome['seconds'] += length
    except MediaError as error:  # what precedes the damage in a long file is good
      outcome['skipped'].append((source.name(i), error.reason))
    if not blobs and not outcome['skipped']:
      outcome['skipped'].append((source.name(i), f'no shot of {self.shortest:g} s or more'))
    outcome['captions'] = sorted(set(outcome['captions']))
    return blobs, outcome

  def pieces(self, source, i):
    """Yields (Clip, windows in it, seconds in none) of a clip, a long file piece by piece."""
    start, longest = 0.0, max(HIGH_PIECE if self.high else PIECE, 4 * self.layout.seconds)
    while True:
      try:
        piece = source.load(i, start, longest) if isinstance(source, Folder) else source.load(i)
      except MediaError as error:
        if start and error.reason.startswith('ends before'):
          return
        raise
      cuts = self.cuts(piece)
      last = not isinstance(source, Folder) or piece.duration < longest - EPSILON
      end = piece.duration if last else self._usable(piece.duration, cuts)
      windows, left = shots.windows(end, [cut for cut in cuts if cut < end], self.layout.fps,
                                  self.layout.seconds, self.shortest)
      yield piece, windows, left
      if last:
        return
      start += end

  def _usable(self, duration, cuts):
    """Seconds of a piece that can be used before what follows is known: up to its last complete
    window, or the beginning of its last shot."""
    begin = cuts[-1] if cuts else 0.0
    step = self.layout.frames / self.layout.fps
    return begin + step * math.floor((duration - begin) / step + EPSILON)

  def cuts(self, piece: Clip):
    """Seconds at which shots begin in a piece, by its frames at the layout's rate."""
    if not len(piece.frames):
      return []
    count = math.ceil(round(piece.duration * self.layout.fps, 6))
    frames, _ = resample_frames(piece, 0.0, count, self.layout.fps)
    small = shrink(frames, self.layout.height, self.layout.width)
    return [n / self.layout.fps for n in shots.cuts(small, self.threshold)]

  def record(self, piece: Clip, window: Clip, start) -> bytes:
    """Record of a window that begins at `start` seconds of a piece."""
    more = {}
    if self.high and len(piece.frames):
      count = math.ceil(round(window.duration * self.high.fps, 6))
      more = encode_jpegs(resample_frames(piece, start, count, self.high.fps)[0])
    window = dataclasses.replace(window, latents={
        name: codec.encode(window, self.layout) for name, codec in self.codecs.items()})
    if not self.keep_media:
      window = dataclasses.replace(window, **{
          field: getattr(window, field)[:0] for name in self.codecs for field in MEDIA[name]})
    return records.of_clip(window, **more)

  def window(self, piece: Clip, start, length) -> Clip:
    """Clip of a window of a piece, with its frames on the layout's grid."""
    fps, frames = self.layout.fps, piece.frames
    if len(frames) and 'video' in self.reads:
      count = math.ceil(round(length * fps, 6))
      frames, real = resample_frames(piece, start, count, fps)
      frames = shrink(frames[real], self.layout.height, self.layout.width)
    events = piece.events
    if events is not None:
      events = events[(events >= start) & (events < start + length)] - start
    if 'audio' in self.reads and not len(piece.audio):
      raise MediaError(piece.source, 'no audio stream')
    at = piece.start + start
    return dataclasses.replace(
        piece, id=piece.id if at < EPSILON else f'{piece.id}@{at:.3f}', start=at, duration=length,
        frames=frames if 'video' in self.reads else frames[:0],
        frame_times=np.arange(len(frames)) / fps, events=events,
        audio=piece.audio[samples_of(piece.sample_rate, start, length)]
        if 'audio' in self.reads else piece.audio[:0],
        audio_caption=fit_caption(piece.audio_caption),
        video_caption=fit_caption(piece.video_caption))


def fit_caption(text):
  """Caption as records store it and text encoders embed it."""
  return clean_caption(text[:LONGEST_CAPTION])


def encode_jpegs(frames) -> dict:
  """Encodes frames as JPEG: {'high', 'high_sizes'} of records.py."""
  blobs = []
  for frame in frames:
    Image.fromarray(frame).save(file := io.BytesIO(), 'JPEG', quality=QUALITY, subsampling=0)
    blobs.append(file.getvalue())
  return {'high': np.frombuffer(b''.join(blobs), np.uint8),
          'high_sizes': np.array([len(blob) for blob in blobs], np.int32)}


def check_high(high: High, layout):
  """Raises UserError where the small frames are not whole boxes of the larger ones."""
  if high.height % layout.height or high.width % layout.width or round(
      high.fps / layout.fps * 1e6) % 1_000_000:
    raise UserError(f'--high keeps {high.width}×{high.height} at {high.fps:g} fps, of which '
                    f'{layout.width}×{layout.height} at {layout.fps:g} fps is no whole part')
