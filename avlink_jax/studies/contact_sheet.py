"""Contact sheets of upsampled clips below their low-resolution versions, at the same moments.

    python -m avlink_jax.studies.contact_sheet --high=SAMPLES [--low=FOLDER] [--reference=FOLDER]
                                   [--count=4] [--columns=4] [--between] OUT.png

Clips are matched by name. Without `--low` the low-resolution versions are those that the samples
folder holds beside its clips (ID_low.mp4); `--reference=SAMPLES/reference` shows the true frames
below. Low-resolution pixels are enlarged as squares. The moments are evenly spaced, each at the
beginning of a low-resolution frame; with `--between` half-way to the next one, where the upsampler
interpolates motion.
"""

import argparse
import io
import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from avlink_jax.data.clip import resample_frames
from avlink_jax.data.media.decode import decode
from avlink_jax.errors import MISTAKE, MediaError, UserError
from avlink_jax.evaluation import pairs as clips_on_disk
from avlink_jax.samples.folder import file_stem, read_manifest
from avlink_jax.storage.atomic import write_bytes
from avlink_jax.storage.console import say
from avlink_jax.studies.figure import WIDTH, stacked


def videos_in(folder, flag):
  """Mapping {stem: file} of the clips with video in a folder. Raises UserError: no such folder."""
  return {stem: files.video for stem, files in clips_on_disk.find(folder, flag).items()
          if files.video}


def low_versions(folder):
  """Mapping {stem: file} of the low-resolution versions in a samples folder."""
  rows = read_manifest(folder)
  return {file_stem(row['id']): pathlib.Path(folder, pathlib.Path(str(row['files']['low'])).name)
          for row in rows if row['files'].get('low')}


def moments(clip, count, between=False):
  """Evenly spaced times, (count,) seconds, at which a frame of the clip begins; `between`: at its
  middle."""
  even = (np.arange(count) + 0.5) * clip.duration / count
  frame = np.searchsorted(clip.frame_times, even, side='right') - 1
  ends = np.append(clip.frame_times[1:], clip.duration)
  return clip.frame_times[frame] + between * (ends - clip.frame_times)[frame] / 2


def strip(clip, times, label, filter):
  """Image of the frames at these times in a row, WIDTH wide."""
  frames = [resample_frames(clip, time, 1, 1.0)[0][0] for time in times]
  height, width = frames[0].shape[:2]
  column = WIDTH // len(times)
  size = column, round(column * height / width)
  row = Image.new('RGB', (WIDTH, size[1]), 'white')
  for k, frame in enumerate(frames):
    row.paste(Image.fromarray(frame).resize(size, filter), (k * column, 0))
  draw, font = ImageDraw.Draw(row), ImageFont.load_default(size=15)
  for k, time in enumerate(times):
    text = f'{label}, {time:.2f} s' if k == 0 else f'{time:.2f} s'
    draw.text((k * column + 6, 4), text, 'white', font, stroke_width=2, stroke_fill='black')
  return row


def sheet(low, high, reference, count, columns, between=False):
  """Contact sheet image. Raises UserError: a missing folder, no match, or a damaged file."""
  high_videos = videos_in(high, '--high')
  low_videos = videos_in(low, '--low') if low else low_versions(high)
  reference_videos = videos_in(reference, '--reference') if reference else {}
  matched = sorted(high_videos.keys() & low_videos.keys())[:count]
  if not matched:
    raise UserError(f'no clip of {high} has a low-resolution version '
                    + (f'in {low}' if low else 'beside it: give --low'))
  rows = []
  for stem in matched:
    times = None
    for label, file, filter in (('low resolution', low_videos[stem], Image.Resampling.NEAREST),
                                ('upsampled', high_videos[stem], Image.Resampling.LANCZOS),
                                ('true', reference_videos.get(stem), Image.Resampling.LANCZOS)):
      if file is not None:
        try:
          clip = decode(file, need_audio=False)
        except MediaError as error:
          raise UserError(f'{error.path}: {error.reason}') from None
        times = moments(clip, columns, between) if times is None else times
        rows.append(strip(clip, times, label, filter))
    rows.append(None)
  return stacked(rows[:-1])


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
  parser.add_argument('output', metavar='OUT.png')
  parser.add_argument('--high', required=True, help='folder of upsampled clips')
  parser.add_argument('--low', help='folder of low-resolution ones, if not that')
  parser.add_argument('--reference', help='folder of true ones')
  parser.add_argument('--count', type=int, default=4, help='clips')
  parser.add_argument('--columns', type=int, default=4, help='moments of each')
  parser.add_argument('--between', action='store_true', help='low-resolution frames')
  flags = parser.parse_args(argv)
  try:
    if min(flags.count, flags.columns) < 1:
      raise UserError('--count and --columns begin at 1')
    image = sheet(flags.low, flags.high, flags.reference, flags.count, flags.columns,
                  flags.between)
    image.save(file := io.BytesIO(), 'PNG', optimize=True)
    write_bytes(flags.output, file.getvalue())
  except UserError as error:
    say(f'contact_sheet: {error}')
    return MISTAKE
  return 0


if __name__ == '__main__':
  sys.exit(main())
