"""Whether generated pictures look as filmed ones do: tiles, grain, blur and, of `impacts`, bodies.

What a person sees in a second and the timing's figures do not: a clip whose blots move in time with
the sound scores well in these.
"""

import os
import pathlib

from avlink_jax.data.clip import resample_frames
from avlink_jax.data.media.decode import decode
from avlink_jax.errors import MediaError
from avlink_jax.evaluation import pairs as clips_on_disk
from avlink_jax.metrics import body, pictures
from avlink_jax.samples.folder import read_manifest

WORLD = 'impacts'  # data source whose bodies the detector knows
NAMES = ('picture_border', 'picture_gradient', 'picture_body', 'picture_body_surely')


def scores(generated: str | os.PathLike, reference: str | os.PathLike, pairs: list,
           theirs: dict) -> dict:
  """Scores of generated pictures and, with `reference_`, of the references', at the size and rate
  that the base model generates: {name: a value a clip}, None where there is none.

      picture_border       border_ratio (metrics/pictures.py) at the tokens' patches
      picture_gradient     mean_gradient there, of 255
      picture_body         share of frames in which the detector of metrics/body.py finds a body
      picture_body_surely  mean of its highest probability

  {} where no row of the manifest in `generated` has `base`, which a samples folder has for clips
  whose video was generated; the last two are of clips of `impacts`.

  Args:
    pairs: [Pair].
    theirs: {id: Files} of the references.
  """
  generated = pathlib.Path(generated)
  rows = {stem: row for row in read_manifest(generated) if _is_base(row.get('base'))
          for stem in clips_on_disk.stems(row)}
  if not any(pair.id in rows for pair in pairs):
    return {}
  world = {stem for row in read_manifest(reference) if row.get('source') == WORLD
           for stem in clips_on_disk.stems(row)}
  columns: dict[str, list] = {f'{side}{name}': [] for side in ('', 'reference_') for name in NAMES}
  for pair in pairs:
    row = rows.get(pair.id, {'files': {}})
    own = row['files'].get('low') or row['files'].get('video')
    for side, file in (('', generated / str(own)), ('reference_', theirs[pair.id].video)):
      values = (_measure(file, row['base'], pair.duration, pair.id in world)
                if own and file is not None else {})
      for name in NAMES:
        columns[side + name].append(values.get(name))
  return columns


def _is_base(base):
  """Tells whether a manifest's `base` says what it should."""
  return isinstance(base, dict) and {'height', 'width', 'fps', 'patch'} <= base.keys()


def _measure(file, base, seconds, of_world) -> dict[str, float | None]:
  """{name: score} of a file, by the manifest's `base`; {} where it has no pictures."""
  try:
    clip = decode(file, height=base['height'], width=base['width'], need_audio=False,
                  duration=seconds)
  except MediaError:  # of a pair that was known from before an interruption
    return {}
  frames, _ = resample_frames(clip, 0.0, max(1, int(seconds * base['fps'] + 1e-6)), base['fps'])
  values = {'picture_border': pictures.border_ratio(frames, base['patch']),
            'picture_gradient': pictures.mean_gradient(frames)}
  if of_world and (base['height'], base['width'], base['fps']) == (
      body.HEIGHT, body.WIDTH, body.FPS):
    values['picture_body'], values['picture_body_surely'] = body.scores(frames)
  return values
