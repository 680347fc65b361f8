"""Image for the README: frames, true audio and generated audio of a samples folder's first clips,
with exact event times as white lines.

    python -m avlink_jax.studies.figure runs/quickstart/samples/step_1000 \\
        avlink_jax/assets/v2a.png [COUNT]
"""

import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw

from avlink_jax.codecs.mel import MelSpec, log_mel
from avlink_jax.data.clip import resample_frames
from avlink_jax.data.media.decode import decode
from avlink_jax.samples.folder import event_times, read_manifest
from avlink_jax.samples.spectrogram import spectrogram_image

WIDTH, FRAMES = 1240, 10  # pixels, frames a row
FRAME_HEIGHT, MEL_HEIGHT = 70, 72  # pixels
GAP = 8  # pixels between the clips


def strip(clip):
  """Image of a frame each half second in a row, WIDTH × FRAME_HEIGHT."""
  count = min(FRAMES, int(2 * clip.duration))
  row = np.concatenate(list(resample_frames(clip, 0.0, count, 2.0)[0]), axis=1)
  return Image.fromarray(row).resize((WIDTH, FRAME_HEIGHT), Image.Resampling.LANCZOS)


def spectrogram(clip, events, label):
  """Log-mel of a clip, WIDTH wide, with exact events and a label."""
  mel = spectrogram_image(log_mel(clip.audio, MelSpec()))
  image = Image.fromarray(mel).resize((WIDTH, MEL_HEIGHT))
  draw = ImageDraw.Draw(image)
  for time in events:
    x = time / clip.duration * WIDTH
    draw.line((x, 0, x, 14), fill='white', width=2)
  draw.text((6, MEL_HEIGHT - 14), label, fill='white')
  return image


def stacked(rows):
  """Image of rows of equal width, one below the other; None leaves a gap."""
  heights = [GAP if row is None else row.size[1] for row in rows]
  image = Image.new('RGB', (rows[0].size[0], sum(heights)), 'white')
  for row, top in zip(rows, np.cumsum([0] + heights), strict=False):
    if row is not None:
      image.paste(row, (0, int(top)))
  return image


def main():
  folder, out = map(pathlib.Path, sys.argv[1:3])
  count = int(sys.argv[3]) if len(sys.argv) > 3 else 4
  rows = []
  for row in read_manifest(folder)[:count]:
    name = row['files']['video']
    generated, true = decode(folder / name), decode(folder / 'reference' / name)
    events = event_times(row)
    rows += [strip(generated), spectrogram(true, events, 'true audio'),
             spectrogram(generated, events, f'generated: {row["prompt"]}'), None]
  stacked(rows[:-1]).save(out, optimize=True)


if __name__ == '__main__':
  main()
