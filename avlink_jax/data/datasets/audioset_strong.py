"""AudioSet's temporally strong labels (Hershey et al., ICASSP 2021), with their videos.

`audioset_train_strong.tsv` and `audioset_eval_strong.tsv` have the header segment_id,
start_time_seconds, end_time_seconds, label and one row an event. A segment_id is
YTID_STARTMILLISECONDS, of a segment of 10 s; an event's times count from the segment's start; the
label is a machine id, whose name `mid_to_display_name.tsv` gives (two columns, no header). Source:
research.google.com/audioset/download_strong.html. Train is `train`, eval is `test`.
"""

from avlink_jax.data.datasets import rows
from avlink_jax.data.datasets.builder import MediaDataset
from avlink_jax.data.datasets.vggsound import cut_names

SECONDS = 10
COLUMNS = ('segment_id', 'start_time_seconds', 'end_time_seconds', 'label')
LICENCE = 'CC BY 4.0 (the labels; the videos belong to their owners)'


class AudiosetStrong(MediaDataset):
  """AudioSet with strong labels: all distinct sound events of a clip, in the order they begin."""
  MANUAL_DOWNLOAD_INSTRUCTIONS = """
  audioset_train_strong.tsv and audioset_eval_strong.tsv (or one of them), mid_to_display_name.tsv,
  and the videos in any folders below, under one of the names
    ID_30000.*, ID_30000_40000.*, ID_000030.*, ID_30.*, ID_30_40.*    10 s from second 30 on
    ID.*                          the whole video, or the 10 s if it is no longer
  (with or without a Y before the ID)
  """
  NEEDS_VIDEO = True
  TEMPLATE = 'the sound of {label}'
  HOMEPAGE = 'https://research.google.com/audioset/download_strong.html'

  def rows(self, folder):
    names = _display_names(rows.find_list(folder, 'mid_to_display_name.tsv'))
    lists = {'train': 'audioset_train_strong.tsv', 'test': 'audioset_eval_strong.tsv'}
    if not any((folder / name).is_file() for name in lists.values()):
      rows.find_list(folder, *lists.values())  # reports what is missing
    for split, name in lists.items():
      if (folder / name).is_file():
        yield from self._split_rows(folder / name, split, names)

  def _split_rows(self, path, split, names):
    segments = {}  # an event a row, and nothing says that a segment's rows follow each other
    for record in rows.read_records(path, COLUMNS, '\t'):
      fault = record if isinstance(record, rows.Malformed) else _fault(record, names)
      if fault:
        yield fault
        continue
      segment, start, end, label = (record[name] for name in COLUMNS)
      segments.setdefault(segment, []).append((float(start), float(end), names[label]))
    for segment, events in segments.items():
      yield self._row(segment, split, sorted(events))

  def _row(self, segment, split, events):
    video, _, start_ms = segment.rpartition('_')
    start = int(start_ms) / 1000
    names = (segment, f'{video}_{int(start_ms)}_{int(start_ms) + 1000 * SECONDS}')
    if start.is_integer():
      names += cut_names(video, int(start), SECONDS)
    labels = tuple(dict.fromkeys(label for _, _, label in events))
    return rows.Row(
      id=segment, split=split, cut=names + tuple(f'Y{name}' for name in names),
      whole=(video, f'Y{video}'), start=start, end=start + SECONDS,
      audio_caption=self.caption([label.lower() for label in labels]), labels=labels,
      licence=LICENCE, metadata={'youtube_id': video, 'start_seconds': start, 'events': events})


def _display_names(path) -> dict:
  table = rows.first_fits(path, rows.read_table(path, '\t'),
                          lambda row: len(row) == 2 and row[0].startswith('/'), 'mid, display name')
  return {row[0]: row[1] for row in table if len(row) == 2}


def _fault(record, names):
  segment, start, end, label = (record[name] for name in COLUMNS)
  if not segment.rpartition('_')[2].isdecimal() or '_' not in segment:
    return rows.Malformed(segment[:80], 'not of the form YTID_STARTMILLISECONDS')
  if not (rows.is_seconds(start) and rows.is_seconds(end)):
    return rows.Malformed(segment, f'an event from {start[:20]!r} to {end[:20]!r}')
  return None if label in names else rows.Malformed(segment, f'label {label[:40]!r} has no name')
