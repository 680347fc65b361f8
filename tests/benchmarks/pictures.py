"""Do generated pictures look like true ones? What a person sees in a second, in figures.

    python -m avlink_jax.main --config=configs/t2v.py:nano --mode=sample --output=OUT \\
        --config.sample.count=64 --config.sample.upsample=False
    python -m tests.benchmarks.pictures OUT [--networks=DIR] [--patch=12,16]

For a folder of samples of impacts with its reference/, at the base size of 36×64:

    border    mean |gradient| across the borders of a patch of pixels (a token's) over that inside;
              of true clips about 1: pictures of tiles have more
    gradient  mean |gradient|, of 255: grain has more than the references, blur has less
    found     share of the frames in which a detector of the moving body, trained on true frames,
              finds one (metrics/body.py), and how surely
    fid, fvd  Fréchet distances of EfficientNet-lite0 and of I3D, to as many other true clips

Beside the generated clips stand landmarks: the references themselves, and these blurred, tiled
(each patch its mean and half of the rest), and with frames in another order.
"""

import argparse
import json
import pathlib

import cv2
import numpy as np

from avlink_jax.data.impacts import Impacts
from avlink_jax.data.media import decode as media
from avlink_jax.errors import UserError
from avlink_jax.metrics import body, body_training, bootstrap, frechet, set_figures
from avlink_jax.metrics.networks.embedding import Embedder
from avlink_jax.metrics.networks.registry import NETWORKS
from avlink_jax.metrics.pictures import border_ratio, mean_gradient
from avlink_jax.samples.folder import read_manifest

NETWORK = {'fid': 'efficientnet_lite0', 'fvd': 'i3d'}


def blurred(frames, chance):
  del chance
  return np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in frames])


def tiled(frames, chance):
  return body_training.tiled(frames, (18, 16), 0.5, chance)


def shuffled(frames, chance):
  return frames[chance.permutation(len(frames))]


LANDMARKS = {'references': lambda frames, chance: frames, 'references blurred': blurred,
             'references tiled': tiled, 'references shuffled': shuffled}


def read(folder):
  """{id: frames uint8 (N, 36, 64, 3)} of a samples folder, by its manifest."""
  clips = {}
  for row in read_manifest(folder):
    file = row['files'].get('low') or row['files']['video']
    clips[row['id']] = media.decode(pathlib.Path(folder, file), height=36, width=64,
                                    need_audio=False).frames
  return clips


def at_rate(frames, rate):
  """Frames at `rate` a second, of a clip with 6."""
  count = max(1, int(len(frames) / body.FPS * rate + 1e-6))
  return frames[np.minimum((np.arange(count) / rate * body.FPS).astype(int),
                           len(frames) - 1)]


class Judge:
  """Everything that a set of clips is measured with, against `others`, a list of true clips."""

  def __init__(self, others, patch, folder):
    self.patch, self.embedders, self.missing = patch, {}, {}
    for name, network in NETWORK.items():
      try:
        self.embedders[name] = Embedder(NETWORKS[network], folder)
      except UserError as error:
        self.missing[name] = str(error)
    self.others = {name: self.rows(name, others) for name in self.embedders}

  def rows(self, name, clips):
    """Embedding of each clip, [(R, D)]."""
    embedder = self.embedders[name]
    return [embedder(embedder.network.prepare(at_rate(frames, embedder.network.rate)))['embedding']
            for frames in clips]

  def __call__(self, clips):
    """Figures of clips, a list of frames, {name: value or [low, high]}."""
    found, surely = zip(*map(body.scores, clips), strict=True)
    values = {'border': [border_ratio(frames, self.patch) for frames in clips],
              'gradient': [mean_gradient(frames) for frames in clips],
              'found': found, 'surely': surely}
    report = {name: round(float(np.mean(each)), 3) for name, each in values.items()}
    report |= {f'{name}_interval': np.round(bounds, 3).tolist()
               for name, bounds in bootstrap.intervals(
                   {name: list(each) for name, each in values.items()}).items() if bounds}
    for name, others in self.others.items():
      rows = self.rows(name, clips)

      def figure(chosen, rows=rows, others=others):
        return frechet.distance(*(np.concatenate([side[k] for k in chosen])
                                  for side in (rows, others)))

      report[name] = round(figure(np.arange(len(rows))), 1)
      bounds = set_figures.interval(figure, len(rows))
      report |= {f'{name}_interval': np.round(bounds, 1).tolist()} if bounds else {}
    return report


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('folders', nargs='+', help='samples of the same clips, with reference/')
  parser.add_argument('--networks', help='folder with weights of networks')
  parser.add_argument('--patch', default='12,16', help='rows, columns of pixels of a token')
  flags = parser.parse_args()
  patch = tuple(int(side) for side in flags.patch.split(','))
  references = read(pathlib.Path(flags.folders[0], 'reference'))
  source = Impacts('validation', size=len(references))
  judge = Judge([source.load(i).frames for i in range(len(references))], patch, flags.networks)
  for name, reason in judge.missing.items():
    print(json.dumps({'missing': name, 'reason': reason}))
  for folder in flags.folders:
    clips = read(folder)
    print(json.dumps({'clips': folder, 'count': len(clips)} | judge(list(clips.values()))),
          flush=True)
  for name, change in LANDMARKS.items():
    chance = np.random.default_rng(0)
    print(json.dumps({'clips': name} | judge([change(frames, chance)
                                               for frames in references.values()])), flush=True)


if __name__ == '__main__':
  main()
