"""The one layout of a batch, whatever it was read from.

    video        uint8   (B, F, H, W, 3)   pictures at n/fps seconds
    video_mask   bool    (B, F)            True where the clip is real, False where padded
    mel          float32 (B, T, n_mels)    log-mel, `MelSpec.rate` frames a second; or, of prepared
    audio_latents float32 (B, T/stride, C) records, the 1D-VAE's scaled latents of it in its place
    audio_mask   bool    (B, T)            of mel frames in either case
    video_text   pytree  (B, ...)          prompts of the picture, as the text encoder prepares
    audio_text   pytree  (B, ...)          them (codecs/text.py); and of the sound
    wave         float32 (B, S)            normalised sound, for the vocoder
    wave_mask    bool    (B, S)
    video_features float32 (B, F, C)       vectors from outside at n/fps seconds, in the picture's
                                           place (model/features.py)

A modality that the source lacks or the task does not read is absent. Everything in it is a pure
function of (seed, step, slot); the host's bookkeeping travels beside it in `Meta`.
"""

import dataclasses
import math

import jax
import numpy as np

from avlink_jax.codecs.mel import MelSpec, log_mel, normalise
from avlink_jax.data.boxes import shrink
from avlink_jax.data.clip import Clip, crop_audio, resample_frames
from avlink_jax.errors import MediaError, UserError


@dataclasses.dataclass(frozen=True)
class Layout:
  """Sizes of one example: `seconds` long, pictures of height × width at fps, log-mel by `mel`.

  Where pictures are large (config.data.crop_height), a training example is a part of a clip: `crop`
  (height, width) is what it shows of pictures of height × width, and the clips themselves are
  `clip_seconds` long. None: an example is all that is looked at.
  """
  seconds: float
  fps: float
  height: int
  width: int
  mel: MelSpec = MelSpec()
  crop: tuple[int, int] | None = None
  clip_seconds: float | None = None

  @classmethod
  def of(cls, data):
    """Of config.data. Raises UserError where the crop does not lie in the picture."""
    layout = cls(data.seconds, data.fps, data.height, data.width)
    if 'crop_height' not in data:
      return layout
    for side, crop, whole in (('height', data.crop_height, data.height),
                              ('width', data.crop_width, data.width)):
      if not 0 <= crop <= whole:
        raise UserError(f'data.crop_{side}={crop}: give at most data.{side}={whole}, or 0 for all '
                        'of it')
    if data.clip_seconds < data.seconds:
      raise UserError(f'data.clip_seconds={data.clip_seconds:g} is less than the data.seconds='
                      f'{data.seconds:g} of an example: give at least that')
    crop = data.crop_height or data.height, data.crop_width or data.width
    return dataclasses.replace(layout, crop=crop, clip_seconds=data.clip_seconds)

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
    return round(self.seconds * self.mel.sample_rate)

  @property
  def mel_frames(self):
    return self.samples // self.mel.hop


@dataclasses.dataclass(frozen=True)
class Meta:
  """What the host knows of a batch: ids, exact event times (or None), and what was replaced."""
  ids: list[str]
  events: list[np.ndarray | None]
  skipped: list[tuple[str, str]]


def picture(clip: Clip, start: float, layout: Layout):
  """Frames shown at start + n/fps, and which of them exist: uint8 (F, H, W, 3), bool (F,)."""
  return resample_frames(clip, start, layout.frames, layout.fps)


def low_picture(clip: Clip, start: float, shape, fps: float):
  """Frames shown at start + n/fps, small: uint8 of `shape` (F, H, W, 3). Of larger pictures each
  pixel is the mean of a whole block, whose size they have to divide by."""
  count, height, width, _ = shape
  return shrink(resample_frames(clip, start, count, fps)[0], height, width)


def features(clip: Clip, start: float, layout: Layout):
  """Vectors that are on at start + n/fps, and which of them exist: float32 (F, C), bool (F,)."""
  times = start + np.arange(layout.frames) / layout.fps
  row = np.floor(times * clip.features_rate + 1e-6).astype(int)
  real = (row >= 0) & (row < len(clip.features))
  vectors = clip.features[np.clip(row, 0, len(clip.features) - 1)]
  return np.where(real[:, None], vectors, 0).astype(np.float32), real


def sound(clip: Clip, start: float, layout: Layout):
  """Normalised log-mel of [start, start + seconds) and its mask: (T, n_mels), bool (T,)."""
  wave, mask = crop_audio(clip, start, layout.samples)
  hop = layout.mel.hop
  return (log_mel(normalise(wave), layout.mel),
          mask[:layout.mel_frames * hop].reshape(-1, hop).any(-1))


def latents(clip: Clip, layout: Layout):
  """Prepared latents of a whole window and the mask of its mel frames: (T/stride, C), bool (T,).

  Raises MediaError where the window is of another length.
  """
  real = math.ceil(round(clip.duration * layout.mel.rate, 6))
  wanted = math.ceil(layout.mel_frames * clip.latents_rate / layout.mel.rate)
  if len(clip.latents) != wanted:
    raise MediaError(clip.id, f'{len(clip.latents)} latents, not {wanted}')
  return clip.latents, np.arange(layout.mel_frames) < real


def example(clip: Clip, start: float, layout: Layout, modalities):
  """One example's arrays, captions still as text.

  'audio' is what sound is to the flow models: latents where they were prepared, else log-mel;
  'mel' and 'wave' are made of the sound itself.
  """
  arrays = {'audio_text': clip.audio_caption, 'video_text': clip.video_caption}
  if 'video' in modalities:
    arrays['video'], arrays['video_mask'] = picture(clip, start, layout)
  if 'video_features' in modalities:
    arrays['video_features'], arrays['video_mask'] = features(clip, start, layout)
  if 'audio' in modalities and clip.latents is not None:
    arrays['audio_latents'], arrays['audio_mask'] = latents(clip, layout)
  elif {'audio', 'mel'} & set(modalities):
    arrays['mel'], arrays['audio_mask'] = sound(clip, start, layout)
  if 'wave' in modalities:
    wave, arrays['wave_mask'] = crop_audio(clip, start, layout.samples)
    arrays['wave'] = normalise(wave)
  return arrays


def stack(examples, prepare):
  """Examples -> one batch. `prepare` maps a list of prompts to a pytree of arrays (B, ...)."""
  batch = {name: np.stack([e[name] for e in examples])
           for name in examples[0] if not name.endswith('_text')}
  for name in ('audio_text', 'video_text'):
    batch[name] = prepare([e[name] for e in examples])
  return batch


def shapes(size, reads, layout, text, features_width=0):
  """What `stack` gives for `size` examples of which a task `reads` that, as jax.ShapeDtypeStructs:
  no data, no weights of a text encoder."""
  of = lambda dtype, *shape: jax.ShapeDtypeStruct((size, *shape), dtype)  # noqa: E731
  known = {
      'video': of(np.uint8, layout.frames, layout.height, layout.width, 3),
      'video_features': of(np.float32, layout.frames, features_width),
      'mel': of(np.float32, layout.mel_frames, layout.mel.n_mels),
      'wave': of(np.float32, layout.samples),
      'video_mask': of(np.bool_, layout.frames),
      'audio_mask': of(np.bool_, layout.mel_frames),
      'wave_mask': of(np.bool_, layout.samples),
  }
  names = {'video': ('video', 'video_mask'), 'video_features': ('video_features', 'video_mask'),
           'audio': ('mel', 'audio_mask'), 'mel': ('mel', 'audio_mask'),
           'wave': ('wave', 'wave_mask')}
  return {name: known[name] for read in reads for name in names[read]} | {
      f'{name}_text': text.shapes(size) for name in ('audio', 'video')}
