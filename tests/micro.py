"""The smallest models that still have every part, and made-up data for them."""

import dataclasses
import functools
import importlib

import jax
import numpy as np

from avlink_jax import build as model_builder
from avlink_jax import tasks
from avlink_jax.build import example_shapes
from avlink_jax.codecs.codec import weights_shapes
from avlink_jax.sampling import sampler, windows
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.training import step as training

DISTINCT = 4_000_037  # random numbers; drawing those of models of full size takes a minute

# As the program is written, without what LLVM makes of it: compiles in half the time, and a sum
# is added up in the same order in whatever program it stands.
plain_jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})


@functools.cache
def quick_options():
  """Compiler options of `quick_jit`, as far as this release of XLA knows them."""
  known = {}
  for name, value in {'xla_backend_optimization_level': 0,
                      'xla_cpu_use_fusion_emitters': False}.items():
    try:
      jax.jit(lambda: 0, compiler_options={name: value})()
      known[name] = value
    except jax.errors.JaxRuntimeError:
      pass
  return known


def quick_jit(function):
  """By XLA's older emitters: in half of plain_jit's time again, but sums may be added up otherwise
  in another program, so that nothing compares bit for bit."""
  return jax.jit(function, compiler_options=quick_options())


def micro_config(task, **changes):
  """`configs/TASK.py:nano`, shrunk, on pixels as at larger scales: 1 s, 50 latents in 13 tokens, 6
  pictures in 24 tokens; then `changes` of it, {'fusion.reinject': False}."""
  config = importlib.import_module(f'avlink_jax.configs.{task}').get_config('nano')
  config.data.update(seconds=1.0, height=8, width=16)
  config.codec.update(width=8, latent_channels=4, multipliers=(1, 2))
  config.text.update(width=16, heads=2)
  for tower, patch in (('audio', (4,)), ('video', (1, 4, 8))):
    config.towers[tower].update(width=16, depth=2, heads=2, mlp=32, patch=patch)
  config.towers.video.hidden = 8
  config.video_codec.update(width=8, latent_channels=4)
  if task in ('video_vae', 'upsampler'):  # 24 pictures, whose latents are on the grid of the base's
    config.data.update(height=64, width=128, crop_height=0, crop_width=0)
  elif task != 'base_vae':
    config.towers.video.update(codec='pixels', prediction='data', detail=0.04, refine=0)
    config.frozen.video_codec = ''
  if config.towers.video.local:
    config.towers.video.local = 8
  if 'fusion' in config:
    config.fusion.update(width=16, heads=2, mlp=32, rank=4, contrast=2.0)
  config.train.update(batch_size=4, warmup_steps=2, decay_steps=0, learning_rate=1e-2,
                      optimizer='adamw')
  config.update_from_flattened_dict(changes)
  return config


def build(config):
  """ConfigDict -> (models, task)."""
  models = model_builder.build(config)
  return models, tasks.make(config, models)


def random_like(shapes, seed):
  """Parameters (of `jax.eval_shape(model.init, key)`) with nothing left at zero, all of them of
  about the size that keeps activations near one: what other people's training might have left.
  Far quicker than compiling `init`. Arrays of more than DISTINCT numbers repeat so many."""
  rng = np.random.default_rng(seed)

  def one(path, leaf):
    name = path[-1].key
    noise = rng.standard_normal(leaf.shape if leaf.size <= DISTINCT else DISTINCT)
    if name == 'kernel':
      noise *= 0.7 * leaf.shape[-2] ** -0.5
    else:
      noise = (name == 'scale') + 0.2 * noise
    noise = noise.astype(leaf.dtype)
    return noise if leaf.size <= DISTINCT else np.resize(noise, leaf.shape)

  return jax.tree_util.tree_map_with_path(one, shapes)


def random_params(model, seed=0):
  """`random_like` for anything with `init(key)`."""
  return random_like(jax.eval_shape(model.init, jax.random.key(0)), seed)


def frozen_of(models):
  """Frozen trees of a FlowTask, random all over."""
  codecs = {part: {'params': random_like(weights_shapes(codec)['params'], 0),
                   'std': np.float32(0.7)}
            for part, codec in frozen_parts.codecs(models).items()}
  return codecs | {'towers': {
      name: {'dit': random_like(frozen_parts.tower_shapes(modality.tower), i),
             'text': random_params(modality.text, i + 2)}
      for i, (name, modality) in enumerate(models.modalities.items()) if modality.prompted}}


def state_of(task, config, frozen, seed=0):
  """State at step 0 from random fusion parameters, so that no zero hides a gradient; what is
  fine-tuned is as in `frozen`."""
  shapes = jax.eval_shape(functools.partial(
      training.init, task, training.make_optimizer(config), config.seed), frozen)
  params = random_like(shapes.params, seed)
  if 'towers' in params:
    params['towers'] = {name: frozen['towers'][name]['dit'] for name in params['towers']}
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  return zeros.replace(params=params, ema=params)


def sampling(task, steps, jit=quick_jit):
  """Compiled sampler.generate: (params, frozen, batch, guidance=…) -> {name: X_1}, from the same
  noise each time, a window a clip."""
  schedule = dataclasses.replace(task.schedule, steps=steps)
  shapes = example_shapes(task.models)
  run = jit(functools.partial(sampler.generate, task, schedule))

  def sampled(params, frozen, batch, guidance=5.0):
    size = len(batch['video_mask'])
    tracks = {name: windows.track([np.zeros(1)] * size, shapes[name][0],
                                   task.codec(name).rate)
              for name in task.generate}
    return run(params, frozen, batch, noise_of(task, size),
               {name: (track.index, track.weight) for name, track in tracks.items()}, guidance,
               {name: task.config.sample.shift[name] for name in task.generate})

  return sampled


def identity_tracks(task, size):
  """Each clip one window: sampler.generate's `tracks`."""
  lengths = {name: example_shapes(task.models)[name][0] for name in task.generate}
  return {name: (np.arange(size * n, dtype=np.int32).reshape(size, n), np.ones(n, np.float32))
          for name, n in lengths.items()}


def noise_of(task, size):
  """{name: X_0} of all that has noise in it."""
  rng = np.random.default_rng(0)
  return {name: rng.standard_normal((size, *shape), np.float32)
          for name, shape in sampler.noise_shapes(task).items()}


def batch_of(models, size=4, seed=0):
  """One batch of noise in the layout of data/batch.py; the last example is half padding."""
  rng, layout = np.random.default_rng(seed), models.layout
  audio = models.modalities['audio'].codec
  mel_frames = audio.frames(layout)
  video_mask = np.ones((size, layout.frames), bool)
  audio_mask = np.ones((size, mel_frames), bool)
  video_mask[-1, layout.frames // 2:] = audio_mask[-1, mel_frames // 2:] = False
  prompts = ['a ball', '', 'drops on tin', 'clang'] * size
  video = (size, layout.frames, layout.height, layout.width, 3)
  tower = models.towers['video']
  features = {} if tower.depth else {'video_features': rng.standard_normal(
      (size, layout.frames, tower.width)).astype(np.float32)}
  return features | {
      'video': rng.integers(0, 256, video, np.uint8),
      'video_mask': video_mask,
      'mel': rng.normal(-5, 2, (size, mel_frames, audio.spec.n_mels)).astype(np.float32),
      'audio_mask': audio_mask,
      'video_text': models.modalities['audio'].text.prepare(prompts[:size]),
      'audio_text': models.modalities['audio'].text.prepare(prompts[1:size + 1]),
  }
