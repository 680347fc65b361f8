"""MagnaTagATune (Law et al., ISMIR 2009): 29 s clips of Magnatune's music with tags from a game.

`annotations_final.csv` is separated by tabs, quoted: clip_id, 188 columns of 0 or 1 named by their
tag, mp3_path. `clip_info_final.csv`, separated by tabs, has clip_id, track_number, title, artist,
album, … (read where it is there). A path is HEXDIGIT/NAME.mp3, and the split that is commonly used
goes by that digit: 0–b train, c validation, d–f test. Three of the published mp3 files are empty
and come out as broken. The columns are as in the files that public readers parse
(github.com/keunwoochoi/magnatagatune-list); the page of the data set itself was not at hand.
"""

from avlink_jax.data.datasets import rows
from avlink_jax.data.datasets.builder import MediaDataset

TEXT = ('title', 'artist', 'album')
LICENCE = 'CC BY-NC-SA 1.0 (Magnatune)'


class Magnatagatune(MediaDataset):
  """MagnaTagATune: music with 188 tags."""
  MANUAL_DOWNLOAD_INSTRUCTIONS = """
  annotations_final.csv, clip_info_final.csv (if you have it), and the unpacked mp3 files in their
  folders 0 to f: f/american_bach_soloists-…-30-59.mp3, …
  """
  TEMPLATE = '{label} music'
  HOMEPAGE = 'https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset'

  def rows(self, folder):
    path = rows.find_list(folder, 'annotations_final.csv')
    info = _info(folder / 'clip_info_final.csv')
    for record in rows.read_records(path, ('clip_id', 'mp3_path'), '\t'):
      if isinstance(record, rows.Malformed):
        yield record
        continue
      clip, mp3 = record.pop('clip_id'), record.pop('mp3_path')
      split = _split(mp3)
      if split is None:
        yield rows.Malformed(clip[:80], f'path {mp3[:40]!r} does not begin with a folder 0 to f')
        continue
      labels = tuple(tag for tag, value in record.items() if value == '1')
      yield rows.Row(id=clip, split=split, cut=(mp3.removesuffix('.mp3'),), labels=labels,
                     audio_caption=self.caption(labels), licence=LICENCE,
                     metadata=info.get(clip, {}))


def _split(mp3_path: str) -> str | None:
  folder, _, name = mp3_path.partition('/')
  if len(folder) != 1 or folder not in '0123456789abcdef' or not name:
    return None
  return 'train' if folder <= 'b' else 'validation' if folder == 'c' else 'test'


def _info(path) -> dict:
  if not path.is_file():
    return {}
  return {record['clip_id']: {name: record[name] for name in TEXT}
          for record in rows.read_records(path, ('clip_id', *TEXT), '\t')
          if not isinstance(record, rows.Malformed)}
