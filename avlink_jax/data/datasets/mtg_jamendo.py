"""MTG-Jamendo (Bogdanov et al., 2019): full tracks with tags of genre, instrument, mood and theme.

`data/splits/split-N/autotagging-{train,validation,test}.tsv`: TRACK_ID, ARTIST_ID, ALBUM_ID, PATH,
DURATION, TAGS, separated by tabs; the tags, such as genre---rock, are separated by tabs too, so a
row is as long as it has tags. PATH is 14/214.mp3 (14/214.low.mp3 in the small edition).
`audio_licenses.txt` has for each track its path, a line of attribution, a line with the licence,
an empty line (read where it is there). Source: github.com/MTG/mtg-jamendo-dataset; the form of
audio_licenses.txt is as public readers parse it.
"""

import tensorflow_datasets as tfds

from avlink_jax.data.datasets import rows
from avlink_jax.data.datasets.builder import MediaDataset

COLUMNS = ('TRACK_ID', 'ARTIST_ID', 'ALBUM_ID', 'PATH', 'DURATION', 'TAGS')


class MtgJamendo(MediaDataset):
  """MTG-Jamendo: music with tags. Its configs are the five published splits, split-0 by default."""
  MANUAL_DOWNLOAD_INSTRUCTIONS = """
  data/splits/split-0/autotagging-train.tsv, -validation.tsv and -test.tsv (those you have are
  read), audio_licenses.txt (if you have it), and the unpacked audio: 14/214.mp3 or
  14/214.low.mp3, …
  """
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=f'split-{n}', description=f'official split {n}')
                     for n in range(5)]
  TEMPLATE = '{label} music'
  HOMEPAGE = 'https://github.com/MTG/mtg-jamendo-dataset'

  def rows(self, folder):
    licences = _licences(folder)
    name = self.builder_config.name
    places = (f'data/splits/{name}', f'splits/{name}', name)
    found = [(split, folder / place / f'autotagging-{split}.tsv') for place in places
             for split in ('train', 'validation', 'test')]
    found = [(split, path) for split, path in found if path.is_file()]
    if not found:
      rows.find_list(folder, f'{places[0]}/autotagging-train.tsv')
    for split, path in found:
      yield from self._split_rows(path, split, licences)

  def _split_rows(self, path, split, licences):
    table = rows.read_table(path, '\t')
    rows.check_columns(path, next(table, []), COLUMNS)
    for row in table:
      if len(row) < len(COLUMNS) or not row[3].endswith('.mp3'):
        yield rows.Malformed(row[0][:80], f'{len(row)} columns, PATH {row[3:4]}')
        continue
      track, artist, album, mp3, duration, *tags = row
      labels = tuple(filter(None, tags))
      licence, attribution = licences.get(mp3, ('', ''))
      stem = mp3.removesuffix('.mp3')
      yield rows.Row(id=track, split=split, cut=(stem, f'{stem}.low'), labels=labels,
                     audio_caption=self.caption([tag.rpartition('---')[2] for tag in labels]),
                     licence=licence, metadata={'artist_id': artist, 'album_id': album,
                                                'duration': duration, 'attribution': attribution})


def _licences(folder) -> dict:
  """Mapping {path: (licence, attribution)}."""
  path = folder / 'audio_licenses.txt'
  if not path.is_file():
    return {}
  blocks = path.read_text(encoding='utf-8', errors='replace').split('\n\n')
  lines = [[line.strip() for line in block.strip().splitlines()] for block in blocks]
  return {block[0]: (block[2], block[1]) for block in lines if len(block) >= 3}
