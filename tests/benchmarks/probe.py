"""Does what was generated show what the prompt said? Probes trained on real clips are asked.

    python -m avlink_jax.main --config=configs/t2a.py:nano --mode=sample --output=OUT \\
        --config.sample.count=64
    python -m tests.benchmarks.probe OUT

For a samples folder of impacts test clips: a probe for the sound names the material that is
heard (one of 8), a probe for the picture the kind of scene (one of 8), in the generated clips and
in their references, both as they were written to disk. Both are kernel machines on plain averages.

They learn from clips of the train split, each as it is and once more worsened in ways that leave
no doubt about what it shows: pictures blurred, with grain, flicker and another contrast and cast;
sounds as the bundled codec returns them, blurred a little. Without that a probe takes blur for
meaning: one trained on clean pictures alone names 0.4 of worsened *real* ones (`--clean` shows it),
this one all. Each line has accuracy and 95 % interval (bootstrap over clips), of the generated
clips, of their references, and of references worsened.
"""

import argparse
import json
import pathlib
import re

import jax
import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from avlink_jax.codecs.mel import MelSpec, log_mel, normalise
from avlink_jax.data.impacts import Impacts
from avlink_jax.data.media import decode as media
from avlink_jax.metrics import bootstrap
from avlink_jax.samples.folder import read_manifest
from avlink_jax.storage import weights
from tests.benchmarks.codec import read

SPEC = MelSpec()
AFTER = (-3, -1, 0, 1, 2, 4, 6, 9, 13, 18)  # frames from the loudest moments on
MOMENTS = 6  # of a clip, the loudest, at least a fifth of a second apart


def heard_material(scene):
  """The material that a strike sounds like: a soft striker makes any surface sound soft."""
  mover, struck = scene.pairs[np.bincount(scene.pair).argmax()]
  return 'rubber' if mover == 'rubber' else struck


def sound_features(mel):
  """(len(AFTER)·n_mels,): mean of a log-mel after the loudest moments, each to its peak."""
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


def relative(x):
  """x over its mean: where there is more of it than elsewhere, not how much there is."""
  return x / (x.mean() + 0.005)


def picture_features(frames):
  """Where it is what colour, how much that changes and where it moves, on a grid of 9×16; relative
  to the whole picture, so that contrast, cast and speed do not matter."""
  x = frames.astype(np.float32) / 255
  n, height, width, _ = x.shape
  x = x[:, :height // 9 * 9, :width // 16 * 16]
  x = x.reshape(n, 9, height // 9, 16, width // 16, 3).mean((2, 4))
  mean = x.mean(0) - x.mean((0, 1, 2))
  mean /= mean.std() + 0.02
  moves = np.abs(np.diff(x, axis=0)).mean(-1)
  return np.concatenate([part.ravel() for part in (
      mean, np.abs(mean).mean(-1), np.log1p(relative(x.std(0).mean(-1))),
      np.log1p(relative(moves.mean(0))), relative(np.sqrt(moves.max(0))))])


def worse_picture(frames, chance):
  """Frames (N, H, W, 3) blurred, with grain and flicker of 4×3 pixels, in another light."""
  x, blur = frames.astype(np.float32) / 255, chance.uniform(0.5, 2.2)
  x = gaussian_filter(x, (chance.uniform(0, 0.7), blur, blur, 0))
  n, height, width, _ = x.shape
  for still in (1, n):
    grain = chance.standard_normal((still, height // 3, width // 4, 3)) * chance.uniform(0, 0.06)
    x = x + grain.repeat(3, 1).repeat(4, 2).astype(np.float32)
  x = (x - 0.5) * chance.uniform(0.7, 1.5) + 0.5 + chance.uniform(-0.15, 0.15, 3)
  return (np.clip(x, 0, 1) * 255).astype(np.uint8)


def codec():
  """Log-mel (T, n_mels) -> what the bundled codec makes of it."""
  _, codec, params, std = read(weights.BUNDLED / 'nano' / 'mel_vae.safetensors')
  there_and_back = jax.jit(lambda mel: codec.vae.decode(
      params, std, codec.vae.encode(params, std, mel)))
  return lambda mel: np.asarray(there_and_back(mel[None, :len(mel) // 4 * 4]))[0]


def worse_sound(mel, chance, returned):
  """A log-mel through the codec and blurred a little."""
  return gaussian_filter(returned(mel), chance.uniform(0, 0.7, 2))


def mel_of(clip):
  return log_mel(normalise(clip.audio), SPEC)


def train(count, sound, picture, clean=False):
  """{'sound': probe, 'picture': probe} of what is wanted, from the train split."""
  source, chance = Impacts('train', size=count), np.random.default_rng(0)
  returned = codec() if sound else None
  found = {'sound': ([], []), 'picture': ([], [])}

  def learn(name, features, answer):
    found[name][0].append(features)
    found[name][1].append(answer)

  for i in range(count):
    scene, clip = source.scene(i), source.load(i)
    if sound:
      mel = mel_of(clip)
      learn('sound', sound_features(mel), heard_material(scene))
      if not clean:
        learn('sound', sound_features(worse_sound(mel, chance, returned)), heard_material(scene))
    if picture:
      learn('picture', picture_features(clip.frames), scene.kind)
      if not clean:
        learn('picture', picture_features(worse_picture(clip.frames, chance)), scene.kind)
  return {name: make_pipeline(StandardScaler(), SVC(C=3, gamma=0.3 / len(data[0][0]))).fit(*data)
          for name, data in found.items() if data[0]}


def ask(probes, folder, worsen=False):
  """[{'id', 'sound': right?, 'picture': right?}] of a folder's clips."""
  source, rows, chance = Impacts('test'), [], np.random.default_rng(1)
  returned = codec() if worsen and 'sound' in probes else None
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
      mel = mel_of(clip)
      features = sound_features(worse_sound(mel, chance, returned) if worsen else mel)
      said['sound'] = probes['sound'].predict([features])[0] == heard_material(scene)
    if 'picture' in probes and 'video' in made and row.get('picture') != 'spectrogram':
      frames = worse_picture(clip.frames, chance) if worsen else clip.frames
      said['picture'] = probes['picture'].predict([picture_features(frames)])[0] == scene.kind
    rows.append(said)
  return rows


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('folder', help='samples, with their reference/')
  parser.add_argument('--train', type=int, default=2048, help='clips the probes learn from')
  parser.add_argument('--clean', action='store_true', help='learn from clean clips alone')
  flags = parser.parse_args()
  made = {name for row in read_manifest(flags.folder) for name in row.get('made') or ()}
  probes = train(flags.train, 'audio' in made, 'video' in made, flags.clean)
  for name in probes:
    report = {'probe': name}
    reference = f'{flags.folder}/reference'
    for what, folder, worsen in (('generated', flags.folder, False),
                                 ('reference', reference, False), ('worsened', reference, True)):
      right = [float(row[name]) for row in ask(probes, folder, worsen) if name in row]
      low, high = bootstrap.intervals({'accuracy': right})['accuracy']
      report |= {f'{what}_clips': len(right), f'{what}_accuracy': round(float(np.mean(right)), 3),
                 f'{what}_interval': [round(low, 3), round(high, 3)]}
    print(json.dumps(report), flush=True)


if __name__ == '__main__':
  main()
