"""The one layout of a batch, whatever it was read from.

Each modality's codec says which arrays there are of it (codecs/codec.py); with those at hand

    video        uint8   (B, F, H, W, 3)   frames at n/fps seconds
    video_mask   bool    (B, F)            True where the clip is real, False where padded
    mel          float32 (B, T, n_mels)    log-mel, `MelSpec.rate` frames a second; or, of prepared
    audio_latents float32 (B, T/stride, C) records, the 1D-VAE's scaled latents of it in its place
    audio_wave   float32 (B, S)            wave at the codec's own rate, where that is a DAC
    video_latents float32 (B, T, H, W, C)  of prepared records: latents in the video's place
    audio_mask   bool    (B, T)            of mel frames in either case
    video_text   pytree  (B, ...)          prompts of the video, as its text encoder prepares them
    audio_text   pytree  (B, ...)          (codecs/text.py); and of the audio
    video_negative_text, audio_negative_text   in sampling: what should not be generated
    wave         float32 (B, S)            normalised wave, for the vocoder
    wave_mask    bool    (B, S)
    video_features float32 (B, F, C)       vectors from outside at n/fps seconds, in the video's
                                           place (codecs/feature_codec.py)

A modality that the source lacks or the task does not read is absent. Everything in it is a pure
function of (seed, step, slot); the host's bookkeeping travels beside it in `Meta`.
"""

import dataclasses
import math

import jax
import numpy as np

from avlink_jax.data.boxes import shrink
from avlink_jax.data.clip import Clip, crop_audio, resample_frames
from avlink_jax.errors import MediaError, UserError


@dataclasses.dataclass(frozen=True)
class Layout:
  """How clips come to the models: `seconds` long, frames of height × width at fps, audio at
  `sample_rate` (Hz), mono.

  Where frames are large (config.data.crop_height), a training example is a part of a clip: `crop`
  (height, width) is what it shows of frames of height × width, and the clips themselves are
  `clip_seconds` long. None: an example is all that is looked at.
  """
  seconds: float
  fps: float
  height: int
  width: int
  sample_rate: int = 16_000
  crop: tuple[int, int] | None = None
  clip_seconds: float | None = None

  @classmethod
  def of(cls, data, sample_rate=16_000):
    """Layout of config.data. Raises UserError where the crop does not lie in the frame."""
    layout = cls(data.seconds, data.fps, data.height, data.width, sample_rate)
    if not (data.crop_height or data.crop_width or data.clip_seconds):
      return layout
    for side, crop, whole in (('height', data.crop_height, data.height),
                              ('width', data.crop_width, data.width)):
      if not 0 <= crop <= whole:
        raise UserError(f'data.crop_{side}={crop}: give at most data.{side}={whole}, or 0 for all '
                        'of it')
    clip_seconds = data.clip_seconds or data.seconds
    if clip_seconds < data.seconds:
      raise UserError(f'data.clip_seconds={data.clip_seconds:g} is less than the data.seconds='
                      f'{data.seconds:g} of an example: give at least that')
    crop = data.crop_height or data.height, data.crop_width or data.width
    return dataclasses.replace(layout, crop=crop, clip_seconds=clip_seconds)

  @property
  def example(self):
    """The Layout of a training example."""
    if self.crop is None:
      return self
    height, width = self.crop
    return dataclasses.replace(self, height=height, width=width, crop=None, clip_seconds=None)

  @property
  def clip(self):
    """The Layout of a clip that is looked at whole, as in tests."""
    if self.crop is None:
      return self
    return dataclasses.replace(self, seconds=self.clip_seconds, crop=None, clip_seconds=None)

  @property
  def frames(self):
    return math.ceil(round(self.seconds * self.fps, 6))

  @property
  def samples(self):
    return round(self.seconds * self.sample_rate)


@dataclasses.dataclass(frozen=True)
class Meta:
  """What the host knows of a batch: ids, exact event times (or None), and what was odd about its
  examples: (place in the batch, skipped, silent), lists of clips that were skipped, (name, reason),
  and of those that lack sound there, (name, what), skipped or not."""
  ids: list[str]
  events: list[np.ndarray | None]
  odd: list[tuple[int, list, list]] = dataclasses.field(default_factory=list)

  @property
  def skipped(self) -> list[tuple[str, str]]:
    """Skipped clips, and why."""
    return [row for _, skipped, _ in self.odd for row in skipped]

  @property
  def silent(self) -> list[tuple[str, str]]:
    """Clips that lack sound, and what."""
    return [row for *_, silent in self.odd for row in silent]

  @property
  def replaced(self) -> int:
    """Number of examples that are of another clip than their own, which was skipped."""
    return sum(bool(skipped) for _, skipped, _ in self.odd)


def audio(clip: Clip, start: float, layout: Layout):
  """Wave of [start, start + seconds) and which samples exist: float32 (S,), bool (S,)."""
  return crop_audio(clip, start, layout.samples)


def video(clip: Clip, start: float, layout: Layout):
  """Frames shown at start + n/fps, and which of them exist: uint8 (F, H, W, 3), bool (F,)."""
  return resample_frames(clip, start, layout.frames, layout.fps)


def features(clip: Clip, start: float, layout: Layout):
  """Vectors that are on at start + n/fps, and which of them exist: float32 (F, C), bool (F,)."""
  times = start + np.arange(layout.frames) / layout.fps
  row = np.floor(times * clip.features_rate + 1e-6).astype(int)
  real = (row >= 0) & (row < len(clip.features))
  vectors = clip.features[np.clip(row, 0, len(clip.features) - 1)]
  return np.where(real[:, None], vectors, 0).astype(np.float32), real


def all_frames(clip: Clip, fps: float):
  """A clip's frames at `fps`, None where it has none: uint8 (N, H, W, 3)."""
  if not len(clip.frames):
    return None
  count = math.ceil(round(clip.duration * fps, 6))
  return resample_frames(clip, 0.0, count, fps)[0]


MEDIA = {'audio': audio, 'video': video, 'features': features}  # what codecs read of a clip


def read(clip: Clip, start: float, layout: Layout, reader):
  """Arrays of one window, {name: array}, as `reader` (a codec, or alike) makes them: of latents
  where they were prepared for it, else of the clip's media.

  Raises MediaError where prepared latents are of another length.
  """
  if reader.reads in clip.latents:
    try:
      return reader.read_latents(clip.latents[reader.reads], clip.duration, layout)
    except ValueError as error:
      raise MediaError(clip.id, str(error)) from None
  return reader.read(*MEDIA[reader.medium](clip, start, layout), layout)


def low_video(clip: Clip, start: float, shape, fps: float):
  """Frames shown at start + n/fps, small: uint8 of `shape` (F, H, W, 3). Of larger frames each
  pixel is the mean of a whole block, whose size they have to divide by."""
  count, height, width, _ = shape
  return shrink(resample_frames(clip, start, count, fps)[0], height, width)


def example(clip: Clip, start: float, layout: Layout, readers):
  """One example's arrays, captions still as text."""
  arrays = {'audio_text': clip.audio_caption, 'video_text': clip.video_caption}
  for reader in readers:
    arrays |= read(clip, start, layout, reader)
  return arrays


def stack(examples, prepare):
  """Examples -> one batch. `prepare` {modality: function of a list of prompts -> pytree of arrays
  (B, ...)}, which also prepares that modality's negative prompts."""
  batch = {name: np.stack([e[name] for e in examples])
           for name in examples[0] if not name.endswith('_text')}
  for modality, of_modality in prepare.items():
    for name in (f'{modality}_text', f'{modality}_negative_text'):
      if name in examples[0]:
        batch[name] = of_modality([e[name] for e in examples])
  return batch


def shapes(size, readers, layout, texts):
  """What `stack` gives for `size` examples, as jax.ShapeDtypeStructs: no data, no weights of a text
  encoder. `texts` {modality: text encoder}."""
  return {name: jax.ShapeDtypeStruct((size, *shape), dtype) for reader in readers
          for name, (dtype, shape) in reader.arrays(layout).items()} | {
      f'{name}_text': text.shapes(size) for name, text in texts.items()}
