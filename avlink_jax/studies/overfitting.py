"""Do generated clips repeat those that were trained on? App. D.3 asks it of a baseline.

    python -m avlink_jax.studies.overfitting --generated=DIR --training=DIR [--held_out=DIR] \\
        [--network=imagebind_video] [--networks=DIR] [--output=FILE.json]

For each generated clip the most similar training clip is found: the cosine of their embeddings,
means over each clip's rows. The paper has a mean of 0.825 of 500 videos, in CLIP's space, for a
model that copies. How similar other clips are depends on data and network: `--held_out`, clips that
nothing was trained on, gives the value to compare with. `--network` is one of metrics/README.md, of
video or audio.
"""

import argparse
import json
import sys

import numpy as np

from avlink_jax.errors import MISTAKE, MediaError, UserError
from avlink_jax.evaluation import pairs as clips_on_disk
from avlink_jax.storage.atomic import write_text
from avlink_jax.storage.console import Progress

SECONDS = 10.0  # of a clip, at most
SHOWN = 5  # pairs


def nearest(generated: dict, training: dict) -> list[dict]:
  """Rows {id, nearest, similarity} of {id: vector}, the most similar pairs first."""
  names = list(training)
  known = _unit(np.stack([training[name] for name in names]))
  rows = []
  for id, vector in generated.items():
    cosines = known @ _unit(vector)
    best = int(np.argmax(cosines))
    rows.append({'id': id, 'nearest': names[best], 'similarity': float(cosines[best])})
  return sorted(rows, key=lambda row: -row['similarity'])


def _unit(vectors):
  vectors = np.asarray(vectors, np.float64)
  return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def embedded(folder, flag: str, embedder) -> dict:
  """Mapping {id: mean embedding} of a folder's clips; unreadable ones are left out and told.

  Raises UserError: no such folder, or nothing in it can be used."""
  found = clips_on_disk.find(folder, flag)
  vectors, left_out, progress = {}, [], Progress(f'{flag}:', len(found))
  for id, files in found.items():
    try:
      if embedder.network.sees and files.video is None:
        raise MediaError(files.audio, 'no picture')
      path = files.video if embedder.network.sees else files.audio
      vectors[id] = embedder.clip(path, SECONDS)['embedding'].mean(0)
    except MediaError as error:
      left_out.append(str(error))
    progress.add(note=f'{len(left_out)} left out')
  if not vectors:
    raise UserError(f'{flag}={folder}: no clip can be used' + (
        f': {left_out[0]}' if left_out else ''))
  return vectors


def study(generated, training, held_out, embedder) -> dict:
  """Similarities of the generated clips, and of held-out ones, to the training clips."""
  known = embedded(training, '--training', embedder)
  result: dict = {'network': embedder.network.name, 'training_clips': len(known)}
  for name, folder in (('generated', generated), ('held_out', held_out)):
    if folder is not None:
      rows = nearest(embedded(folder, f'--{name}', embedder), known)
      result[name] = {'clips': len(rows), 'pairs': rows,
                      'mean': float(np.mean([row['similarity'] for row in rows]))}
  return result


def summary(result: dict) -> str:
  """Means, and the most similar pairs, as text."""
  lines = [f'{name}: mean similarity to the nearest of {result["training_clips"]} training clips '
           f'{result[name]["mean"]:.3f}, {result[name]["clips"]} clips ({result["network"]})'
           for name in ('generated', 'held_out') if name in result]
  return '\n'.join(lines + [f'  {row["similarity"]:.3f}  {row["id"]}  like  {row["nearest"]}'
                            for row in result['generated']['pairs'][:SHOWN]])


def main(argv=None) -> int:
  """Runs the command; exit status 0, or 2 for a user's mistake, reported in one line."""
  parser = argparse.ArgumentParser(prog='python -m avlink_jax.studies.overfitting',
                                   description=__doc__.splitlines()[0])
  parser.add_argument('--generated', required=True)
  parser.add_argument('--training', required=True)
  parser.add_argument('--held_out')
  parser.add_argument('--network', default='imagebind_video')
  parser.add_argument('--networks', help="folder with networks' weights")
  parser.add_argument('--output')
  options = parser.parse_args(argv)
  try:
    from avlink_jax.metrics.networks import loading
    from avlink_jax.metrics.networks.embedding import Embedder
    from avlink_jax.metrics.networks.registry import NETWORKS
    if options.network not in NETWORKS or NETWORKS[options.network].forward is None:
      raise UserError(f'--network={options.network}: no such network; there are '
                      + ', '.join(name for name in NETWORKS if NETWORKS[name].forward))
    embedder = Embedder(NETWORKS[options.network], loading.folder_of(options.networks))
    result = study(options.generated, options.training, options.held_out, embedder)
    if options.output:
      write_text(options.output, json.dumps(result, indent=1) + '\n')
  except UserError as error:
    print(f'avlink_jax: {error}', file=sys.stderr)
    return MISTAKE
  print(summary(result))
  return 0


if __name__ == '__main__':
  sys.exit(main())
