"""Log-mel spectrograms as images: arrays, PNG files and frames of a video."""

import io
import itertools
import math

import librosa
import numpy as np
from PIL import Image

# Matplotlib's magma at ten even steps, dark to light; it has no cyan, so cyan lines show on it.
MAGMA = ((0, 0, 4), (24, 15, 62), (69, 16, 119), (114, 31, 129), (159, 47, 127),
         (205, 64, 113), (241, 96, 93), (253, 149, 103), (254, 201, 141), (252, 253, 191))
ONSET_COLOUR, EVENT_COLOUR = (72, 224, 240), (255, 255, 255)
LEVELS = 254  # of the colour map; the other two palette entries are the lines' colours
DYNAMIC_RANGE = math.log(1e4)  # nats of magnitude: 80 dB
FLOOR = math.log(1e-5)  # where log-mels are clipped (`codecs/mel.py`)
COLUMNS_PER_SECOND, MAX_COLUMNS = 100, 2000
MEL_BINS = 96
ENLARGED = 2  # pixels a bin
WAVE = (180, 180, 190)  # colour of a waveform
EVENT_HEIGHT = 0.14  # of the image, at its bottom
FRAME_SIZE, FRAME_FPS = (256, 144), 6  # width, height and rate of `spectrogram_frames`


def spectrogram_image(log_mel) -> np.ndarray:
  """Image uint8 (M', T', 3) of a log-mel (T, M), natural log of magnitude: time right, pitch up.

  The loudest 80 dB from dark to light; silence is dark. Bins become squares of whole pixels, so
  that the image is at least 128 high.
  """
  levels = _levels(log_mel)
  factor = math.ceil(128 / levels.shape[0])
  return _palette()[levels.repeat(factor, axis=0).repeat(factor, axis=1)]


def spectrogram_png(audio, sample_rate: int, onsets=(), events=()) -> bytes:
  """PNG of the log-mel spectrogram of audio, with its onsets drawn in.

  Args:
    audio: float (S,) mono. The image spans its length; S = 0 gives one dark column.
    sample_rate: Hz.
    onsets: seconds; full-height cyan lines.
    events: exact seconds; white ticks at the bottom.
  """
  levels = _levels(_log_mel(audio, sample_rate)).repeat(ENLARGED, 0).repeat(ENLARGED, 1)
  height, width = levels.shape
  per_second = width * sample_rate / max(len(audio), 1)
  line = max(2, width // 500)
  for times, colour, top in ((onsets, LEVELS, 0),
                             (events, LEVELS + 1, round(height * (1 - EVENT_HEIGHT)))):
    for time in times:
      at = min(max(0, round(time * per_second)), width - line)
      levels[top:, at:at + line] = colour
  image = Image.fromarray(levels)
  image.putpalette(_palette().tobytes())
  file = io.BytesIO()
  image.save(file, 'PNG', optimize=True)
  return file.getvalue()


def spectrogram_of_size(audio, sample_rate: int, width: int, height: int) -> np.ndarray:
  """Log-mel spectrogram of audio float (S,) mono, uint8 (height, width, 3)."""
  image = Image.fromarray(_palette()[_levels(_log_mel(audio, sample_rate))])
  return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def spectrogram_frames(audio, sample_rate: int):
  """Still video for audio without any: its spectrogram.

  Args:
    audio: float (S,) mono.
    sample_rate: Hz.

  Returns:
    uint8 (N, 144, 256, 3), a read-only view of one image; N / FRAME_FPS seconds cover the audio,
    and N is at least 1.
  """
  image = spectrogram_of_size(audio, sample_rate, *FRAME_SIZE)
  count = max(1, math.ceil(round(len(audio) / sample_rate * FRAME_FPS, 6)))
  return np.broadcast_to(image, (count, *image.shape))


def _log_mel(audio, sample_rate):
  """Natural log of mel magnitude (T, 96) of audio (S,), some 100 columns a second, to 8 kHz."""
  hop = max(sample_rate // COLUMNS_PER_SECOND, len(audio) // MAX_COLUMNS)
  window = 2 ** round(math.log2(0.064 * sample_rate))
  audio = np.pad(np.asarray(audio, np.float32), (0, max(0, window - len(audio))))
  mel = librosa.feature.melspectrogram(
    y=audio, sr=sample_rate, n_fft=window, hop_length=hop, n_mels=MEL_BINS, power=1,
    fmax=min(8000, sample_rate / 2))
  return np.log(np.maximum(mel.T, 1e-5))


def _levels(log_mel):
  """Log-mel (T, M) -> uint8 (M, T) in [0, LEVELS), low pitch in the last row."""
  log_mel = np.asarray(log_mel, np.float32).T[::-1]
  floor = max(float(log_mel.max()) - DYNAMIC_RANGE, FLOOR)
  level = (log_mel - floor) / DYNAMIC_RANGE * (LEVELS - 1)
  return np.clip(level, 0, LEVELS - 1).astype(np.uint8)


def _palette():
  """Palette uint8 (256, 3): the colour map, then the colours of onsets and events."""
  anchors = np.linspace(0, LEVELS - 1, len(MAGMA))
  ramp = [np.interp(np.arange(LEVELS), anchors, channel) for channel in zip(*MAGMA, strict=True)]
  return np.vstack([np.stack(ramp, 1), ONSET_COLOUR, EVENT_COLOUR]).round().astype(np.uint8)


def waveform_png(wave, width=800, height=40):
  """PNG of a wave (S,): in each column the range of its samples, full scale being the height."""
  wave = np.asarray(wave, np.float32)
  edges = np.linspace(0, len(wave), width + 1).astype(int)
  image = np.zeros((height, width, 3), np.uint8)
  for column, (first, last) in enumerate(itertools.pairwise(edges)):
    part = wave[first:max(last, first + 1)]
    top, bottom = (round((1 - level) / 2 * (height - 1))
                   for level in np.clip((part.max(initial=-1), part.min(initial=1)), -1, 1))
    image[top:bottom + 1, column] = WAVE
  Image.fromarray(image).save(file := io.BytesIO(), 'PNG')
  return file.getvalue()
