"""The 1D-VAE's training: two players in one step, and each loss against brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from micro import batch_of, build, micro_config, plain_jit, random_like

from avlink_jax.codecs import patchgan, perceptual
from avlink_jax.training import step as training

AFTER = 2  # step at which the discriminator begins


def config_of(**codec_loss):
  config = micro_config('mel_vae')
  config.codec_loss.update(dict(disc_after=AFTER, disc_width=2, disc_layers=2, frames=48)
                           | codec_loss)
  return config


@functools.cache
def micro(**codec_loss):
  """(config, task, random parameters, batch)."""
  config = config_of(**codec_loss)
  models, task = build(config)
  batch = batch_of(models, size=2)
  batch['mel'] = np.clip(batch['mel'], task.codec.silence, 2)
  shapes = jax.eval_shape(task.init, jax.random.key(0), {})
  return config, task, random_like(shapes, 0), batch


KEY = jax.random.key(3)


def gradients(player, step, params=None, batch=None, **codec_loss):
  """(loss, metrics, stats, gradients of the player's own parameters)."""
  _, task, start, usual = micro(**codec_loss)
  params, batch = params or start, batch or usual
  (value, (said, stats)), slopes = compiled(player, **codec_loss)(
      params[player], params, batch, jnp.int32(step))
  return value, said, stats, slopes


@functools.cache
def compiled(player, **codec_loss):
  task = micro(**codec_loss)[1]

  def loss(own, params, batch, step):
    return task.loss({**params, player: own}, {'std': jnp.ones(())}, {}, batch, KEY, step, player)

  return plain_jit(jax.value_and_grad(loss, has_aux=True))


def assert_equal(a, b):
  for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
    np.testing.assert_array_equal(x, y)


def assert_close(a, b, rtol=2e-4):
  """Leaf by leaf, relative to the leaf's largest value; a bias that a norm takes out again has no
  gradient but rounding, so the whole tree's largest value counts a little too."""
  largest = max(np.abs(y).max() for y in jax.tree.leaves(b))
  for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
    np.testing.assert_allclose(x, y, atol=rtol * np.abs(y).max() + 1e-6 * largest, rtol=rtol)


# Brute force: the losses as they stand in the book, each differentiated through everything

def forward(params):
  _, task, _, batch = micro()
  mean, log_variance, z = task._encode(params['generator'], {'std': 1.0}, batch['mel'], KEY)
  return task.codec.decode(params['generator'], 1.0, z), mean, log_variance


def reconstruction_loss(params):
  config, task, _, batch = micro()
  made, mask = forward(params)[0], batch['audio_mask']
  l1 = jnp.abs(made - batch['mel'])[mask].mean()
  looks = perceptual.distance(perceptual.load('bundled'), *(
      task.image(mel, mask, KEY) for mel in (batch['mel'], made)))
  return l1 + config.codec_loss.perceptual_weight * looks.mean()


def adversarial_loss(params):
  _, task, _, batch = micro()
  image = task.image(forward(params)[0], batch['audio_mask'], KEY)
  return -task.discriminator(params['discriminator'], image).mean()


def kl(params):
  _, mean, log_variance = forward(params)
  return 0.5 * jnp.mean(mean**2 + jnp.exp(log_variance) - 1 - log_variance)


@functools.cache
def brute_force():
  """(value, gradient of the generator) of the reconstruction, the adversary, and the KL."""
  params = micro()[2]

  def one(loss):
    def of_own(own):
      return loss({**params, 'generator': own})
    return jax.value_and_grad(of_own)

  return plain_jit(lambda own: [one(loss)(own) for loss in (
      reconstruction_loss, adversarial_loss, kl)])(params['generator'])


def test_after_the_warm_up_the_generators_gradient_is_that_of_the_book():
  """L_rec + w·KL + λ·disc_weight·L_adv, with λ from whole gradients at the decoder's end."""
  config = micro()[0]
  (rec, d_rec), (adv, d_adv), (kl_value, d_kl) = brute_force()
  last = lambda tree: np.linalg.norm(tree['decoder']['Conv_2']['kernel'])  # noqa: E731
  ratio = np.clip(last(d_rec) / (last(d_adv) + 1e-4), 0, 1e4)
  weight = config.codec_loss.disc_weight * ratio
  value, said, _, slopes = gradients('generator', AFTER)
  assert said['adversarial_weight'] == pytest.approx(weight, rel=1e-4) and weight > 1e-3
  assert said['adversarial'] == pytest.approx(float(adv), rel=1e-4)
  assert value == pytest.approx(
      float(rec + config.codec.kl_weight * kl_value + weight * adv), rel=1e-4)
  assert_close(slopes, jax.tree.map(
      lambda r, k, a: r + config.codec.kl_weight * k + weight * a, d_rec, d_kl, d_adv))


def test_the_weight_is_measured_at_the_last_layer():
  """Without that kernel the decoder's convolutions say the same whatever they are given."""
  _, task, params, batch = micro()
  own = params['generator']
  put, kernel = task.last_kernel({**own, 'linear': jax.tree.map(jnp.zeros_like, own['linear'])})
  z = np.random.default_rng(0).standard_normal((1, 6, task.codec.latent_channels))
  made = task.codec.decode(put(jnp.zeros_like(kernel)), 1.0, z.astype(np.float32))
  np.testing.assert_array_equal(made, np.broadcast_to(made[:1, :1], made.shape))
  put, kernel = task.last_kernel(own)
  assert_equal(put(kernel), own)


def test_before_the_warm_up_the_adversary_has_no_say():
  """Bit for bit: other opinions of the discriminator change neither loss nor gradient."""
  params = micro()[2]
  other = {**params, 'discriminator': jax.tree.map(lambda p: -2 * p, params['discriminator'])}
  early, otherwise = (gradients('generator', AFTER - 1, p) for p in (params, other))
  assert_equal((early[0], early[3]), (otherwise[0], otherwise[3]))
  assert early[1]['adversarial'] != otherwise[1]['adversarial']
  assert early[1]['adversarial_weight'] == 0
  (rec, d_rec), _, (kl_value, d_kl) = brute_force()
  weight = micro()[0].codec.kl_weight
  assert_close(early[3], jax.tree.map(lambda r, k: r + weight * k, d_rec, d_kl))


def test_without_an_adversary_there_is_none_and_the_rest_is_the_same():
  _, task, params, _ = micro(adversarial=False)
  assert task.groups == ('generator',) and params.keys() == {'generator'}
  start = micro()[2]
  alone = gradients('generator', AFTER, {'generator': start['generator']}, adversarial=False)
  early = gradients('generator', AFTER - 1)
  assert 'adversarial' not in alone[1]
  assert_close((alone[0], alone[3]), (early[0], early[3]), 1e-5)  # another program: rounding


def test_the_discriminator_learns_from_the_hinge_and_only_after_the_warm_up():
  _, task, params, batch = micro()
  value, said, stats, slopes = gradients('discriminator', AFTER - 1)
  assert value == 0 and not any(np.any(g) for g in jax.tree.leaves(slopes))
  value, said, stats, slopes = gradients('discriminator', AFTER)

  def hinge(own):
    real, fake = (task.discriminator(own, task.image(mel, batch['audio_mask'], KEY))
                  for mel in (batch['mel'], forward(params)[0]))
    return patchgan.discriminator_hinge(real, fake)

  wanted, d_wanted = plain_jit(jax.value_and_grad(hinge))(params['discriminator'])
  assert value == pytest.approx(float(wanted), rel=1e-5)
  assert_close(slopes, d_wanted)
  assert stats == {'std': 1}  # which the generator alone keeps


def test_padding_enters_no_loss():
  """Neither what is given nor what is made where a clip is not is looked at by L1, the perceptual
  network or the discriminator."""
  _, task, params, batch = micro()
  other = {**batch, 'mel': np.where(batch['audio_mask'][..., None], batch['mel'], 0)}
  made = forward(params)[0]
  look = plain_jit(lambda b, made: (task.reconstruction_loss(made, b, KEY)[0], task.adversarial(
      params['discriminator'], made, b, KEY), task.image(b['mel'], b['audio_mask'], KEY)))
  assert not np.array_equal(other['mel'], batch['mel'])
  assert_equal(look(batch, made), look(other, made))
  spoilt = jnp.where(batch['audio_mask'][..., None], made, 7.0)
  assert_equal(look(batch, made), look(batch, spoilt))


def test_l1_is_the_mean_over_real_frames():
  _, task, params, batch = micro(perceptual='none')
  made = np.random.default_rng(1).normal(-5, 2, batch['mel'].shape).astype(np.float32)
  value, said = task.reconstruction_loss(made, batch, KEY)
  assert said.keys() == {'l1'} and value == pytest.approx(
      np.abs(made - batch['mel'])[batch['audio_mask']].mean(), rel=1e-5)


def test_an_image_counts_from_silence_and_is_cut_alike_on_both_sides():
  _, task, _, batch = micro()
  silence, mask = task.codec.silence, np.ones_like(batch['audio_mask'])
  whole = micro(frames=0)[1].image(batch['mel'], mask, KEY)
  np.testing.assert_allclose(whole[..., 0], 1 - batch['mel'] / silence, rtol=1e-6)
  assert not np.any(micro(frames=0)[1].image(np.full_like(batch['mel'], silence), mask, KEY))
  cut, places = task.image(batch['mel'], mask, KEY), set()
  assert cut.shape == (2, 48, 64, 1)
  for n in range(8):
    cut = task.image(batch['mel'], mask, jax.random.key(n))
    places |= {i for i in range(whole.shape[1] - 47) if np.array_equal(cut, whole[:, i:i + 48])}
  assert len(places) > 3


def test_two_adams_move_in_one_step_and_the_discriminator_waits():
  """The real step: parameters, average and optimisers, before and after the warm-up."""
  config, task, _, batch = micro()
  optimizer = training.make_optimizer(config)
  state = plain_jit(lambda: training.init(task, optimizer, 0, {}))()
  step = plain_jit(functools.partial(training.train_step, task, optimizer, config))
  states, metrics = [state], []
  for _ in range(4):
    state, made = step(state, {}, batch)
    states.append(state)
    metrics.append(made)
  assert set(state.optimizer) == {'discriminator', 'generator'}
  assert jax.tree.structure(state.ema) == jax.tree.structure(task.exported(state.params))
  assert state.ema.keys() == {'encoder', 'decoder', 'linear'} and set(state.stats) == {'std'}
  start = states[0].params['discriminator']
  for n, (before, after) in enumerate(zip(states[:-1], states[1:], strict=True)):
    moved = [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (
        before.params['generator'], after.params['generator'])), strict=True)]
    assert all(moved) == (n > 0)  # the learning rate starts at 0
    if n < AFTER:
      assert_equal(after.params['discriminator'], start)
      assert metrics[n]['discriminator_loss'] == metrics[n]['adversarial_weight'] == 0
    else:
      # The last bias may stand: hinges that nobody has reached pull it both ways alike.
      for name, layer in before.params['discriminator'].items():
        if 'kernel' in layer:
          assert np.any(layer['kernel'] != after.params['discriminator'][name]['kernel']), name
      assert metrics[n]['discriminator_loss'] > 0 and metrics[n]['adversarial_weight'] > 0
  assert all(np.isfinite(v) for made in metrics for v in made.values())
