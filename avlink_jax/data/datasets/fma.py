"""FMA, the Free Music Archive's dump (Defferrard et al., ISMIR 2017).

`fma_metadata/tracks.csv` has a header of two rows (group, column) and a third that only names the
first column, track_id; `genres.csv` has genre_id and title. Track 2's file is 000/000002.mp3 below
fma_small, fma_medium, fma_large (clips of 30 s) or fma_full (whole tracks). (set, subset) of a
track is the smallest it is in, and small lies in medium, medium in large; (set, split) is
training, validation or test; (track, genres) lists genre ids. Source: github.com/mdeff/fma.
"""

import ast

import tensorflow_datasets as tfds

from avlink_jax.data.datasets import rows
from avlink_jax.data.datasets.builder import MediaDataset

SUBSETS = {'small': ('small',), 'medium': ('small', 'medium'), 'large': (), 'full': ()}  # (): all
SPLITS = {'training': 'train', 'validation': 'validation', 'test': 'test'}
COLUMNS = (('set', 'split'), ('set', 'subset'), ('track', 'genre_top'), ('track', 'genres'),
           ('track', 'license'), ('track', 'title'), ('artist', 'name'))


class Fma(MediaDataset):
  """FMA: music with genres. Its configs are the published sizes."""
  MANUAL_DOWNLOAD_INSTRUCTIONS = """
  fma_metadata/tracks.csv and fma_metadata/genres.csv, and the unpacked fma_small, fma_medium,
  fma_large or fma_full (000/000002.mp3, …), by the config: --config=small and so on.
  """
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name, description=f'fma_{name}')
                     for name in SUBSETS]
  TEMPLATE = '{label} music'
  HOMEPAGE = 'https://github.com/mdeff/fma'

  def rows(self, folder):
    titles = _genres(rows.find_list(folder, 'fma_metadata/genres.csv', 'genres.csv'))
    wanted, own = SUBSETS[self.builder_config.name], f'fma_{self.builder_config.name}'
    # Where the config's own folder is, only its files count: a track's clip is not the track.
    prefix = f'{own}/' if (folder / own).is_dir() else ''
    for track in _tracks(rows.find_list(folder, 'fma_metadata/tracks.csv', 'tracks.csv')):
      if isinstance(track, rows.Malformed):
        yield track
      elif not wanted or track['set', 'subset'] in wanted:
        yield self._row(track, titles, prefix)

  def _row(self, track, titles, prefix):
    number = track['track_id']
    split = SPLITS.get(track['set', 'split'])
    try:
      genres = [titles[int(genre)] for genre in ast.literal_eval(track['track', 'genres'] or '[]')]
    except (ValueError, SyntaxError, TypeError, LookupError):
      genres = None
    if not number.isdecimal() or split is None or genres is None:
      return rows.Malformed(number[:80], 'its id, split or genres are not FMA’s')
    number = f'{int(number):06d}'
    labels = tuple(dict.fromkeys(filter(None, [track['track', 'genre_top'], *genres])))
    return rows.Row(
      id=number, split=split, cut=(f'{prefix}{number[:3]}/{number}',), labels=labels,
      audio_caption=self.caption(labels), licence=track['track', 'license'],
      metadata={'title': track['track', 'title'], 'artist': track['artist', 'name']})


def _genres(path) -> dict:
  records = rows.read_records(path, ('genre_id', 'title'))
  return {int(record['genre_id']): record['title'] for record in records
          if not isinstance(record, rows.Malformed) and record['genre_id'].isdecimal()}


def _tracks(path):
  """Yields {(group, column): value, 'track_id': id} of each track."""
  table = rows.read_table(path)
  header = list(zip(next(table, []), next(table, []), strict=False))
  rows.check_columns(path, ['/'.join(column) for column in header],
                     ['/'.join(column) for column in COLUMNS])
  for row in table:
    if row[0] == 'track_id':  # third row of the header
      continue
    if len(row) != len(header):
      yield rows.Malformed(row[0][:80], f'{len(row)} columns, not {len(header)}')
    else:
      yield {**dict(zip(header, row, strict=True)), 'track_id': row[0]}
