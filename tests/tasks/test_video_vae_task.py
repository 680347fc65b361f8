"""The video autoencoder's training: its losses, its adversary, the real loop with all of it on."""

import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from cli import called, complaint
from micro import build, micro_config, plain_jit, random_like, random_params
from runs import quickly_compiled
from vgg import tensors

from avlink_jax.codecs import lfq
from avlink_jax.codecs.patchgan import PatchGAN3D
from avlink_jax.data.media import decode as media
from avlink_jax.errors import UserError
from avlink_jax.storage import weights
from avlink_jax.train import train

AFTER, KEY = 2, jax.random.key(3)
SMALL = {'data.height': 16, 'data.width': 24, 'data.fps': 8.0, 'codec_loss.adversarial': True,
         'codec_loss.disc_after': AFTER, 'codec_loss.disc_width': 2, 'codec_loss.disc_layers': 2}


@pytest.fixture(autouse=True, scope='module')
def quick():
  with quickly_compiled():
    yield


@functools.cache
def micro(**changes):
  """(task, random parameters, batch of 8 frames of 16 × 24) with changes of `a__b` = a.b."""
  config = micro_config('video_vae', **SMALL | {
      name.replace('__', '.'): value for name, value in changes.items()})
  _, task = build(config)
  shapes = jax.eval_shape(task.init, jax.random.key(0), {})
  rng = np.random.default_rng(0)
  mask = np.ones((2, 8), bool)
  mask[1, 5:] = False
  batch = {'video': rng.integers(0, 256, (2, 8, 16, 24, 3), np.uint8), 'video_mask': mask}
  return task, random_like(shapes, 0), batch


def gradients(player, step, **changes):
  """(loss, metrics, stats, gradients of the player's own parameters)."""
  task, params, batch = micro(**changes)

  def loss(own):
    return task.loss({**params, player: own}, {'std': jnp.ones(())}, {}, batch, KEY, step, player)

  (value, (said, stats)), slopes = plain_jit(jax.value_and_grad(loss, has_aux=True))(params[player])
  return value, said, stats, slopes


def test_the_loss_is_l1_over_real_frames():
  task, _, batch = micro()
  made = np.random.default_rng(1).normal(size=batch['video'].shape).astype(np.float32)
  video = batch['video'] / 127.5 - 1
  value, said = task.reconstruction_loss(made, batch, KEY)
  assert said.keys() == {'l1'}
  assert value == pytest.approx(np.abs(made - video)[batch['video_mask']].mean(), rel=1e-5)
  spoilt = np.where(batch['video_mask'][..., None, None, None], made, 9.0)
  assert task.reconstruction_loss(spoilt, batch, KEY)[0] == value
  np.testing.assert_array_equal(task.view(spoilt, batch, KEY), task.view(made, batch, KEY))


def test_pictures_look_alike_to_a_network_over_some_frames():
  """Frames from a random one on, alike in both videos; those of padding do not count. With a
  network that sees pixels LPIPS is a distance of colours, in [0, 1] each."""
  task, _, batch = micro(codec_loss__perceptual='/no/such/network')
  task.__dict__['perceptual'] = SimpleNamespace(
      features=lambda x: [x], heads=[np.ones(3, np.float32)], floor=1e-6)
  made = np.random.default_rng(1).uniform(-1, 1, batch['video'].shape).astype(np.float32)
  real, fake = (x / np.sqrt(np.sum(x**2, -1, keepdims=True) + 1e-6)
                for x in (batch['video'] / 255, made / 2 + 0.5))
  each = np.mean(np.sum((real - fake) ** 2, -1), axis=(2, 3))
  frames, mask = task.config.codec_loss.frames, batch['video_mask']
  wanted = np.array([each[:, t:t + frames][mask[:, t:t + frames]].mean()
                     for t in range(8 - frames + 1)])
  found = [task.reconstruction_loss(made, batch, jax.random.key(n)) for n in range(6)]
  assert frames == 2 and len({float(said['perceptual']) for _, said in found}) > 1
  for value, said in found:
    assert np.min(np.abs(said['perceptual'] - wanted)) < 1e-5
    assert value == pytest.approx(float(said['l1'] + said['perceptual']), rel=1e-5)


def test_the_network_of_sounds_is_refused():
  task, _, batch = micro(codec_loss__perceptual='bundled')
  with pytest.raises(UserError, match='network for audio'):
    task.reconstruction_loss(np.zeros(batch['video'].shape, np.float32), batch, KEY)


@pytest.mark.slow
def test_the_generators_gradient_is_that_of_the_book():
  """L1 + w·KL + λ·disc_weight·L_adv, with λ from whole gradients at the decoder's last kernel."""
  task, params, batch = micro()
  mask, real = batch['video_mask'], task.data(batch)

  def forward(own):
    mean, log_variance, z = task._encode(own, {'std': 1.0}, real, KEY)
    return task.codec.decode(own, 1.0, z, 8, 16, 24), mean, log_variance

  def l1(own):
    return jnp.abs(forward(own)[0] - real)[mask].mean()

  def adversarial(own):
    seen = jnp.where(mask[..., None, None, None], forward(own)[0], 0)
    return -task.discriminator(params['discriminator'], seen).mean()

  def kl(own):
    _, mean, log_variance = forward(own)
    return 0.5 * jnp.mean(mean**2 + jnp.exp(log_variance) - 1 - log_variance)

  (a, d_a), (b, d_b), (c, d_c) = plain_jit(lambda own: [
      jax.value_and_grad(f)(own) for f in (l1, adversarial, kl)])(params['generator'])
  last = lambda tree: np.linalg.norm(tree['decoder']['last']['kernel'])  # noqa: E731
  weight = task.config.codec_loss.disc_weight * last(d_a) / (last(d_b) + 1e-4)
  w = task.config.video_codec.kl_weight
  value, said, stats, slopes = gradients('generator', AFTER)
  assert said['adversarial_weight'] == pytest.approx(weight, rel=1e-3)
  assert value == pytest.approx(float(a + weight * b + w * c), rel=1e-4)
  for got, x, y, z in zip(*map(jax.tree.leaves, (slopes, d_a, d_b, d_c)), strict=True):
    wanted = x + weight * y + w * z
    np.testing.assert_allclose(got, wanted, atol=1e-3 * np.abs(wanted).max() + 1e-7)
  assert 0 < stats['std'] != 1


def test_the_discriminator_learns_from_the_hinge_and_only_after_the_warm_up():
  value, _, _, slopes = gradients('discriminator', AFTER - 1)
  assert value == 0 and not any(np.any(g) for g in jax.tree.leaves(slopes))
  value, said, stats, slopes = gradients('discriminator', AFTER)
  assert value > 0 and stats == {'std': 1}
  assert all(np.any(layer['kernel']) for name, layer in slopes.items() if 'kernel' in layer)


# A decoder that learns alone

def test_with_a_fixed_encoder_the_decoder_alone_has_a_gradient():
  before = gradients('generator', 0)
  value, _, stats, slopes = gradients('generator', 0, codec_loss__fixed_encoder=True)
  assert value == pytest.approx(float(before[0]), rel=1e-6)
  assert stats == {'std': 1}
  assert not any(np.any(g) for g in jax.tree.leaves(slopes['encoder']))
  for got, wanted in zip(*(jax.tree.leaves(tree['decoder']) for tree in (slopes, before[3])),
                         strict=True):
    np.testing.assert_allclose(got, wanted, atol=1e-3 * np.abs(wanted).max() + 1e-7)


def test_what_is_decoded_has_noise_in_units_of_the_latents_deviation():
  task, params, batch = micro()
  noisy = micro(codec_loss__latent_noise=0.5)[0]
  encode = lambda task: plain_jit(  # noqa: E731
      lambda own, video: task._encode(own, {'std': 3.0}, video, KEY))(
          params['generator'], task.data(batch))
  exact, inexact = encode(task), encode(noisy)
  for a, b in zip(exact[:2], inexact[:2], strict=True):
    np.testing.assert_array_equal(a, b)  # the posterior's moments are what they were
  added = np.asarray(inexact[2] - exact[2])
  assert added.std() == pytest.approx(0.5 * 3.0, rel=0.2)
  assert abs(added.mean()) < 0.3


def test_an_encoder_that_stays_has_to_come_from_somewhere():
  task = micro(codec_loss__fixed_encoder=True)[0]
  with pytest.raises(UserError, match='train.init_from'):
    task.check()


def test_a_run_goes_on_with_another_runs_encoder_and_deviation(tmp_path):
  config = micro_config('video_vae', **SMALL | {
      'codec_loss.adversarial': False, 'train.steps': 2})
  train(config, str(tmp_path / 'first'))
  first = weights.read(tmp_path / 'first/weights.safetensors')[0]
  config.update_from_flattened_dict({
      'train.init_from': str(tmp_path / 'first'), 'codec_loss.fixed_encoder': True,
      'codec_loss.latent_noise': 0.2})
  train(config, str(tmp_path / 'second'))
  second = weights.read(tmp_path / 'second/weights.safetensors')[0]
  change = lambda part: max(np.abs(a - b).max() for a, b in zip(  # noqa: E731
      *(jax.tree.leaves(tree['params'][part]) for tree in (first, second)), strict=True))
  assert change('encoder') < 1e-6 < 1e-3 < change('decoder')  # a moving average is rounded
  np.testing.assert_array_equal(first['stats']['std'], second['stats']['std'])


# The adversary of videos

@pytest.mark.parametrize('frames, logits', [(4, 1), (8, 2), (17, 4)])
def test_the_discriminator_halves_the_picture_and_quarters_the_rate(frames, logits):
  judge = PatchGAN3D(width=2, layers=3)
  shapes = jax.eval_shape(judge.init, jax.random.key(0))
  video = jax.ShapeDtypeStruct((2, frames, 16, 24, 3), jnp.float32)
  assert jax.eval_shape(judge, shapes, video).shape == (2, logits, 2, 3, 1)
  assert [shapes[f'CausalConv_{n}']['kernel'].shape[-1] for n in range(5)] == [2, 4, 8, 16, 1]


def test_a_patch_is_judged_alone():
  """What is far off in the picture, later, or another example changes no logit."""
  judge = PatchGAN3D(width=2, layers=2, planes=True)
  params = random_params(judge)
  logits = plain_jit(lambda video: judge(params, video))
  video = np.random.default_rng(0).uniform(-1, 1, (2, 8, 32, 32, 3)).astype(np.float32)
  before = logits(video)
  for at in (np.s_[1], np.s_[:, 4:], np.s_[:, :, -1]):
    other = video.copy()
    other[at] = 1
    after = logits(other)
    np.testing.assert_array_equal(after[0, 0, 0], before[0, 0, 0])
    assert np.any(after != before)


# Codes

def test_codes_are_what_is_encoded_and_tokens_are_their_numbers():
  task, params, batch = micro(video_codec__quantise='lfq')
  codec, own = task.codec, params['generator']
  codes = plain_jit(lambda p, v: codec.encode(p, 1.0, v))(own, batch['video'])
  assert set(np.unique(codes)) == {-1, 1}
  tokens = plain_jit(codec.tokens)(own, batch['video'])
  assert tokens.shape == (2, 2, 2, 3) and tokens.max() < 2**4
  np.testing.assert_array_equal(lfq.codes(tokens, 4), codes)
  decode = plain_jit(lambda p, z: codec.decode(p, 1.0, z))
  whole = decode(own, codes)
  np.testing.assert_allclose(
      plain_jit(lambda p, t: codec.decode_tokens(p, t))(own, tokens), whole, atol=1e-5)
  np.testing.assert_allclose(decode(own, 0.3 * codes), whole, atol=1e-5)  # the nearest code
  np.testing.assert_allclose(codec.encode_in_parts(own, 1.0, batch['video'], 1), codes)


def test_codes_are_learnt_by_their_entropies_and_the_reconstruction():
  value, said, stats, slopes = gradients('generator', 0, video_codec__quantise='lfq')
  sizes = micro()[0].config.video_codec
  assert said.keys() >= {'l1', 'entropy', 'entropy_of_mean', 'commitment'} and 'kl' not in said
  assert value == pytest.approx(float(
      said['l1'] + sizes.entropy_weight * (said['entropy'] - said['entropy_of_mean'])
      + sizes.commitment_weight * said['commitment']), rel=1e-4)
  assert all(np.any(g) for g in jax.tree.leaves(slopes['encoder']))
  assert stats['std'] == pytest.approx(0.99 + 0.01 * np.sqrt(1 - 0), abs=0.01)  # of −1 and 1


@pytest.mark.parametrize('changes, words', [
    ({'quantise': 'vq'}, 'none or lfq'),
    ({'quantise': 'lfq', 'latent_channels': 40}, 'at most 31')])
def test_a_quantisation_that_there_is_not_is_told(changes, words):
  config = micro_config('video_vae')
  config.video_codec.update(changes)
  with pytest.raises(UserError, match=words):
    build(config)


# The real loop

def tiny(tmp_path, **changes):
  """4 frames of 16 × 24 out of pictures of 32 × 48, everything on."""
  safetensors.numpy.save_file(tensors(), tmp_path / 'vgg.safetensors')
  config = micro_config('video_vae', **SMALL | {
      'data.height': 32, 'data.width': 48, 'data.crop_height': 16, 'data.crop_width': 24,
      'data.seconds': 0.5, 'data.clip_seconds': 2.0, 'data.impacts_clips': 4, 'data.threads': 1,
      'codec_loss.perceptual': str(tmp_path / 'vgg.safetensors'), 'codec_loss.disc_after': 1,
      'train.steps': 3, 'train.batch_size': 2, 'train.log_every': 1, 'sample.count': 1} | changes)
  return config


@pytest.mark.slow
def test_a_run_with_everything_on_trains_and_puts_clips_together(tmp_path):
  """LPIPS, the adversary, codes; then clips at full size beside their references."""
  config = tiny(tmp_path, **{'video_codec.quantise': 'lfq', 'video_codec.latent_channels': 6})
  train(config, tmp_path / 'run')
  rows = [json.loads(line) for line in (tmp_path / 'run/metrics.jsonl').read_text().splitlines()]
  last = [row for row in rows if 'loss' in row][-1]
  assert {'l1', 'perceptual', 'adversarial', 'entropy', 'commitment', 'latent_std',
          'discriminator_loss', 'logits_real'} <= last.keys()
  assert all(np.isfinite(value) for value in last.values())
  folder = tmp_path / 'run/samples/step_3'
  made, reference = (media.decode(where / 'impacts-validation-000000.mp4', need_audio=False)
                     for where in (folder, folder / 'reference'))
  assert made.frames.shape == reference.frames.shape and len(made.frames) == 16
  tree, _ = weights.read(tmp_path / 'run/weights.safetensors')
  assert tree['params'].keys() == {'encoder', 'decoder', 'linear'} and tree['stats'].keys() == {
      'std'}


def test_prompts_and_inputs_are_no_business_of_a_codec():
  said = called('--config=configs/video_vae.py:nano', '--mode=sample', '--prompt=a ball',
                '--workdir=/nowhere')
  assert 'leave --input' in complaint(said)
