"""AV-Align: agreement of a video's peaks of motion with the onsets of its audio.

Yariv et al. 2023 (TempoTokens), whose public `av_align.py` is the source of the recipe: onsets
of the audio (librosa's detector with its defaults, 22,050 Hz) against local maxima of the mean
length of the optical flow (OpenCV's Farneback) between successive frames; an onset and a peak
less than one frame apart are one event of both, and the score is intersection over union. It is
computed for one clip at a time and needs no reference.

Differences from the public code, and why:
- Each peak and each onset is used once (the largest matching). There each onset counts that has
  any peak near: two onsets at one peak score 2 / 1.
- The flow between frames i and i + 1 is dated to the middle of the two, where the motion took
  place; there to frame i + 1. The frames' own times are used, not i / fps.
- Flow is computed on frames 72 high with a window of 5, whatever the file's size: there at the
  file's own size with a window of 15, which on its 256-pixel clips is the same part of the
  frame. Measured on 64 held-out clips of `impacts` (36 x 64 at 6 fps, enlarged to 144 x 256 as
  `samples/folder.py` writes them; in brackets the audio of other clips):

      height, window   AV-Align        F1 of the peaks against the exact events
      72, 5            0.538 (0.360)   0.676 (0.528)
      72, 9            0.470 (0.384)   0.615 (0.550)
      72, 15           0.412 (0.384)   0.547 (0.557)
      64, 5            0.524 (0.362)   0.668 (0.524)
      36, 5            0.506 (0.367)   0.644 (0.531)
      144, 5           0.551 (0.362)   0.686 (0.530), at four times the cost
      144, 15          0.421 (0.379)   0.557 (0.547)

  With the later frame's time instead of the middle 72, 5 gives 0.517 (0.373). Decoded straight
  to that height, as `evaluate` does, it gives 0.527 (0.360) and 0.672 (0.528).
- Audio that is silent by `onset.py`'s measure has no onsets; and a peak must reach 0.03 pixels,
  which is 0.1 at a height of 256: a codec's noise on a still frame lies below.

What to expect. A real clip does not score 1: an object that turns round on contact moves least
between the two frames around it and most just before and after. At 6 fps one frame to either
side is a third of a second, so that exchanged audio scores high too: read it beside its control.
Video whose frames repeat (6 fps in a 24 fps file) has a peak at every new frame.

On real clips the camera moves too, and sources of sound are often off screen. 69 of up to 10 s,
with the audio shifted against the video or the videos exchanged (`tests/benchmarks/sanity.py`):

    at 6 fps                             true    0.05 s   0.1 s    0.2 s    exchanged
    31 whose caption names a visible act 0.325   0.313    0.294    0.281    0.293
    all 69 (--acts=)                     0.275   0.271    0.270    0.262    0.260

Over clips the last differences are uncertain by 0.04 and 0.03; for 0.01 it takes some 500 of them.
At 15 to 60 fps, the files' own, true and exchanged audio do not differ (0.194 and 0.192).

Compare figures at one frame rate only: at 24 fps a contact has two peaks, before and after, and a
frame is a quarter as long. F1 of the peaks of 64 clips of `impacts` against the exact events:

    512 x 288 at 24 fps, within a frame         0.432
    the same, within a sixth of a second        0.552
    of it every fourth frame (6 fps)            0.689
    64 x 36 at 6 fps                            0.685

Undefined scores are None, and left out of means: neither onsets nor peaks. One without the other
scores 0, so still video scores nothing.
"""

import typing

import cv2
import librosa
import numpy as np
import scipy.signal

from avlink_jax.metrics import onset

HEIGHT = 72  # pixels, of the frames that flow is computed on; the width follows the aspect
WINDOW = 5  # pixels over which Farneback averages
MIN_FLOW = 0.03  # pixels, mean over the frame; less counts as no motion
EVENT_NAMES = ('precision', 'recall', 'f1')


class Motion(typing.NamedTuple):
  """Peaks of motion of a video.

  Attributes:
    peaks: float64 (K,) seconds, increasing.
    period: seconds a frame lasts: the largest distance of a peak and its partner.
    duration: seconds the video lasts.
  """
  peaks: np.ndarray
  period: float
  duration: float


def audio_onsets(wave, sample_rate: int) -> np.ndarray:
  """AV-Align's onsets, float64 (K,) seconds; more than `onset.detect_onsets` detects.

  Args:
    wave: float (S,) mono, finite, full scale 1.
    sample_rate: Hz.
  """
  wave = np.asarray(wave, np.float32)
  if wave.size == 0 or np.abs(wave - wave.mean()).max() < onset.SILENCE_PEAK:
    return np.zeros(0)
  if sample_rate != onset.DETECTION_RATE:
    wave = librosa.resample(wave, orig_sr=sample_rate, target_sr=onset.DETECTION_RATE)
  return librosa.onset.onset_detect(
      onset_envelope=onset.strength(wave), sr=onset.DETECTION_RATE, units='time')


def flow_magnitudes(frames) -> np.ndarray:
  """Mean length of the optical flow between neighbouring frames, in pixels at HEIGHT.

  Args:
    frames: uint8 (N, H, W, 3) RGB.

  Returns:
    float64 (N - 1,), or (0,) where there are fewer than two frames.
  """
  grey = [cv2.cvtColor(_at_height(frame), cv2.COLOR_RGB2GRAY) for frame in frames]
  lengths = []
  for before, after in zip(grey, grey[1:], strict=False):
    flow = cv2.calcOpticalFlowFarneback(
      before, after, None, pyr_scale=0.5, levels=3, winsize=WINDOW, iterations=3, poly_n=5,
      poly_sigma=1.2, flags=0)
    lengths.append(np.hypot(flow[..., 0], flow[..., 1]).mean(dtype=np.float64))
  return np.asarray(lengths, np.float64)


def motion(frames, frame_times, duration: float) -> Motion:
  """Detects the peaks of motion.

  Args:
    frames: uint8 (N, H, W, 3) RGB; decoded at HEIGHT they need no scaling here.
    frame_times: (N,) seconds, increasing: when each frame starts to show.
    duration: seconds the video lasts.

  Returns:
    Motion; without peaks where there are fewer than four frames.
  """
  times = np.asarray(frame_times, np.float64)
  peaks, _ = scipy.signal.find_peaks(flow_magnitudes(frames), height=MIN_FLOW)
  period = float(np.median(np.diff(times))) if len(times) > 1 else duration
  return Motion((times[peaks] + times[peaks + 1]) / 2, period, duration)


def score(onsets, video: Motion, end: float = np.inf) -> float | None:
  """AV-Align in [0, 1] over the first `end` seconds, or up to the end of the video.

      |matched| / (|onsets| + |peaks| - |matched|)

  Args:
    onsets: (R,) seconds, increasing.
    video: its motion.
    end: seconds that are compared, such as the audio's duration.

  Returns:
    None where there are neither onsets nor peaks.
  """
  hits, onsets, peaks = _matched(onsets, video, end)
  return hits / (onsets + peaks - hits) if onsets + peaks else None


def event_scores(video: Motion, exact_times, end: float = np.inf) -> dict:
  """Scores of the peaks of motion against exact times: {name: float or None} for EVENT_NAMES.

  A peak and an event at most one frame apart agree; cases without either as in `onset.scores`.
  """
  hits, events, peaks = _matched(exact_times, video, end)
  return {
    'precision': hits / peaks if peaks else (0.0 if events else None),
    'recall': hits / events if events else None,
    'f1': 2 * hits / (events + peaks) if events + peaks else None,
  }


def _matched(times, video: Motion, end: float):
  """Numbers of matched pairs, times and peaks before `end`."""
  end = min(end, video.duration)
  times, peaks = np.sort(np.asarray(times, np.float64)), video.peaks[video.peaks < end]
  times = times[times < end]
  # All peaks are equal: which one a time takes does not change the number of pairs.
  partners = onset.match(times, onset.Onsets(peaks, np.ones(len(peaks))), video.period)
  return int(np.count_nonzero(partners >= 0)), len(times), len(peaks)


def _at_height(frame):
  height, width = frame.shape[:2]
  if height == HEIGHT:
    return frame
  size = max(1, round(width * HEIGHT / height)), HEIGHT
  return cv2.resize(frame, size,
                    interpolation=cv2.INTER_AREA if height > HEIGHT else cv2.INTER_CUBIC)
