"""Silence and near-silence: what teaches a model nothing about the sound of what is seen."""

import numpy as np

SILENCE = 10 ** (-60 / 20)  # of full scale, −60 dBFS
BLOCK = 0.05  # seconds over which sound is silent or not
COVERED = 0.1  # share of a clip below which its sound covers little of it


def covered(audio: np.ndarray, sample_rate: int) -> float:
  """Share of BLOCKs in which the peak of audio, float (S,) or (S, C), reaches SILENCE."""
  size = round(BLOCK * sample_rate)
  blocks = np.abs(audio[:len(audio) // size * size]).reshape(len(audio) // size, -1)
  return float(np.mean(blocks.max(axis=1) >= SILENCE)) if len(blocks) else 1.0


def lacking(audio: np.ndarray, sample_rate: int) -> str:
  """What a clip's audio, float (S,) or (S, C) as long as the clip, lacks; '' where nothing."""
  if np.abs(audio).max(initial=0) < SILENCE:
    return 'silence (peak below −60 dBFS)'
  share = covered(audio, sample_rate)
  return f'sound in {share:.0%} of it' if share < COVERED else ''
