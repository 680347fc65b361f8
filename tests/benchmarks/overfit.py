"""Does training learn on real clips, and which guidance do no harm there? A few clips by heart.

    python -m tests.benchmarks.overfit --clips=FOLDER [--workdir=runs/overfit] [--count=8]
        [--words=hammer,drum] [--steps=1600] [--only='NAME;NAME']

Takes the first clips of FOLDER whose captions (captions.csv) have one of the words, trains V2A at
scale nano on them from the bundled towers, samples the same clips at each of the settings, and
scores their onsets against the clips' own. Luck, the control, is the score against the other clips.
Brackets are 95 %, bootstrap over clips; the second pair is of the difference to the paper's
guidance, 5 at every step. A run that was interrupted goes on, and `overfit.json` in the workdir
keeps the rows that are done. The same settings on impacts: `python -m tests.benchmarks.sampling
v2a --only='guidance 2;guidance 3'`.
"""

import argparse
import csv
import json
import pathlib
import shutil

from avlink_jax.configs import v2a
from avlink_jax.evaluate import evaluate
from avlink_jax.sample import sample
from avlink_jax.storage.atomic import write_text
from avlink_jax.train import train
from tests.benchmarks.sampling import GUIDANCES, PAPER, shown

WORDS = ('bongo', 'conga', 'drum', 'gun shooting', 'hammer')  # acts that are hits


def choose(folder, words, count):
  """{path: caption} of the first clips that have one of the words in their captions."""
  with pathlib.Path(folder, 'captions.csv').open(newline='') as file:
    captions = {row['file']: row['caption'] for row in csv.DictReader(file)}
  chosen = [name for name in sorted(captions)
            if any(word in captions[name].lower() for word in words)][:count]
  return {pathlib.Path(folder, name).resolve(): captions[name] for name in chosen}


def prepare(clips, folder):
  """Makes a data source of clips that are trained on and sampled alike."""
  rows = [('file', 'caption')]
  for split in ('train', 'test'):
    (folder / split).mkdir(parents=True, exist_ok=True)
    for path, caption in clips.items():
      shutil.copy(path, folder / split / path.name)
      rows.append((f'{split}/{path.name}', caption))
  with (folder / 'captions.csv').open('w', newline='') as file:
    csv.writer(file).writerows(rows)


def scored(config, run, folder, settings):
  """Scores of the clips, sampled with settings of `config.sample`."""
  config = config.copy_and_resolve_references()
  config.sample.update(PAPER | settings)
  sample(config, run, output=folder, seed=0, explicit=True)
  scores = evaluate(str(folder), f'{folder}/reference')
  return {'scores': {name: value for name, value in scores.items() if isinstance(value, float)},
          'per_clip': {row['id']: row for row in scores['per_clip']}}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--clips', required=True, help='folder of real clips with captions.csv')
  parser.add_argument('--workdir', type=pathlib.Path, default='runs/overfit')
  parser.add_argument('--count', type=int, default=8)
  parser.add_argument('--words', default=','.join(WORDS), help='of captions, with commas')
  parser.add_argument('--steps', type=int, default=1600)
  parser.add_argument('--only', default='', help='names of settings, with semicolons')
  options = parser.parse_args()
  clips = choose(options.clips, options.words.lower().split(','), options.count)
  prepare(clips, options.workdir / 'clips')
  config, run = v2a.get_config('nano'), options.workdir / 'run'
  config.data.source = str(options.workdir / 'clips')
  config.train.steps, config.checkpoint.every = options.steps, 100
  config.sample.count = len(clips)
  if not (run / 'weights.safetensors').exists():  # which a run writes at its end
    train(config, run)
  path = options.workdir / 'overfit.json'
  rows = json.loads(path.read_text()) if path.exists() else {}
  for name in dict.fromkeys(['paper', *filter(None, options.only.split(';'))]
                            if options.only else GUIDANCES):
    if name not in rows:
      rows[name] = scored(config, run, options.workdir / 'samples' / name.replace(' ', '_'),
                          GUIDANCES[name])
      write_text(path, json.dumps(rows))
    row = rows[name]
    print(f'{name:24}{shown(row, rows["paper"], "onset_f1")}  luck '
          f'{row["scores"]["control_onset_f1"]:.3f}  onsets '
          f'{sum(r["generated_onsets"] for r in row["per_clip"].values())} of '
          f'{sum(r["reference_onsets"] for r in row["per_clip"].values())}', flush=True)


if __name__ == '__main__':
  main()
