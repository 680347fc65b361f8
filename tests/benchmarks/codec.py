"""How well 1D-VAEs reconstruct sounds they have not seen, and how sharp: a line a weights file.

    python -m tests.benchmarks.codec [--clips=64] [--folder=CLIPS] WEIGHTS.safetensors [...]
    python -m tests.benchmarks.codec --steps

The first prints, over the test clips of `impacts` (and those of a folder), the mean error of the
log-mel, and which part of its energy in modulations above 12.5 Hz and above 1/8 cycle a mel bin
is left (metrics/modulation.py; 1: all of it). The second times training steps at nano scale, by
the clock and by the processor's time, which other work on the machine disturbs less: with L1 and
KL alone, with the perceptual loss, with the discriminator too (which costs the same as it waits).
"""

import argparse
import functools
import time

import jax
import numpy as np

from avlink_jax import build as model_builder
from avlink_jax import tasks
from avlink_jax.data import batch as batches
from avlink_jax.data.impacts import Impacts
from avlink_jax.data.sources.folder import Folder
from avlink_jax.errors import MediaError
from avlink_jax.metrics import modulation
from avlink_jax.storage import weights
from avlink_jax.tasks.mel_vae import Mel
from avlink_jax.training import step as training
from configs import mel_vae
from tests.benchmarks.step import median_seconds

STEPS = {  # changes to configs/mel_vae.py:nano
    'L1 and KL': dict(perceptual='none', adversarial=False),
    '+ perceptual': dict(adversarial=False),
    '+ adversary': dict(),
}


def read(path):
  """(Layout, MelCodec, parameters, std) of a weights file of any scale."""
  tree, about = weights.read(path)
  built = model_builder.build(mel_vae.get_config(about.get('scale', 'nano')))
  codec = built.modalities['audio'].codec
  weights.fit(tree['params'], jax.eval_shape(codec.vae.init, jax.random.key(0)), path)
  return built.layout, codec, tree['params'], tree['stats']['std']


def mels(source, layout, codec, count):
  """Log-mels (T, n_mels) of a source's first clips, and which of their frames are real."""
  found, reader = [], Mel.of(codec)
  for i in range(min(count, len(source))):
    try:
      arrays = batches.read(source.load(i), 0.0, layout, reader)
    except MediaError as error:
      print(error)
      continue
    found.append((arrays['mel'], arrays[reader.mask_name]))
  return found


def scores(codec, params, std, clips):
  """Mean |error| of the log-mel, and the share of fast and of narrow detail that is kept."""
  vae = codec.vae
  reconstruct = jax.jit(lambda mel: vae.decode(params, std, vae.encode(params, std, mel)))
  errors, detail = [], []
  for mel, mask in clips:
    made = np.asarray(reconstruct(mel[None]))[0]
    errors.append(np.abs(made - mel)[mask].mean())
    detail.append(modulation.energies(mel[mask], made[mask], codec.spec.rate))
  kept = [np.divide(*np.sum([d[name] for d in detail], axis=0)[::-1])
          for name in ('time', 'frequency')]
  return np.mean(errors), *kept


def compare(paths, count, folder):
  print(f'{"weights":48} {"clips":>16} {"L1":>7} {"fast":>6} {"narrow":>6}')
  for path in paths:
    layout, codec, params, std = read(path)
    sources = {'impacts': Impacts('test')}
    if folder:
      sources[folder] = Folder(folder, height=layout.height, width=layout.width,
                               sample_rate=codec.sample_rate)
    for name, source in sources.items():
      clips = mels(source, layout, codec, count)
      made = scores(codec, params, std, clips)
      print(f'{path[-48:]:48} {name[-11:]:>11} {len(clips):4} '
            '{:7.4f} {:6.3f} {:6.3f}'.format(*made), flush=True)


def time_steps():
  for name, changes in STEPS.items():
    config = mel_vae.get_config('nano')
    config.codec_loss.update(changes)
    task = tasks.make(config, model_builder.build(config))
    optimizer = training.make_optimizer(config)
    state = jax.jit(functools.partial(training.init, task, optimizer, 0, {}))()
    size, (reader,) = config.train.batch_size, task.readers
    shape = (size, *reader.arrays(task.models.layout)['mel'][1])
    batch = {'mel': np.random.default_rng(0).standard_normal(shape, np.float32),
             'audio_mask': np.ones(shape[:2], bool)}
    update = jax.jit(functools.partial(training.train_step, task, optimizer, config)).lower(
        state, {}, batch).compile()
    jax.block_until_ready(update(state, {}, batch))
    started, repeats = time.process_time(), 10
    seconds = median_seconds(lambda: update(state, {}, batch)[0], repeats)  # noqa: B023
    busy = (time.process_time() - started) / repeats
    print(f'{name:12} {1e3 * seconds:5.0f} ms a step of {size}, '
          f'{1e3 * busy:5.0f} ms of processor', flush=True)


if __name__ == '__main__':
  parser = argparse.ArgumentParser()
  parser.add_argument('--clips', type=int, default=64)
  parser.add_argument('--folder')
  parser.add_argument('--steps', action='store_true')
  parser.add_argument('weights', nargs='*')
  given = parser.parse_args()
  if given.steps:
    time_steps()
  compare(given.weights, given.clips, given.folder)
