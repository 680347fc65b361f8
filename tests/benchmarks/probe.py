"""Does what was generated show what the prompt said? Probes trained on real clips are asked.

    python -m avlink_jax.main --config=configs/t2a.py:nano --mode=sample --output=OUT \\
        --config.sample.count=64
    python -m tests.benchmarks.probe OUT

For a samples folder of impacts test clips: a probe for the sound names the material that is
heard (one of 8), a probe for the picture the kind of scene (one of 8), in the generated clips and
in their references, both as they were written to disk. Both are kernel machines on plain averages,
trained on clips of the train split. Each prints its accuracy and its 95 %
interval (bootstrap over clips).
"""

import argparse
import json
import pathlib
import re

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from avlink_jax.codecs.mel import MelSpec, log_mel, normalise
from avlink_jax.data import media
from avlink_jax.data.impacts import Impacts
from avlink_jax.export import read_manifest
from avlink_jax.metrics import bootstrap

SPEC = MelSpec()
AFTER = (-3, -1, 0, 1, 2, 4, 6, 9, 13, 18)  # frames from the loudest moments on
MOMENTS = 6  # of a clip, the loudest, at least a fifth of a second apart


def heard_material(scene):
  """The material that a strike sounds like: a soft striker makes any surface sound soft."""
  mover, struck = scene.pairs[np.bincount(scene.pair).argmax()]
  return 'rubber' if mover == 'rubber' else struck


def sound_features(wave):
  """(len(AFTER)·n_mels,): mean log-mel after the clip's loudest moments, each to its peak."""
  mel = log_mel(normalise(wave), SPEC)
  level = np.exp(mel).sum(1)
  rise = np.diff(np.log(level + 1e-3), prepend=np.log(level[0] + 1e-3)) + 0.1 * np.log(level + 1e-3)
  found = []
  for frame in np.argsort(-rise):
    if all(abs(frame - other) > 20 for other in found):
      found.append(frame)
    if len(found) == MOMENTS:
      break
  rows = np.clip(np.array(found)[:, None] + AFTER, 0, len(mel) - 1)
  heard = mel[rows]
  return (heard - heard.max((1, 2), keepdims=True)).mean(0).ravel()


def picture_features(frames):
  """Where it is what colour, where it moves and how much, on a grid of 9×16."""
  x = frames.astype(np.float32) / 255
  n, height, width, _ = x.shape
  x = x[:, :height // 9 * 9, :width // 16 * 16]
  x = x.reshape(n, 9, height // 9, 16, width // 16, 3).mean((2, 4))
  moves = np.abs(np.diff(x, axis=0)).mean(-1)
  return np.concatenate([x.mean(0).ravel(), x.std(0).mean(-1).ravel(), moves.mean(0).ravel(),
                         np.sqrt(moves.max(0)).ravel()])


def train(count, sound, picture):
  """{'sound': probe, 'picture': probe} of what is wanted, from the train split."""
  source = Impacts('train', size=count)
  found = {'sound': ([], []), 'picture': ([], [])}
  for i in range(count):
    scene, clip = source.scene(i), source.load(i)
    if sound:
      found['sound'][0].append(sound_features(clip.audio))
      found['sound'][1].append(heard_material(scene))
    if picture:
      found['picture'][0].append(picture_features(clip.frames))
      found['picture'][1].append(scene.kind)
  return {name: make_pipeline(StandardScaler(), SVC(C=3, gamma=0.3 / len(data[0][0]))).fit(*data)
          for name, data in found.items() if data[0]}


def ask(probes, folder):
  """[{'id', 'sound': right?, 'picture': right?}] of a folder's clips."""
  source, rows = Impacts('test'), []
  for row in read_manifest(folder):
    number = re.fullmatch(r'impacts-test-(\d+)', row['id'])
    if not number:
      continue
    scene = source.scene(int(number[1]))
    clip = media.decode(pathlib.Path(folder, row['files']['video']), height=36, width=64,
                        sample_rate=SPEC.sample_rate, need_audio=False)
    said = {'id': row['id']}
    made = set(row.get('made') or ('audio', 'video'))
    if 'sound' in probes and 'audio' in made and len(clip.audio) > SPEC.n_fft:
      said['sound'] = probes['sound'].predict([sound_features(clip.audio)])[0] == heard_material(
          scene)
    if 'picture' in probes and 'video' in made and row.get('picture') != 'spectrogram':
      said['picture'] = probes['picture'].predict([picture_features(clip.frames)])[0] == scene.kind
    rows.append(said)
  return rows


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('folder', help='samples, with their reference/')
  parser.add_argument('--train', type=int, default=3072, help='clips the probes learn from')
  flags = parser.parse_args()
  made = {name for row in read_manifest(flags.folder) for name in row.get('made') or ()}
  probes = train(flags.train, 'audio' in made, 'video' in made)
  for name in probes:
    report = {'probe': name}
    for what, folder in (('generated', flags.folder), ('reference', f'{flags.folder}/reference')):
      right = [float(row[name]) for row in ask(probes, folder) if name in row]
      low, high = bootstrap.intervals({'accuracy': right})['accuracy']
      report |= {f'{what}_clips': len(right), f'{what}_accuracy': round(float(np.mean(right)), 3),
                 f'{what}_interval': [round(low, 3), round(high, 3)]}
    print(json.dumps(report), flush=True)


if __name__ == '__main__':
  main()
