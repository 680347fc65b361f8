"""Movie Gen Bench (Polyak et al., 2024): prompts, and the videos that Movie Gen made of them.

`MovieGenAudioBenchSfx.jsonl` has id, video_prompt, audio_prompt; `MovieGenAudioBenchSfxMusic.jsonl`
music_prompt as well; `MovieGenVideoBench.txt` a prompt a line (all in benchmark/ of
github.com/facebookresearch/MovieGenBench). The archive of the Sfx videos holds
MovieGenAudioBenchSfx/video_with_audio/ID.mp4. Not verified: that the archives of the other two are
laid out the same, and that the videos of the video bench are numbered by the prompts' lines from 0.

There is no reference sound: what the videos sound like, another model made. Its examples say so in
their metadata (`"sound": "generated"`), and source.py gives them without.
"""

import json
from pathlib import Path

import tensorflow_datasets as tfds

from avlink_jax.data.datasets import rows
from avlink_jax.data.datasets.builder import MediaDataset
from avlink_jax.errors import UserError

LISTS = {'audio': 'MovieGenAudioBenchSfx.jsonl', 'audio_music': 'MovieGenAudioBenchSfxMusic.jsonl',
         'video': 'MovieGenVideoBench.txt'}
LICENCE = 'CC BY-NC 4.0'


class MovieGenBench(MediaDataset):
  """Movie Gen Bench: videos with prompts, all of it the test split. Its configs are its benches."""
  MANUAL_DOWNLOAD_INSTRUCTIONS = """
  by the config, MovieGenAudioBenchSfx.jsonl (audio, the default), MovieGenAudioBenchSfxMusic.jsonl
  (audio_music) or MovieGenVideoBench.txt (video), and the unpacked archive of its videos, in a
  folder of the list's name: MovieGenAudioBenchSfx/video_with_audio/0.mp4, …
  """
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name, description=Path(file).stem)
                     for name, file in LISTS.items()]
  NEEDS_VIDEO, NEEDS_AUDIO = True, False
  HOMEPAGE = 'https://github.com/facebookresearch/MovieGenBench'

  def rows(self, folder):
    bench = self.builder_config.name
    name = LISTS[bench]
    path, videos = rows.find_list(folder, name, f'benchmark/{name}'), Path(name).stem
    for record in _lines(path) if name.endswith('.txt') else _json_lines(path, bench):
      if isinstance(record, rows.Malformed):
        yield record
        continue
      number = str(record['id'])
      prompts = (record.get('audio_prompt', ''), record.get('music_prompt', ''))
      yield rows.Row(
        id=number, split='test', audio_caption=' '.join(filter(None, prompts)),
        cut=(f'{videos}/video_with_audio/{number}', f'{videos}/{number}'),
        video_caption=record['video_prompt'], licence=LICENCE,
        metadata={**record, 'sound': 'generated'})


def _lines(path):
  lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
  return ({'id': n, 'video_prompt': line.strip()} for n, line in enumerate(lines) if line.strip())


def _json_lines(path, bench):
  expected = ('id', 'video_prompt', 'audio_prompt') + ('music_prompt',) * (bench == 'audio_music')
  for number, line in enumerate(path.read_text(encoding='utf-8', errors='replace').splitlines(), 1):
    if not line.strip():
      continue
    try:
      record = json.loads(line)
      fits = all(isinstance(record[name], str | int) for name in expected)
    except (ValueError, LookupError, TypeError, RecursionError):
      fits = False
    if fits:
      yield record
    elif number == 1:
      raise UserError(f'{path}: its first line is {line[:80]!r}; expected JSON with '
                      f'{", ".join(expected)}')
    else:
      yield rows.Malformed(f'line {number}', f'not JSON with {", ".join(expected)}')
