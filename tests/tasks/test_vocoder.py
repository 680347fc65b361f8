"""The vocoder's losses and its training: closed forms, padding, one step of the trainer."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from micro import plain_jit, random_params

from avlink_jax.codecs import hifigan_losses
from avlink_jax.codecs.hifigan_losses import Discriminators
from avlink_jax.codecs.mel import MelSpec, log_mel
from avlink_jax.tasks import vocoder
from avlink_jax.training import step
from configs import vocoder as configs

SPEC = MelSpec()
CRITICS = Discriminators((2, 3), (2, 4, 4), 2, ((4, 15, 2, 1), (4, 15, 4, 2)))


def micro_task(**changes):
  config = configs.get_config('nano')
  config.vocoder.update(
      rates=(10, 16), kernels=(20, 32), channels=16, residual_kernels=(3,), dilations=((1,),),
      periods=(3,), period_widths=(2, 4), scales=1, scale_layers=((4, 15, 4, 1),),
      segment=1600, adversarial_after=0, augment=False)
  config.vocoder.update(changes)
  config.train.update(warmup_steps=1, decay_steps=0, learning_rate=5e-3)
  # All that the task asks of the models is which mels they are.
  audio = types.SimpleNamespace(codec=types.SimpleNamespace(spec=SPEC))
  return vocoder.VocoderTask(types.SimpleNamespace(modalities={'audio': audio}), config)


def waves(size=3, samples=4000, seed=0):
  rng, t = np.random.default_rng(seed), np.arange(samples) / SPEC.sample_rate
  tones = np.sin(2 * np.pi * rng.uniform(200, 3000, (size, 1)) * t)
  return (0.3 * tones + 0.05 * rng.standard_normal((size, samples))).astype(np.float32)


def batch_of(size=3, samples=4000, real=None, seed=0):
  mask = np.ones((size, samples), bool)
  mask[-1, real:] = real is None
  return {'wave': waves(size, samples, seed) * mask, 'wave_mask': mask}


# Discriminators

def test_discriminators_see_every_period_and_scale():
  params = random_params(CRITICS)
  assert set(params) == {'period_2', 'period_3', 'scale_0', 'scale_1'}
  features = jax.eval_shape(CRITICS.apply, params, jnp.zeros((2, 1000)))
  shapes = {name: [f.shape for f in fs] for name, fs in features.items()}
  # 500 samples of either offset: thirds twice, then stride 1, then the judgement.
  assert shapes['period_2'] == [(4, 167, 2), (4, 56, 4), (4, 56, 4), (4, 56, 1)]
  assert shapes['period_3'][0] == (6, 112, 2)  # of 334, the end reflected
  assert shapes['scale_0'] == [(2, 500, 4), (2, 125, 4), (2, 125, 1)]
  assert shapes['scale_1'][0] == (2, 251, 4)


def test_the_papers_discriminators_are_of_the_papers_size():
  """MPD 41.1 M parameters in five, MSD 29.6 M in three (the original code, biases included)."""
  shapes = jax.eval_shape(Discriminators().init, jax.random.key(0))
  count = lambda kind: sum(leaf.size for name, tree in shapes.items()  # noqa: E731
                           if name.startswith(kind) for leaf in jax.tree.leaves(tree))
  assert count('period') / 1e6 == pytest.approx(41.1, abs=0.05)
  assert count('scale') / 1e6 == pytest.approx(29.6, abs=0.05)


def test_a_period_gathers_every_pth_sample():
  seen = hifigan_losses.by_period(jnp.arange(7.0)[None], 3)[..., 0]
  np.testing.assert_array_equal(seen, [[0, 3, 6], [1, 4, 5], [2, 5, 4]])  # 5 and 4: reflected


# Losses

def judged(*values):
  return {str(i): [jnp.full((1, 2, 3), 7.0), jnp.full((2, 4, 1), v)] for i, v in enumerate(values)}


def test_least_squares_losses_are_what_the_book_says():
  real, fake = judged(0.5, 1.0), judged(0.25, -1.0)
  assert hifigan_losses.discriminator_loss(real, fake) == 0.25 + 0.0625 + 0.0 + 1.0
  assert hifigan_losses.adversarial_loss(fake) == 0.5625 + 4.0
  assert hifigan_losses.feature_loss(real, fake) == 0.25 + 2.0
  assert hifigan_losses.discriminator_loss(judged(1.0), judged(0.0)) == 0


def test_features_of_the_same_sound_are_no_distance_apart():
  params, wave = random_params(CRITICS), waves(samples=600)
  apply = plain_jit(CRITICS.apply)
  assert hifigan_losses.feature_loss(apply(params, wave), apply(params, wave)) == 0
  assert hifigan_losses.feature_loss(apply(params, wave), apply(params, -wave)) > 0.01


def test_the_mel_loss_counts_only_what_is_heard():
  real, mask = np.zeros((2, 4, 3)), np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)
  fake = real + np.array([1, 2, 50, 70])[:, None]
  assert hifigan_losses.mel_loss(real, fake, mask) == 1.5
  assert hifigan_losses.mel_loss(real, fake, mask & False) == 0


# Pieces of clips

def test_a_piece_has_the_mel_of_the_clip_it_was_cut_from():
  """As log_mel on the host sees the whole clip, wherever the piece begins on a frame."""
  wave, mask = waves(40), np.ones((40, 4000), bool)
  cut = functools.partial(vocoder.cut, length=1600, context=SPEC.padding)
  pieces, masks = plain_jit(cut)(jax.random.key(0), wave, mask)
  assert masks.all()
  whole = np.pad(wave, ((0, 0), (SPEC.padding,) * 2), mode='reflect')
  starts = [int(np.argmin(np.abs(np.lib.stride_tricks.sliding_window_view(w, 2464) - p).sum(1)))
            for w, p in zip(whole, pieces, strict=True)]
  assert len(set(starts)) > 20 and min(starts) < 400 and 2000 < max(starts) <= 2400
  for w, p, start in zip(whole, pieces, starts, strict=True):
    np.testing.assert_array_equal(p, w[start:start + 2464])
  # Where a clip is just one piece, that is its mel, edges and all.
  task = micro_task()
  batch = batch_of(samples=1600)
  mel, real, _ = plain_jit(task.segments)(batch, jax.random.key(0))
  np.testing.assert_array_equal(real, batch['wave'])
  np.testing.assert_allclose(mel, [log_mel(w, SPEC) for w in batch['wave']], atol=1e-4)


def test_pieces_avoid_padding_where_they_can():
  wave, mask = waves(2), np.ones((2, 4000), bool)
  mask[0, 1700:] = mask[1, 900:] = False
  for seed in range(5):
    _, masks = vocoder.cut(jax.random.key(seed), wave, mask, 1600, 0)
    assert masks[0].all() and masks[1].sum() == 900


def test_clips_shorter_than_a_piece_are_refused():
  with pytest.raises(ValueError, match='shorter than a piece'):
    vocoder.cut(jax.random.key(0), waves(), np.ones((3, 4000), bool), 4001, 0)
  with pytest.raises(ValueError, match='multiple of the hop'):
    micro_task(segment=1601).segments(batch_of(), jax.random.key(0))


def test_augmented_sounds_are_many_bounded_and_silent_where_masked():
  size, length = 64, 1200
  wave, mask = waves(size, 1600), np.ones((size, 1600), bool)
  mask[: size // 2, 500:] = False
  f = jax.jit(functools.partial(vocoder.augment, length=length, sample_rate=16_000))
  made, made_mask = f(jax.random.key(0), wave * mask, mask)
  assert made.shape == made_mask.shape == (size, length)
  assert np.isfinite(made).all() and np.abs(made).max() <= 1 + 1e-6
  assert not np.any(made * ~made_mask)
  shares = made_mask.mean(1)
  assert (shares[size // 2:] == 1).all() and (abs(shares[:size // 2] - 0.42) < 0.12).all()
  peaks = np.abs(made).max(1)
  assert np.quantile(peaks, 0.75) > 3 * np.quantile(peaks, 0.25)  # loud and soft
  np.testing.assert_array_equal(f(jax.random.key(0), wave * mask, mask)[0], made)
  assert not np.allclose(f(jax.random.key(1), wave * mask, mask)[0], made)


def test_noises_and_tones_are_of_about_the_size_they_say():
  noises = vocoder.random_noise(jax.random.key(0), 32, 4000)
  tones = vocoder.random_tones(jax.random.key(0), 32, 4000, 16_000)
  for made, most in ((noises, 30), (tones, 6)):
    assert np.isfinite(made).all() and 0.1 < np.std(made) < 2 and np.abs(made).max() < most
  # Glides stay themselves: nothing is heard above half the rate, where it would fold back.
  low = np.abs(np.fft.rfft(tones * np.hanning(4000)))
  assert np.median(low[:, 1900:].max(1) / low.max(1)) < 0.05


# Training

def test_a_step_of_the_trainer_moves_both_players_and_the_mel_comes_nearer():
  task = micro_task()
  optimizer = step.make_optimizer(task.config)
  state = first = plain_jit(lambda: step.init(task, optimizer, 0, {}))()
  move = plain_jit(functools.partial(step.train_step, task, optimizer, task.config))
  batch, said = batch_of(samples=1600), []
  for _ in range(20):
    state, metrics = move(state, {}, batch)
    said.append({name: float(value) for name, value in metrics.items()})
  assert {'loss', 'discriminator_loss', 'adversarial', 'features', 'mel_l1', 'grad_norm',
          'discriminator_grad_norm', 'learning_rate', *step.COUNTS} == set(said[0])
  assert all(np.isfinite(list(m.values())).all() for m in said)
  assert said[-1]['mel_l1'] < 0.7 * said[0]['mel_l1']
  for player in task.groups:
    moved = jax.tree.map(lambda a, b: np.any(a != b), state.params[player], first.params[player])
    assert all(jax.tree.leaves(moved))
  assert jax.tree.structure(state.ema) == jax.tree.structure(task.exported(state.params))


def losses(task, player):
  def loss(own, params, batch, at):
    return task.loss({**params, player: own}, {}, {}, batch, jax.random.key(3), at, player)
  return plain_jit(jax.value_and_grad(loss, has_aux=True))


def test_before_its_time_the_adversary_is_silent():
  task = micro_task(adversarial_after=10)
  params, batch = random_params(task), batch_of()
  judge, deceive = losses(task, 'discriminator'), losses(task, 'generator')
  (value, _), grads = judge(params['discriminator'], params, batch, 9)
  assert value == 0 and not any(np.any(g) for g in jax.tree.leaves(grads))
  (value, (said, _)), _ = deceive(params['generator'], params, batch, 9)
  assert said['adversarial'] == said['features'] == 0
  assert value == pytest.approx(45 * float(said['mel_l1']), rel=1e-5)
  (value, _), grads = judge(params['discriminator'], params, batch, 10)
  assert value > 0 and all(np.any(g) for g in jax.tree.leaves(grads))
  (value, (said, _)), _ = deceive(params['generator'], params, batch, 10)
  wanted = 45 * said['mel_l1'] + said['adversarial'] + 2 * said['features']
  assert said['features'] > 0 and value == pytest.approx(float(wanted), rel=1e-5)


def test_padding_is_not_learnt_as_sound():
  """Whatever stands where there is no clip changes neither loss nor gradients; and a batch of
  nothing but padding teaches nothing."""
  task, batch = micro_task(), batch_of(samples=1600, real=700)
  params = random_params(task)
  filled = {**batch, 'wave': np.where(batch['wave_mask'], batch['wave'], 0.4).astype(np.float32)}
  for player in task.groups:
    of = losses(task, player)
    for a, b in zip(*(jax.tree.leaves(of(params[player], params, x, 0)) for x in (batch, filled)),
                    strict=True):
      np.testing.assert_array_equal(a, b)
  empty = {**batch, 'wave_mask': np.zeros_like(batch['wave_mask'])}
  (value, _), grads = losses(task, 'generator')(params['generator'], params, empty, 0)
  assert np.isfinite(value) and not any(np.any(g) for g in jax.tree.leaves(grads))


def test_the_loss_of_silence_has_finite_gradients():
  task = micro_task()
  params = random_params(task)
  silent = {**batch_of(), 'wave': np.zeros((3, 4000), np.float32)}
  for player in task.groups:
    (value, _), grads = losses(task, player)(params[player], params, silent, 0)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
