"""Whether clips sound like the material that they should, where a manifest names materials."""

import os

from avlink_jax.data.media.decode import decode
from avlink_jax.errors import MediaError
from avlink_jax.evaluation import pairs as clips_on_disk
from avlink_jax.metrics import clip_figures, material
from avlink_jax.samples.folder import read_manifest

NAME = 'event_material'


def scores(reference: str | os.PathLike, pairs: list, ours: dict, theirs: dict, shifts) -> dict:
  """Shares of right answers of the probe of metrics/material.py: {name: a value a clip}, None where
  a clip has no materials or no sound; with the control (other clips' materials) and the
  reference's own. {} where no row of the reference's manifest has `materials`.

  Args:
    pairs: [Pair].
    ours, theirs: {id: Files} of the generated clips and of the references.
    shifts: rotations of the references for the control.
  """
  truth: dict[str, str] = {}
  for row in read_manifest(reference):
    if isinstance(row.get('materials'), list) and row['materials']:
      truth |= dict.fromkeys(clips_on_disk.stems(row), material.heard(row['materials']))
  wanted = [truth.get(pair.id) for pair in pairs]
  if not any(wanted):
    return {}
  said, said_by_truth = ([_named(files[pair.id].audio, pair.duration) for pair in pairs]
                         for files in (ours, theirs))

  def right(names):
    return lambda k, j: float(names[k] == wanted[j]) if names[k] and wanted[j] else None

  own, control = clip_figures.paired(right(said), len(pairs), shifts)
  true, _ = clip_figures.paired(right(said_by_truth), len(pairs), ())
  return {NAME: own, f'control_{NAME}': control, f'reference_{NAME}': true}


def _named(path, seconds):
  """Material that a file sounds like; None where it has no sound."""
  try:
    clip = decode(path, sample_rate=material.RATE, need_video=False, need_audio=False,
                  duration=seconds)
  except MediaError:  # of a pair that was known from before an interruption
    return None
  return material.named(clip.audio, material.RATE) if len(clip.audio) else None
