"""Upsampled clips below what they were made of: the same moments of each in rows.

    python -m avlink_jax.studies.contact_sheet --high=SAMPLES [--low=FOLDER] [--reference=FOLDER]
                                   [--count=4] [--columns=4] [--between] OUT.png

Clips are matched by name. Without `--low` the low-resolution versions are those that the samples
folder holds beside its clips (ID_low.mp4); `--reference=SAMPLES/reference` shows the true pictures
below. Low-resolution pixels are enlarged as they are. The moments lie evenly in the clip, each
where a low-resolution frame begins; with `--between` half-way to the next one, where the upsampler
has made up what moves.
"""

import argparse
import io
import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from avlink_jax.data.clip import resample_frames
from avlink_jax.data.media import decode as media
from avlink_jax.errors import MISTAKE, MediaError, UserError
from avlink_jax.evaluation import pairs as clips_on_disk
from avlink_jax.samples.folder import file_stem, read_manifest
from avlink_jax.storage.atomic import write_bytes
from avlink_jax.storage.console import say
from avlink_jax.studies.figure import WIDTH, stacked


def videos_in(folder, flag):
  """{stem: file} of the clips with a picture in a folder. UserError: no such folder."""
  return {stem: files.video for stem, files in clips_on_disk.find(folder, flag).items()
          if files.video}


def low_versions(folder):
  """{stem: file} of the low-resolution versions that a samples folder holds beside its clips."""
  rows = read_manifest(folder)
  return {file_stem(row['id']): pathlib.Path(folder, pathlib.Path(str(row['files']['low'])).name)
          for row in rows if row['files'].get('low')}


def moments(clip, count, between=False):
  """`count` times, spread evenly, at which a frame of the clip begins, or in its middle: (count,)
  seconds."""
  wanted = (np.arange(count) + 0.5) * clip.duration / count
  shown = np.searchsorted(clip.frame_times, wanted, side='right') - 1
  ends = np.append(clip.frame_times[1:], clip.duration)
  return clip.frame_times[shown] + between * (ends - clip.frame_times)[shown] / 2


def strip(clip, times, label, filter):
  """The frames that show at those times in a row, WIDTH wide."""
  frames = [resample_frames(clip, time, 1, 1.0)[0][0] for time in times]
  height, width = frames[0].shape[:2]
  wide = WIDTH // len(times)
  size = wide, round(wide * height / width)
  row = Image.new('RGB', (WIDTH, size[1]), 'white')
  for k, frame in enumerate(frames):
    row.paste(Image.fromarray(frame).resize(size, filter), (k * wide, 0))
  draw, font = ImageDraw.Draw(row), ImageFont.load_default(size=15)
  for k, time in enumerate(times):
    told = f'{label}, {time:.2f} s' if k == 0 else f'{time:.2f} s'
    draw.text((k * wide + 6, 4), told, 'white', font, stroke_width=2, stroke_fill='black')
  return row


def sheet(low, high, reference, count, columns, between=False):
  """The picture. Raises UserError: a folder is not there, nothing matches, a file is damaged."""
  large = videos_in(high, '--high')
  small = videos_in(low, '--low') if low else low_versions(high)
  true = videos_in(reference, '--reference') if reference else {}
  matched = sorted(large.keys() & small.keys())[:count]
  if not matched:
    raise UserError(f'no clip of {high} has a low-resolution version '
                    + (f'in {low}' if low else 'beside it: give --low'))
  rows = []
  for stem in matched:
    times = None
    for label, file, filter in (('low resolution', small[stem], Image.Resampling.NEAREST),
                                ('upsampled', large[stem], Image.Resampling.LANCZOS),
                                ('true', true.get(stem), Image.Resampling.LANCZOS)):
      if file is not None:
        try:
          clip = media.decode(file, need_audio=False)
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
  given = parser.parse_args(argv)
  try:
    if min(given.count, given.columns) < 1:
      raise UserError('--count and --columns begin at 1')
    picture = sheet(given.low, given.high, given.reference, given.count, given.columns,
                    given.between)
    picture.save(file := io.BytesIO(), 'PNG', optimize=True)
    write_bytes(given.output, file.getvalue())
  except UserError as error:
    say(f'contact_sheet: {error}')
    return MISTAKE
  return 0


if __name__ == '__main__':
  sys.exit(main())
