"""The upsampler: at first the base model that looks at the small video, and trained as it was."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import scipy.stats
from einops import repeat
from micro import (
  build,
  micro_config,
  quick_jit,
  random_params,
  sampling,
  state_of,
)
from micro_upsampler import upsampler

from avlink_jax import build as model_builder
from avlink_jax import tasks
from avlink_jax.build import example_shapes
from avlink_jax.data import batch as batches
from avlink_jax.data.clip import Clip
from avlink_jax.errors import UserError
from avlink_jax.model.estimate import data_from_velocity
from avlink_jax.model.guided import Guided, GuidedInput
from avlink_jax.model.tower import Input
from avlink_jax.storage import weights
from avlink_jax.tasks import upsampler as upsampler_task
from avlink_jax.training import init_from
from configs import t2v as t2v_config
from configs import upsampler as upsampler_config


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with runs.quickly_compiled():
    yield


@functools.cache
def base():
  """The base model whose weights it begins with: (tower, its parameters with its text's)."""
  models, _ = build(micro_config('t2v'))
  return models.towers['video'], {'dit': random_params(models.towers['video'], 5),
                                  'text': random_params(models.modalities['audio'].text, 6)}


def begun(tmp_path, given=None, **changes):
  """State at step 0 after `train.init_from` of a file that holds `given` (default: the base's)."""
  task, frozen, _ = upsampler()
  if changes:
    task = build(micro_config('upsampler', **changes))[1]
  weights.save(tmp_path / 'base.safetensors', {'params': given or base()[1]}, {})
  state = state_of(task, task.config, frozen, seed=9)
  state = jax.tree.map(jnp.asarray, state)
  dit = state.params['dit']
  for silent in (dit['head']['local']['out'], dit['embed']['latent_time']['Dense_1']):
    silent.update({name: jnp.zeros_like(x) for name, x in silent.items()})  # as `init` has them
  return init_from.start(state, str(tmp_path / 'base.safetensors'), task)


def told(call, *args, **kwargs):
  with pytest.raises(UserError) as error:
    call(*args, **kwargs)
  assert '\n' not in str(error.value)
  return str(error.value)


# Where it begins

def test_its_grid_is_that_of_the_base_model():
  config = upsampler_config.get_config('paper')
  config.text.encoder = 'words'  # whose weights nobody needs
  paper = model_builder.build(config)
  assert example_shapes(paper)['video'] == (31, 36, 64, config.video_codec.latent_channels)
  assert tasks.make(config, paper).guide.shape == (31, 36, 64, 3)
  tower, base_tower = (model_builder.build(c).towers['video'] for c in (config, t2v_paper()))
  assert isinstance(tower, Guided)
  grid = example_shapes(paper)['video'][:-1]
  # A latent is of four frames at 24 a second, of which the base model sees the first.
  np.testing.assert_allclose(tower.token_seconds(grid), base_tower.token_seconds(grid) + 1.5 / 24)


def t2v_paper():
  config = t2v_config.get_config('paper')
  config.text.encoder = 'words'
  return config


def test_at_first_it_is_the_base_model_that_looks_at_the_small_video(tmp_path, capsys):
  """The same tokens after all blocks, whatever the latents and their time are."""
  task, _, batch = upsampler()
  narrow, given = base()
  wide, params = task.models.towers['video'], begun(tmp_path).params
  assert 'widened by inputs of zero weight: dit/embed/patch/kernel' in capsys.readouterr().err
  rng = np.random.default_rng(0)
  low = rng.standard_normal((2, *task.guide.shape), np.float32)
  text = task.models.modalities['audio'].text.encode(given['text'], batch['video_text'])
  seen = np.array([0.3, 0.9], np.float32)
  mask = task.mask(batch, 'video')
  small = Input(low, seen, *text, mask)
  tokens = lambda tower: quick_jit(  # noqa: E731
      lambda p, i: tower.segment(p, 0, tower.depth, tower.embed(p, i)).tokens)
  wanted = tokens(narrow)(given['dit'], small)
  for t in (0.0, 0.7):
    latents = rng.standard_normal((2, *example_shapes(task.models)['video']), np.float32)
    guess = rng.standard_normal(latents.shape, np.float32)
    both = GuidedInput(latents, np.full(2, t, np.float32), *text, mask,
                       guide=np.concatenate([low, guess], -1), guide_t=seen)
    np.testing.assert_allclose(tokens(wide)(params['dit'], both), wanted, atol=2e-5)
  assert np.abs(wanted).max() > 1
  for a, b in zip(jax.tree.leaves(params['text']), jax.tree.leaves(given['text']), strict=True):
    np.testing.assert_array_equal(a, b)


def test_its_new_head_says_nothing_at_first():
  task, _, _ = upsampler()
  params = jax.jit(task.models.towers['video'].init)(jax.random.key(0, impl='unsafe_rbg'))
  assert not np.any(params['head']['local']['out']['kernel'])
  silent = params['embed']['latent_time']['Dense_1']
  assert not np.any(silent['kernel']) and not np.any(silent['bias'])


def test_weights_of_another_base_are_named_with_their_shapes(tmp_path):
  _, given = base()
  deeper = jax.tree.map(lambda x: np.concatenate([x, x]), given['dit']['blocks'])
  said = told(begun, tmp_path, {**given, 'dit': {**given['dit'], 'blocks': deeper}})
  assert 'train.init_from' in said and 'of another model' in said
  assert '(4, 16, 32) in the file, (2, 16, 32) in the model' in said and 'and ' in said
  assert 'dit/blocks/' in said
  assert 'missing in the file' in told(begun, tmp_path, {'other': {'kernel': np.zeros((2, 2))}})


def test_a_base_with_other_patches_gives_its_blocks(tmp_path, capsys):
  params = begun(tmp_path, **{'towers.video.patch': (1, 2, 4)}).params
  assert '13 begin anew' in capsys.readouterr().err
  for a, b in zip(jax.tree.leaves(params['dit']['blocks']),
                  jax.tree.leaves(base()[1]['dit']['blocks']), strict=True):
    np.testing.assert_array_equal(a, b)


# What it is given

def test_the_small_video_is_every_fourth_frame_a_block_of_pixels_each():
  task, _, batch = upsampler()
  rng = np.random.default_rng(0)
  small = rng.integers(0, 256, (2, 6, 8, 16, 3), np.uint8)
  large = repeat(small, 'b t h w c -> b (t s) (h p) (w q) c', s=4, p=8, q=8).copy()
  large[:, 1::4] = large[:, 2::4] = large[:, 3::4] = 0
  wanted = small / 127.5 - 1
  np.testing.assert_allclose(task.guide.small({'video': large}), wanted, atol=1e-5)
  np.testing.assert_allclose(task.guide.small({'video': large, 'low': small}), wanted, atol=1e-6)
  clip = Clip('x', 1.0, large[0], np.arange(24) / 24, np.zeros(0, np.float32), 16000)
  np.testing.assert_array_equal(batches.low_video(clip, 0.0, (6, 8, 16, 3), 6.0), small[0])
  already = dataclasses.replace(clip, frames=small[0], frame_times=np.arange(6) / 6)
  np.testing.assert_array_equal(batches.low_video(already, 0.5, (3, 8, 16, 3), 6.0), small[0, 3:])


def test_a_latent_is_real_where_one_of_its_frames_is():
  task, _, _ = upsampler()
  mask = np.zeros((3, 24), bool)
  mask[0] = mask[1, :13] = mask[2, :12] = True
  np.testing.assert_array_equal(task.mask({'video_mask': mask}, 'video').sum(1), [6, 4, 3])


def test_noise_is_added_as_its_time_says_and_the_time_follows_its_law():
  task, _, _ = upsampler()
  low = np.zeros((1, 1, 1, 1, 3), np.uint8)  # -1 everywhere
  size = 4000
  batch = {'low': np.broadcast_to(low, (size, *low.shape[1:]))}
  low_video = dataclasses.replace(task.guide, residual=False)
  guide = quick_jit(lambda key: low_video.draw({}, batch, key, (size,), lambda x: x))(
      jax.random.key(0))
  t, least = np.asarray(guide['guide_t']), task.config.flow.guide_time.low
  assert scipy.stats.kstest(t, scipy.stats.uniform(least, 1 - least).cdf).pvalue > 1e-3
  noise = (np.asarray(guide['guide']).reshape(size, 3) + t[:, None]) / (1 - t[:, None] + 1e-9)
  assert scipy.stats.kstest(noise[t < 0.99].ravel(), scipy.stats.norm.cdf).pvalue > 1e-3

  fixed = low_video.fixed({}, batch, {'low': np.ones((size, 1, 1, 1, 3))})
  told = task.config.sample.guide_time
  np.testing.assert_allclose(fixed['guide_t'], told)
  np.testing.assert_allclose(fixed['guide'], (1 - told) - told, rtol=1e-6)


def test_the_noise_of_a_part_is_its_own_of_the_whole_batchs():
  task, frozen, batch = upsampler()
  half = lambda x: x[1:]  # noqa: E731
  drawn = lambda batch, part: quick_jit(lambda: task.guide.draw(  # noqa: E731
      frozen, batch, jax.random.key(3), (2,), part))()
  whole = drawn(batch, lambda x: x)
  for name, x in drawn(jax.tree.map(half, batch), half).items():
    np.testing.assert_allclose(x, whole[name][1:], atol=1e-5)


def test_besides_it_is_given_the_latents_of_the_small_video_enlarged():
  """Frame 4n + k of that lies k/4 between pictures n and n + 1, and the last real one stays."""
  task, frozen, batch = upsampler()
  low = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 6, 8, 16, 3)).astype(np.float32)
  mask = np.ones((2, 6), bool)
  mask[1, 4:] = False
  large = np.array(jax.image.resize(low, (2, 6, 64, 128, 3), 'bicubic'))
  wanted = np.empty((2, 24, 64, 128, 3), np.float32)
  for clip, last in ((0, 5), (1, 3)):
    for n, k in np.ndindex(6, 4):
      after = large[clip, min(n + 1, last)]
      wanted[clip, 4 * n + k] = large[clip, n] + k / 4 * (after - large[clip, n])
  made = quick_jit(task.guide.enlarged)(low, mask)
  np.testing.assert_allclose(made[0], np.clip(wanted[0], -1, 1), atol=1e-5)
  np.testing.assert_allclose(made[1, :16], np.clip(wanted[1, :16], -1, 1), atol=1e-5)

  noise = {'low': np.zeros(low.shape)}  # at sample.guide_time 1 there is none
  shown = {**batch, 'low': np.round((low + 1) * 127.5).astype(np.uint8)}
  guide = quick_jit(lambda: task.guide.fixed(frozen, shown, noise))()['guide']
  codec = frozen['video_codec']
  again = quick_jit(task.codec('video').vae.encode)(
      codec['params'], codec['std'],
      quick_jit(task.guide.enlarged)(task.guide.small(shown), task.mask(batch, 'video')))
  np.testing.assert_allclose(guide, np.concatenate([task.guide.small(shown), again], -1), atol=1e-4)


def test_untrained_it_enlarges(tmp_path):
  """At its start it makes what the small video enlarged is: in latents, and as pictures, where the
  codec takes nothing of it away."""
  task, frozen, batch = upsampler()
  params = begun(tmp_path).params
  low = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 16, 3), np.uint8)
  made = sampling(task, 1)(params, frozen, {**batch, 'low': low}, guidance=1.0)['video']
  wanted = quick_jit(task.guide.enlarged)(task.guide.small({'low': low}), task.mask(batch, 'video'))
  codec = frozen['video_codec']
  latents = quick_jit(task.codec('video').vae.encode)(codec['params'], codec['std'], wanted)
  np.testing.assert_allclose(made, latents, atol=1e-3)
  np.testing.assert_allclose(task.large(frozen, made[0], low[0]), wanted[0], atol=2e-3)


@pytest.mark.parametrize('key, value, works', [
    ('data.seconds', 1.1, '1 or 1.167'), ('data.height', 60, '56 or 64'),
    ('data.width', 124, '120 or 128')])
def test_a_size_that_the_latents_do_not_divide_is_told_with_what_fits(key, value, works):
  assert f'{works} works' in told(build, micro_config('upsampler', **{key: value}))


# The loss

def test_of_a_residual_what_is_loud_stays_and_what_is_faint_goes():
  quieted = functools.partial(upsampler_task.denoised, noise=0.5)
  level = lambda value: np.full((1, 1, 32, 48, 3), value, np.float32)  # noqa: E731
  for value in (0.1, 0.5, -8.0):  # e / (e + noise²), where all is alike
    np.testing.assert_allclose(
        quieted(level(value)), level(value * value**2 / (value**2 + 0.25)), rtol=1e-5)
  np.testing.assert_array_equal(quieted(level(0)), level(0))
  np.testing.assert_array_equal(upsampler_task.denoised(level(0.1), 0.0), level(0.1))
  np.testing.assert_array_equal(upsampler_task.denoised(level(0), 0.0), level(0))
  # What is loud in one place stays there, and lets nothing through far from it.
  residual = 0.05 * np.random.default_rng(0).standard_normal((1, 2, 64, 96, 3)).astype(np.float32)
  residual[0, 0, :, :8] += 10
  made = quieted(residual)
  np.testing.assert_allclose(made[0, 0, :, :8], residual[0, 0, :, :8], rtol=0.02)
  assert np.abs(made[0, 0, :, 48:]).max() < 0.02 * np.abs(residual[0, 0, :, 48:]).max()
  assert np.abs(made[0, 1]).max() < 0.02 * np.abs(residual[0, 1]).max()  # nor into another picture


def test_the_loss_of_pixels_is_what_named_and_true_latents_decode_to():
  task, frozen, _ = upsampler()
  rng = np.random.default_rng(0)
  shape = (2, *example_shapes(task.models)['video'])
  x, velocity, target = (rng.standard_normal(shape, np.float32) for _ in range(3))
  counted = np.ones(shape[:2], bool)
  counted[1, 4:] = False
  inputs = Input(x, np.float32([0.2, 0.6]), None, None, counted)
  loss = lambda v, part: task.terms(  # noqa: E731
      frozen, {'video': inputs.replace(x=part(x), t=part(inputs.t))}, {'video': part(v)},
      {'video': part(target)}, {'video': counted}, part, jax.random.key(1))['pixels']
  whole = lambda x: x  # noqa: E731
  assert quick_jit(lambda: loss(target, whole)[1])() == 0
  weight, value = quick_jit(lambda: loss(velocity, whole))()
  assert weight == task.config.flow.pixel_weight > 0

  rows = [quick_jit(lambda part=part: loss(velocity, part)[1])()
          for part in (lambda x: x[:1], lambda x: x[1:])]
  np.testing.assert_allclose(sum(rows), value, rtol=1e-5)

  codec = frozen['video_codec']
  decode = quick_jit(task.codec('video').vae.decode)
  found = []
  for first in range(shape[1] - 2):  # the micro grid is no wider than the window
    named, true = (np.asarray(decode(codec['params'], codec['std'], np.asarray(
        data_from_velocity(x, v, inputs.t))[:, first:first + 3])) for v in (velocity, target))
    difference, real = named - true, np.repeat(counted[:, first:first + 3], 4, axis=1)
    steps = np.zeros((4, *difference.shape), np.float32)
    steps[0] = difference
    steps[1, :, 1:], steps[2, :, :, 1:], steps[3, :, :, :, 1:] = (
        np.diff(difference, axis=axis) for axis in (1, 2, 3))
    found.append(np.abs(steps)[:, real].mean((1, 2, 3, 4)).sum() if real.any() else 0)
  assert min(abs(np.array(found) - value)) < 1e-4 * value


def test_the_loss_of_a_known_velocity_is_in_closed_form(monkeypatch):
  """Where the tower says 0 the loss is the mean square of what it should say, over real latents:
  x1 constant and x0 standard normal, 1 + x1²."""
  task, frozen, batch = upsampler()
  monkeypatch.setattr(tasks.UpsamplerTask, 'clean', lambda self, frozen, batch, name: jnp.full(
      (len(batch['video']), 6, 8, 16, 4), 2.0))
  monkeypatch.setattr(tasks.UpsamplerTask, 'velocity', lambda self, params, frozen, inputs: {
      'video': jnp.zeros_like(inputs['video'].x)})
  monkeypatch.setattr(tasks.UpsamplerTask, 'encode', lambda self, towers, name, said: dict(
      text=None, text_mask=None))
  loss, (metrics, _) = quick_jit(lambda key: task.loss(
      {'dit': {}, 'text': {}}, {}, frozen, batch, key))(jax.random.key(0))
  assert metrics['mse_video'] == pytest.approx(5.0, rel=0.05)
  assert loss == pytest.approx(
      metrics['mse_video'] + task.config.flow.pixel_weight * metrics['pixels'])


@pytest.mark.slow
def test_everything_of_it_hears_the_loss_and_the_frozen_codec_does_not_move():
  task, frozen, batch = upsampler()
  config = micro_config('upsampler')
  params = state_of(task, config, frozen).params
  gradients, metrics = quick_jit(jax.grad(
      lambda p: task.loss(p, {}, frozen, batch, jax.random.key(0)), has_aux=True))(params)
  assert set(gradients) == {'dit', 'text'} and task.frozen_parts == ('video_codec',)
  silent = [jax.tree_util.keystr(path) for path, g in jax.tree_util.tree_leaves_with_path(gradients)
            if not np.abs(g).max() > 0]
  assert not silent
  assert metrics[0]['mse_video'] > 0
