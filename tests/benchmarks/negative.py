"""Does a negative prompt keep away what it names? A probe of materials is asked.

    python -m tests.benchmarks.negative [t2a v2a ...] [--clips=64] [--steps=64]

Held-out clips of impacts get audio three times from the same noise: without a negative prompt, with
one that names the material that the clip is of, and with one that names another. Each line says how
often the probe (metrics/material.py) hears the clip's own material, and the differences between
these with 95 % intervals, by bootstrap over clips. V2A is tried with the
clips' captions and with no prompt at all, where the material is in the picture alone.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping

import numpy as np

import avlink_jax
from avlink_jax.data import pipeline
from avlink_jax.data.impacts import Impacts
from avlink_jax.data.impacts.materials import MATERIALS
from avlink_jax.metrics import bootstrap, material
from avlink_jax.sampling import inputs


@dataclasses.dataclass(frozen=True)
class Told(inputs.Inputs):
  """Inputs of which each clip has a negative prompt of its own, {id: text}; '' is none."""
  negatives: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def prompts(self, clip, generate):
    return super().prompts(clip, generate) | {
        f'{name}_negative': self.negatives[clip.id] for name in generate}


def words(name):
  """Negative prompt that names a material."""
  return f'{MATERIALS[name].adjective}, {MATERIALS[name].heard}'


def answers(model, clips, given, negatives, **changes):
  """What the probe hears in the audio that is generated for each clip: {id: material or None}."""
  exporter = model.exporter(**changes)
  told = Told(clips, given=given, negatives=negatives)
  return {clip.id: material.named(sample['audio'], model.task.models.layout.sample_rate)
          for clip, _, sample in exporter.samples(model.trained, clips, told, seed=0)}


def shares(task, count, bare=False, **changes):
  """Share of clips whose own material is heard without a negative prompt, 'plain', and with one
  that names it, 'own', or another, 'other'; and differences [mean, low, high]."""
  model = avlink_jax.load(f'{task}:nano', config={'sample.upsample': False})
  source = pipeline.open_source(model.config, model.task.models.layout, 'test', model.task.needed)
  clips, _ = inputs.read_clips(source, count, model.task.models)
  world, names = Impacts('test'), list(MATERIALS)
  own = {}
  for i, clip in enumerate(clips):
    scene = world.scene(i)
    own[clip.id] = material.heard([scene.pairs[k] for k in scene.pair])
  other = {id: names[(names.index(name) + 1 + i % (len(names) - 1)) % len(names)]
           for i, (id, name) in enumerate(own.items())}
  given = inputs.Prompts('', '') if bare else inputs.Prompts()
  right = {}
  for what, named in (('plain', None), ('own', own), ('other', other)):
    heard = answers(model, clips, given, {
        id: words(named[id]) if named else '' for id in own}, **changes)
    right[what] = np.array([float(heard[id] == own[id]) for id in own])
  report = {what: round(float(values.mean()), 3) for what, values in right.items()}
  for what, from_what in (('own', 'plain'), ('other', 'plain'), ('own', 'other')):
    difference = right[what] - right[from_what]
    low, high = bootstrap.intervals({what: list(difference)})[what]
    report[f'{what} - {from_what}'] = [round(float(difference.mean()), 3), round(low, 3),
                                       round(high, 3)]
  return report


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('tasks', nargs='*', default=['t2a', 'v2a'])
  parser.add_argument('--clips', type=int, default=64)
  parser.add_argument('--steps', type=int, default=64)
  flags = parser.parse_args(argv)
  for task in flags.tasks:
    for bare in (False, True) if task != 't2a' else (False,):
      print(json.dumps({'task': task, 'clips': flags.clips, 'steps': flags.steps,
                        'prompts': 'none' if bare else 'captions'} | shares(
                            task, flags.clips, bare, steps=flags.steps)), flush=True)


if __name__ == '__main__':
  main()
