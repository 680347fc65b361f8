"""Upsampled clips beside bicubic enlargement with linear blending of frames, against the truth.

    python -m tests.benchmarks.upsampling --upsampled=DIR [--reference=DIR] [--clips=N]
                                          [--networks=DIR] [--output=FILE.json]

`--upsampled` holds ID.mp4, or ID.npy (uint8 (N, H, W, 3) at 24 frames a second, without what a
codec costs). The truth is `--reference`'s clip of that name, or, of an id such as
impacts-test-000012, the clip itself, painted anew. The low-resolution clip is made of the truth
as the upsampler's guide is: the mean over 8×8 pixels of every fourth frame. Where the upsampled
clip is an mp4, the baseline goes through the same codec, so that it costs both alike.

A line a way of making the clip: mean over clips of

    PSNR, SSIM, flicker     metrics/video_quality.py
    looks                   how unlike single frames look to EfficientNet-lite0: LPIPS's distance
                            of what its stages answer, all counting alike (codecs/perceptual.py)
    I3D                     distance between the classes' logits of the clip and of the truth, and
    FVD                     Fréchet distance of the set; of few clips it is too large. Of networks:
                            where weights are there (--networks, or the packages that carry them)
    motion events           F1 of the peaks of motion against the exact times of contacts, where
                            they are known: at the clip's own rate within a frame of it (evaluate's
                            motion_event_f1), at its own rate within a sixth of a second, and of
                            every fourth frame within a sixth of a second, which is how the
                            low-resolution clip can be seen. Only this last one is on an equal
                            footing with the low-resolution clip's (metrics/av_align.py); the
                            others say what lies between its frames

and, of the upsampled clips, by how much they are beyond the baseline in each (motion: beyond the
small clip), with 95 % of it: bootstrap over clips, paired.
"""

import argparse
import functools
import json
import pathlib
import re
import tempfile
from typing import NamedTuple

import cv2
import jax
import numpy as np

from avlink_jax.codecs import perceptual
from avlink_jax.data.boxes import box_mean
from avlink_jax.data.clip import resample_frames
from avlink_jax.data.impacts import Impacts
from avlink_jax.data.media import decode as media
from avlink_jax.data.media import mux
from avlink_jax.errors import UserError
from avlink_jax.evaluation import pairs as clips_on_disk
from avlink_jax.metrics import av_align, bootstrap, frechet, video_quality
from avlink_jax.metrics.networks import efficientnet_lite0
from avlink_jax.metrics.networks.embedding import Embedder
from avlink_jax.metrics.networks.registry import EFFICIENTNET_LITE0, I3D
from avlink_jax.storage.atomic import write_text

FPS, EVERY, BOX = 24.0, 4, 8  # frames a second; low-resolution: of how many frames, of what pixels
LOOKED_AT = 13  # every so manyth frame: so each distance from the small clip's frames has its turn
FIGURES = {'psnr': '.2f', 'ssim': '.4f', 'flicker': '.3f', 'looks': '.4f', 'i3d': '.3f',
           'fvd': '.3f', 'motion_f1': '.3f', 'motion_f1_sixth': '.3f', 'motion_f1_every_4th': '.3f'}


def lowered(frames):
  """The low-resolution clip: uint8 (N, H, W, 3) -> float32 (ceil(N / 4), H / 8, W / 8, 3)."""
  kept = frames[::EVERY]
  return box_mean(kept, *(n // BOX for n in kept.shape[1:3]))


def blended(low, count):
  """Bicubic in space, linear in time: float32 (n, h, w, 3) -> uint8 (count, 8h, 8w, 3).

  Frame 4k is low-resolution frame k; after the last one it stays.
  """
  size = low.shape[2] * BOX, low.shape[1] * BOX
  large = [cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in low]
  frames = np.empty((count, size[1], size[0], 3), np.uint8)
  for n in range(count):
    k, part = divmod(n, EVERY)
    before, after = large[k], large[min(k + 1, len(large) - 1)]
    frames[n] = np.clip(before + part / EVERY * (after - before) + .5, 0, 255)
  return frames


def through_codec(frames):
  """What an mp4 of ours keeps of frames."""
  with tempfile.TemporaryDirectory() as folder:
    mux.write_mp4(path := pathlib.Path(folder, 'a.mp4'), frames=frames, fps=FPS)
    return media.decode(path, need_audio=False).frames


def motion_scores(frames, fps, events):
  """{figure: F1 of the peaks of motion against exact times, or None where none are known}."""
  if events is None:
    return {}

  def f1(frames, fps, within=None):
    seen = av_align.motion(frames, np.arange(len(frames)) / fps, len(frames) / fps)
    return av_align.event_scores(seen._replace(period=within or seen.period), events)['f1']

  every = round(fps / (FPS / EVERY))
  return {'motion_f1': f1(frames, fps), 'motion_f1_sixth': f1(frames, fps, EVERY / FPS),
          'motion_f1_every_4th': f1(frames[::every], fps / every)}


def embedded(embedder, frames):
  """I3D's (400,) of frames at 24 a second."""
  every = round(FPS / I3D.rate)
  return embedder(I3D.prepare(frames[::every]))['embedding'][0]


class Looks:
  """LPIPS's distance through EfficientNet-lite0, whose weights anybody can have."""
  floor = 1e-10

  def __init__(self, embedder):
    self._weights = embedder.weights
    shapes = jax.eval_shape(self.features, jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32))
    self.heads = [np.full(shape.shape[-1], 1 / len(shapes), np.float32) for shape in shapes]
    self._distance = jax.jit(functools.partial(perceptual.distance, self))

  def features(self, image):
    return efficientnet_lite0.feature_maps(self._weights, 2 * image - 1)

  def __call__(self, true, made):
    """Mean over frames of uint8 (N, H, W, 3)."""
    pairs = zip(true[2::LOOKED_AT], made[2::LOOKED_AT], strict=True)
    return float(np.mean([self._distance(*(np.float32(frame[None]) / 255 for frame in pair))
                          for pair in pairs]))


def measure(true, made, events, networks, seen):
  """Figures of one clip; `seen` is the truth's embedding. Both are uint8 (N, H, W, 3)."""
  found = {name: getattr(video_quality, name)(true, made) for name in ('psnr', 'ssim', 'flicker')}
  found |= motion_scores(made, FPS, events)
  if networks.looks:
    found['looks'] = networks.looks(true, made)
  if networks.i3d:
    found['embedding'] = embedded(networks.i3d, made)
    found['i3d'] = float(np.linalg.norm(found['embedding'] - seen))
  return found


def compare(folder, reference=None, most=None, networks=None):
  """{'clips': N, way: {figure: mean}} of `reference`, `low resolution`, `baseline`, `upsampled`.

  Raises UserError: no clips there, no truth for one, or of another size.
  """
  files = read_folder(folder)[:most]
  given = (clips_on_disk.find(reference, '--reference'), clips_on_disk.exact_events(
      reference)) if reference else None
  networks = Networks.found(networks)
  rows = {'reference': [], 'low resolution': [], 'baseline': [], 'upsampled': []}
  truths = []
  for path in files:
    made = np.load(path) if path.suffix == '.npy' else media.decode(path, need_audio=False).frames
    true, events = truth(path, given, made.shape[1:3])
    count = min(len(true), len(made))
    true, made = true[:count], made[:count]
    if true.shape != made.shape or any(side % BOX for side in true.shape[1:3]):
      raise UserError(f'{path}: pictures of {made.shape[2]}×{made.shape[1]} beside the truth\'s '
                      f'{true.shape[2]}×{true.shape[1]}, which must be a multiple of {BOX}')
    low = lowered(true)
    seen = embedded(networks.i3d, true) if networks.i3d else None
    truths.append(seen)
    plain = blended(low, count)
    plain = plain if path.suffix == '.npy' else through_codec(plain)
    rows['reference'].append(motion_scores(true, FPS, events))
    rows['low resolution'].append(motion_scores(
        np.round(low).astype(np.uint8), FPS / EVERY, events))
    rows['baseline'].append(measure(true, plain, events, networks, seen))
    rows['upsampled'].append(measure(true, made, events, networks, seen))
    print(f'\r{len(truths)}/{len(files)} clips', end='', flush=True)
  print()
  return {'clips': len(files), **{way: means(found, truths) for way, found in rows.items()},
          'intervals': beyond(rows)}


def beyond(rows):
  """{way: {figure: [low, high]}}: 95 % of upsampled - way, paired by clip, of those that define it
  (the PSNR of what is equal is none)."""
  def differences(name, way):
    pairs = [(ours.get(name), theirs.get(name))
             for ours, theirs in zip(rows['upsampled'], rows[way], strict=True)]
    return [a - b if None not in (a, b) and np.isfinite([a, b]).all() else None for a, b in pairs]

  return {way: bootstrap.intervals({name: differences(name, way) for name in FIGURES})
          for way in ('baseline', 'low resolution')}


def means(rows, truths):
  """{figure: mean over the clips that define it} of one way of making clips."""
  found = {}
  for name in FIGURES:
    values = [row[name] for row in rows if row.get(name) is not None]
    if values:
      found[name] = float(np.mean(values))
  if len(rows) > 1 and 'embedding' in rows[0]:
    found['fvd'] = frechet.distance(np.stack([row['embedding'] for row in rows]),
                                    np.stack(truths))
  return found


def read_folder(folder):
  """The clips in a folder, by name. UserError: none."""
  if not pathlib.Path(folder).is_dir():
    raise UserError(f'--upsampled={folder}: no such folder')
  arrays = sorted(pathlib.Path(folder).glob('*.npy'))
  files = arrays or [files.video for _, files in sorted(
      clips_on_disk.find(folder, '--upsampled').items()) if files.video]
  if not files:
    raise UserError(f'--upsampled={folder}: no clips with a picture in it')
  return files


def truth(path, given, size):
  """(frames uint8 (N, H, W, 3), exact times or None) of the clip that a file was made of."""
  if given is not None:
    files, events = given
    if path.stem not in files or files[path.stem].video is None:
      raise UserError(f'{path}: no clip of that name with a picture in --reference')
    frames = media.decode(files[path.stem].video, max_fps=FPS, need_audio=False)
    count = int(frames.duration * FPS + 1e-6)
    return resample_frames(frames, 0.0, count, FPS)[0], events.get(path.stem)
  named = re.fullmatch(r'impacts-(train|validation|test)-(\d+)', path.stem)
  if not named:
    raise UserError(f'{path}: not the name of a clip of impacts: give --reference')
  source = Impacts(named[1], height=size[0], width=size[1], fps=FPS, need_audio=False)
  clip = source.load(int(named[2]))
  return clip.frames, clip.events


class Networks(NamedTuple):
  """I3D and EfficientNet-lite0; None where the weights of one are not there."""
  i3d: Embedder | None = None
  looks: Looks | None = None

  @classmethod
  def found(cls, folder):
    """Those whose weights are there; of the others it is said."""
    found = {}
    for name, network, made in (('i3d', I3D, lambda x: x), ('looks', EFFICIENTNET_LITE0, Looks)):
      try:
        found[name] = made(Embedder(network, folder))
      except UserError as error:
        print(f'left out: {error}')
    return cls(**found)


def table(result):
  ways = {way: row for way, row in result.items() if way not in ('clips', 'intervals')}
  names = [name for name in FIGURES if any(name in row for row in ways.values())]
  lines = [f'{str(result["clips"]) + " clips":16}' + ''.join(f'{name:>21}' for name in names)]
  for way, row in ways.items():
    lines.append(f'{way:16}' + ''.join(
        f'{format(row[name], FIGURES[name]) if name in row else "–":>21}' for name in names))
  for way, row in result['intervals'].items():
    shown = ['[{:+{form}}, {:+{form}}]'.format(*row[name], form=FIGURES[name])
             if row.get(name) else '–' for name in names]
    lines.append(f'{"− " + way:16}' + ''.join(f'{text:>21}' for text in shown))
  return '\n'.join(lines)


def main(argv=None):
  parser = argparse.ArgumentParser()
  parser.add_argument('--upsampled', required=True)
  parser.add_argument('--reference')
  parser.add_argument('--clips', type=int)
  parser.add_argument('--networks')
  parser.add_argument('--output')
  given = parser.parse_args(argv)
  result = compare(given.upsampled, given.reference, given.clips, given.networks)
  print(table(result))
  if given.output:  # JSON knows no infinity, which is PSNR's of equal clips
    finite = jax.tree.map(lambda value: value if np.isfinite(value) else None, result)
    write_text(given.output, json.dumps(finite, indent=1, allow_nan=False) + '\n')
  return result


if __name__ == '__main__':
  main()
