"""The Song Describer Dataset (Manco et al., 2023): captions of music by people, for evaluation.

`song_describer.csv`: caption_id, track_id, caption, is_valid_subset, familiarity, artist_id,
album_id, path, duration, one row a caption (1,106 of 706 tracks). The audio lies in
NN/TRACK.2min.mp3, NN the last two digits of the track's id: the first two minutes of an MTG-Jamendo
track, whose path and duration the csv gives. Source: Zenodo record 10072001 and
github.com/mulab-mir/song-describer-dataset; the data card names no split, so all of it is `test`.
"""

from avlink_jax.data.datasets import rows
from avlink_jax.data.datasets.builder import MediaDataset

COLUMNS = ('caption_id', 'track_id', 'caption', 'is_valid_subset', 'familiarity', 'artist_id',
           'album_id', 'path', 'duration')
SECONDS = 120.0
LICENCE = 'CC BY-SA 4.0 (the captions; each track has a Creative Commons licence of its own)'


class SongDescriber(MediaDataset):
  """Song Describer: an example is a caption with its track, so a track may come five times."""
  MANUAL_DOWNLOAD_INSTRUCTIONS = """
  song_describer.csv, and the unpacked audio.zip: 34/1004034.2min.mp3, …
  (an MTG-Jamendo track 34/1004034.mp3 serves too: its first two minutes are taken)
  """
  HOMEPAGE = 'https://zenodo.org/records/10072001'

  def rows(self, folder):
    path = rows.find_list(folder, 'song_describer.csv')
    for record in rows.read_records(path, COLUMNS):
      if isinstance(record, rows.Malformed):
        yield record
        continue
      track = record['track_id']
      tail = f'{track[-2:]}/{track}'
      yield rows.Row(
        id=record['caption_id'], split='test', cut=(f'{tail}.2min',), whole=(tail,), end=SECONDS,
        audio_caption=record['caption'], licence=LICENCE,
        metadata={name: record[name] for name in COLUMNS if name != 'caption'})
