"""Do Fusion Blocks link towers of the published kind? The smallest of them, trained from nothing.

    python -m tests.benchmarks.linking WORK [--clips=64] [--only=codec,t2v,t2a,true,even]

On impacts, at nano scale: a video autoencoder that halves time (its first latent is one picture,
the others are of two, as Wan's is of one and of four), towers of kind wan on its latents and on
those of the bundled 1D-VAE, and V2A between them, frozen, for 1,600 steps. `true` has the latents'
own times; `even` is told that all are as long, which is wrong by half a latent. Prints the event F1
of held-out clips, that of luck (the control), and the interval of the difference between the two.
Takes hours of a core; a run that was interrupted goes on, and what is done stays.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from unittest import mock

import numpy as np

from avlink_jax.codecs.video_latents import VideoLatents
from avlink_jax.configs import base_vae, t2a, t2v, v2a
from avlink_jax.evaluate import evaluate
from avlink_jax.metrics import bootstrap
from avlink_jax.sample import sample
from avlink_jax.storage import weights
from avlink_jax.storage.atomic import write_text
from avlink_jax.train import train

NANO = 'nano'
FRAMES = 5  # of an example of the autoencoder: three latents, of 1, 2 and 2


def codec(work):
  del work
  c = base_vae.get_config(NANO)
  c.video_codec.time_halvings = 1
  c.data.seconds, c.train.batch_size = FRAMES / c.data.fps, 8
  c.train.steps, c.train.decay_steps = 3_000, 1_500
  return c


def wan_video(c, work):
  """Puts a tower of kind wan on the latents of that autoencoder."""
  small = t2v.get_config(NANO)
  c.towers.video = small.towers.video
  c.towers.video.update(kind='wan', prediction='velocity', refine=0)
  c.video_codec.time_halvings = 1
  c.frozen.video_codec = str(work / 'codec')
  return c


def video(work):
  c = wan_video(t2v.get_config(NANO), work)
  c.train.steps, c.train.decay_steps = 2_000, 700
  c.sample.count, c.sample.upsample = 4, False
  return c


def audio(work):
  del work
  c = t2a.get_config(NANO)
  c.towers.audio.kind = 'wan'
  c.train.steps, c.train.decay_steps = 4_000, 1_500
  return c


def linked(work):
  c = wan_video(v2a.get_config(NANO), work)
  c.towers.audio.kind = 'wan'
  c.frozen.audio, c.frozen.video = str(work / 't2a'), str(work / 't2v')
  c.train.optimizer = 'muon'
  return c


def even(self, count):
  """What `even` takes for the latents' times: as if each were as long."""
  return np.arange(count) / self.rate


RUNS = {'codec': codec, 't2v': video, 't2a': audio, 'true': linked, 'even': linked}


def scored(config, run, clips):
  """Scores of held-out clips, kept beside the run."""
  path = run / 'scores.json'
  if not path.exists():
    config.sample.count = clips
    config.sample.update(config.sample.fast)
    sample(config, run, output=run / 'held-out', seed=0, explicit=True)
    scores = evaluate(str(run / 'held-out'), str(run / 'held-out' / 'reference'))
    write_text(path, json.dumps({
        'event_f1': scores['event_f1'], 'control': scores['control_event_f1'],
        'per_clip': {row['id']: row['event_f1'] for row in scores['per_clip']}}))
  return json.loads(path.read_text())


def stage(name, work, clips):
  """Trains one of RUNS, unless that is done, and scores it if it is linked."""
  run, config = work / name, RUNS[name](work)
  with mock.patch.multiple(VideoLatents, **({'seconds': even} if name == 'even' else {})):
    if not (run / weights.OF_RUN).exists():
      train(config, run)
    if RUNS[name] is linked:
      row = scored(config, run, clips)
      low, high = bootstrap.intervals({'f1': list(row['per_clip'].values())})['f1']
      print(f'{name:5} event F1 {row["event_f1"]:.3f} [{low:.3f}, {high:.3f}], '
            f'control {row["control"]:.3f}', flush=True)


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('work', type=pathlib.Path)
  parser.add_argument('--clips', type=int, default=64)
  parser.add_argument('--only', default=','.join(RUNS))
  options = parser.parse_args()
  names = options.only.split(',')
  for name in names:
    # Of its own process each: equal towers are traced once, whatever times they were told.
    if len(names) > 1:
      subprocess.run([sys.executable, '-m', 'tests.benchmarks.linking', options.work,
                      f'--clips={options.clips}', f'--only={name}'], check=True)
    else:
      stage(name, options.work, options.clips)
  if {'true', 'even'} <= {*names}:
    true, wrong = (json.loads((options.work / name / 'scores.json').read_text())['per_clip']
                   for name in ('true', 'even'))
    low, high = bootstrap.intervals({
        'difference': [true[clip] - value for clip, value in wrong.items()]})['difference']
    print(f'true - even: [{low:+.3f}, {high:+.3f}]')


if __name__ == '__main__':
  main()
