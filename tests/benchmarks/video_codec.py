"""How well video autoencoders put clips together that they have not seen, beside plain enlargement.

    python -m tests.benchmarks.video_codec [--clips=8] [--seconds=5.16] [--folder=CLIPS] [FILE ...]

Over the test clips of `impacts` at 288×512 and 24 frames a second (or those of a folder): PSNR in
dB, SSIM, flicker (mean absolute difference of temporal gradients, of 255), all of
metrics/video_quality.py, the seconds that coding and decoding take a clip, and the numbers that are
kept of each second. Plain
enlargement keeps the means of 8 × 8 pixels of every fourth frame, the autoencoder's grid: bicubic,
and each held for four frames. A table, and as its last line the same as JSON.
"""

import argparse
import json
import time

import cv2
import jax
import numpy as np

from avlink_jax import build as model_builder
from avlink_jax.codecs.pixels import as_uint8
from avlink_jax.data import batch as batches
from avlink_jax.data.impacts import Impacts
from avlink_jax.data.sources.folder import Folder
from avlink_jax.metrics import video_quality
from avlink_jax.sampling.inputs import cut
from avlink_jax.storage import config_versions, weights
from configs import video_vae

STRIDES = 4, 8  # frames and pixels of plain enlargement
MEASURES = {name: getattr(video_quality, name) for name in ('psnr', 'ssim', 'flicker')}


def bicubic_and_repeat(video):
  """uint8 (N, H, W, 3), H and W multiples of 8 -> what is left of it, of the same shape."""
  time_stride, space_stride = STRIDES
  height, width = video.shape[1:3]
  small = (width // space_stride, height // space_stride)
  kept = [cv2.resize(cv2.resize(frame, small, interpolation=cv2.INTER_AREA), (width, height),
                     interpolation=cv2.INTER_CUBIC) for frame in video[::time_stride]]
  return np.repeat(np.stack(kept), time_stride, axis=0)[:len(video)]


def autoencoder(path):
  """(video -> reconstruction, latent channels) of a weights file."""
  tree, about = weights.read(path)
  config = video_vae.get_config(about.get('scale', 'nano'))
  config.video_codec.update(config_versions.config_of(about, path).video_codec)
  codec = model_builder.build(config).modalities['video'].codec.vae
  params, std = tree['params'], tree['stats']['std']
  weights.fit(params, jax.eval_shape(codec.init, jax.random.key(0)), path)

  def through(video):
    latents = codec.encode_in_parts(params, std, video[None])
    return as_uint8(codec.decode_in_parts(params, std, latents, *video.shape[:3])[0])

  return through, codec.latent_channels


def score(through, videos):
  """{measure: mean over videos, 'seconds': median}."""
  rows, seconds = [], []
  for video in videos:
    started = time.monotonic()
    made = through(video)
    seconds.append(time.monotonic() - started)
    rows.append([measure(video, made) for measure in MEASURES.values()])
  return dict(zip(MEASURES, np.mean(rows, axis=0).tolist(), strict=True)) | {
      'seconds': float(np.median(seconds))}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--clips', type=int, default=8)
  parser.add_argument('--seconds', type=float, default=5.16)
  parser.add_argument('--folder')
  parser.add_argument('weights', nargs='*')
  given = parser.parse_args()
  models = model_builder.build(video_vae.get_config('nano'))
  layout, audio = models.layout, models.modalities['audio'].codec
  size = dict(height=layout.height, width=layout.width)
  source = Folder(given.folder, **size) if given.folder else Impacts(
      'test', size=given.clips, fps=layout.fps, **size)
  clips = [source.load(i) for i in range(min(given.clips, len(source)))]
  videos = [batches.all_frames(cut(clip, given.seconds, audio), layout.fps) for clip in clips]
  grid = layout.fps / STRIDES[0] * layout.height * layout.width / STRIDES[1] ** 2
  found = {'bicubic and repeat': score(bicubic_and_repeat, videos) | {'kept': 3 * grid}}
  for path in given.weights:
    through, channels = autoencoder(path)
    through(videos[0])  # compiled
    found[path] = score(through, videos) | {'kept': channels * grid}
  print(f'{"":40} {"PSNR":>6} {"SSIM":>7} {"flicker":>8} {"s/clip":>7} {"kept/s":>9}')
  for name, row in found.items():
    print(f'{name[-40:]:40} {row["psnr"]:6.2f} {row["ssim"]:7.4f} {row["flicker"]:8.3f} '
          f'{row["seconds"]:7.2f} {row["kept"]:9,.0f}')
  print(json.dumps({'clips': len(videos), 'seconds': given.seconds, **found}))


if __name__ == '__main__':
  main()
