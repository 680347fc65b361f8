"""Clips whose events are known: clicks to be heard, and a scene that leaps to be seen."""

import json

import numpy as np
import soundfile

RATE = 16000
TIMES = {'a': [0.5, 1.3, 2.2], 'b': [0.9, 1.8], 'c': [0.3, 0.75, 1.6, 2.5], 'd': [1.05, 2.0]}


def clicks(times, duration=3.0, late=0.0):
  rng = np.random.default_rng(0)
  wave = np.zeros(int(duration * RATE), np.float32)
  burst = 0.7 * np.exp(-np.arange(1600) / RATE * 60) * rng.uniform(-1, 1, 1600)
  for time in times:
    at = int((time + late) * RATE)
    wave[at:at + 1600] += burst[:max(0, len(wave) - at)]
  return wave


def moves(times, duration=3.0, fps=12):
  """Frames that stand still, and leap between the two frames around each time."""
  y, x = np.mgrid[:72, :200]
  scene = np.stack([128 + 100 * np.sin(x / a) * np.sin(y / b)
                    for a, b in ((5, 7), (6, 4), (9, 5))], -1).astype(np.uint8)
  leaps = [sum(time * fps < n for time in times) for n in range(int(duration * fps))]
  return np.stack([scene[:, 3 * n:3 * n + 128] for n in leaps])


def write(folder, sounds, manifest=None):
  folder.mkdir(parents=True, exist_ok=True)
  for name, wave in sounds.items():
    soundfile.write(folder / f'{name}.wav', wave, RATE, subtype='FLOAT')
  if manifest is not None:
    (folder / 'manifest.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in manifest))
  return folder
