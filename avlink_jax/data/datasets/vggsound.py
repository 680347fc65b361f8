"""VGGSound (Chen et al., ICASSP 2020): 10 s of YouTube videos whose sound's source is in sight.

`vggsound.csv` has no header; its columns are YouTube ID, start seconds, label, train/test split
(README of github.com/hche11/VGGSound). Each clip lasts 10 s from its start. There is no validation
split.
"""

from avlink_jax.data.datasets import rows
from avlink_jax.data.datasets.builder import MediaDataset

SECONDS = 10
LICENCE = 'CC BY 4.0 (the list; the videos belong to their owners)'


class Vggsound(MediaDataset):
  """VGGSound: 309 classes of sound, one label a clip."""
  MANUAL_DOWNLOAD_INSTRUCTIONS = """
  vggsound.csv, and the videos in any folders below, under one of the names
    ID_000030.*, ID_30.*, ID_30000_40000.*, ID_30_40.*    10 s from second 30 on
    ID.*                          the whole video, or the 10 s if it is no longer
  """
  NEEDS_VIDEO = True
  TEMPLATE = 'the sound of {label}'
  HOMEPAGE = 'https://www.robots.ox.ac.uk/~vgg/data/vggsound/'

  def rows(self, folder):
    path = rows.find_list(folder, 'vggsound.csv')
    table = rows.first_fits(path, rows.read_table(path), lambda row: not _fault(row),
                            'YouTube ID, start seconds, label, train/test')
    for row in table:
      if fault := _fault(row):
        yield rows.Malformed(','.join(row)[:80], fault)
        continue
      video, start, label, split = (cell.strip() for cell in row)
      yield rows.Row(
        id=f'{video}_{int(start):06d}', split=split, cut=cut_names(video, int(start), SECONDS),
        whole=(video,), start=int(start), end=int(start) + SECONDS,
        audio_caption=self.caption([label]), video_caption=label, labels=(label,),
        licence=LICENCE, metadata={'youtube_id': video, 'start_seconds': int(start)})


def cut_names(video: str, start: int, seconds: int) -> tuple:
  """File names that downloaders give to [start, start + seconds) of a YouTube video."""
  end = start + seconds
  return (f'{video}_{start:06d}', f'{video}_{start}', f'{video}_{start * 1000}_{end * 1000}',
          f'{video}_{start}_{end}', f'{video}_{start:06d}_{end:06d}')


def _fault(row) -> str:
  if len(row) != 4:
    return f'{len(row)} columns, not 4'
  if not row[1].strip().isdecimal():
    return f'start seconds are {row[1][:20]!r}'
  return '' if row[3].strip() in ('train', 'test') else f'the split is {row[3][:20]!r}'
