"""AutoReCap (Haji-Ali et al., 'Taming Data and Transformers for Audio Generation'): captions of
YouTube's sounds, and of AudioSet's and VGGSound's.

The lists are JSON lines, {"YTID": {"intervals": [{"start": s, "end": s, "text": caption}, ...]}},
each perhaps with a comma at its end; the official downloader (github.com/snap-research/GenAU,
dataset_preperation/download.py) stores interval n of a video as FOLDER/YTID_00n.wav or .mp4, and
where an ID has several lines, counts the intervals of the later line first. So does this. Not
verified beyond that program: the names of the published lists other than
autocap_audioset_vggsounds.json.
"""

import json

from avlink_jax.data.datasets import rows
from avlink_jax.data.datasets.builder import MediaDataset
from avlink_jax.errors import UserError

EXPECTED = '{"YTID": {"intervals": [{"start": …, "end": …, "text": …}]}} on each line'


class Autorecap(MediaDataset):
  """AutoReCap: sounds with machine-made captions. All of it is the train split."""
  MANUAL_DOWNLOAD_INSTRUCTIONS = """
  the lists (autocap_audioset_vggsounds.json, …) in the folder itself, all *.json and *.jsonl there
  are read, as one; and what GenAU's download.py has stored, in any folders below:
    ID_000.wav, ID_000.mp4, …     interval 0 of the video's
    ID.*                          the whole recording, or the interval if it is no longer
  """
  HOMEPAGE = 'https://snap-research.github.io/GenAU/'

  def rows(self, folder):
    lists = sorted([*folder.glob('*.json'), *folder.glob('*.jsonl')])
    if not lists:
      rows.find_list(folder, 'autocap_audioset_vggsounds.json')
    videos = {}
    for path in lists:
      for item in _lines(path):
        if isinstance(item, rows.Malformed):
          yield item
        else:
          videos[item[0]] = item[1] + videos.get(item[0], [])
    for video, intervals in videos.items():
      for n, interval in enumerate(intervals):
        yield _row(video, n, interval)


def _lines(path):
  """Yields (YTID, intervals) of each line. Raises UserError where the first is none."""
  first = True
  with path.open(encoding='utf-8-sig', errors='replace') as file:
    for number, line in enumerate(file, 1):
      line = line.strip().removesuffix(',')
      if not line:
        continue
      try:
        videos = [(name, list(video['intervals'])) for name, video in json.loads(line).items()]
      except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        if first:
          raise UserError(f'{path}: its first line is {line[:80]!r}; expected {EXPECTED}') from None
        yield rows.Malformed(f'{path.name} line {number}', 'not a video with intervals')
        continue
      first = False
      yield from videos


def _row(video, n, interval):
  name = f'{video}_{n:03d}'
  try:
    start, end, text = float(interval['start']), float(interval['end']), interval.get('text')
  except (ValueError, LookupError, TypeError, AttributeError):
    return rows.Malformed(name, 'an interval without start and end')
  if not 0 <= start < end < 1e7:
    return rows.Malformed(name, f'an interval from {start:g} to {end:g} s')
  return rows.Row(id=name, split='train', cut=(name,), whole=(video,), start=start, end=end,
                  audio_caption=text if isinstance(text, str) else '',
                  metadata={'youtube_id': video, 'start_seconds': start, 'end_seconds': end})
