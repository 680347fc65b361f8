"""The prepare command on small clips, and what came of it."""

import json

import numpy as np

from avlink_jax.data.batch import Layout
from avlink_jax.data.media import mux
from avlink_jax.data.prepare import command as prepare
from avlink_jax.data.sources.records import Records

SIZE = ('--seconds=1', '--height=8', '--width=16', '--processes=1', '--shard_clips=3')
LAYOUT = Layout(1.0, 6.0, 8, 16)


def write_clip(path, level=100, seconds=1.0, sound=True, pictures=None):
  frames = pictures if pictures is not None else np.full(
      (round(seconds * 12), 36, 64, 3), level, np.uint8)
  wave = np.sin(np.arange(round(len(frames) / 12 * 16000)) * 0.05).astype(np.float32)
  path.parent.mkdir(parents=True, exist_ok=True)
  mux.write_mp4(path, frames=frames, fps=12, **(dict(audio=wave, sample_rate=16000)
                                                if sound else {}))


def run(source, output, *more, split='train'):
  return prepare.prepare([f'--source={source}', f'--output={output}', *SIZE, f'--splits={split}',
                          *more])


def rows(folder):
  return [json.loads(line) for line in (folder / 'skipped.jsonl').read_text().splitlines()]


def ids(folder, split='train', layout=LAYOUT, reads=('audio', 'video')):
  source = Records(folder, split, layout, reads)
  return [source.load(i).id for i in range(len(source))]
