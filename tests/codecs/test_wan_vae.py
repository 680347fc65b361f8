"""Wan's video autoencoder: the numbers of diffusers' class, whole and in parts, and its times."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from micro import plain_jit
from runs import quickly_compiled

pytest.importorskip('diffusers')
torch = pytest.importorskip('torch')
import public_vaes  # noqa: E402

from avlink_jax.codecs import published_vae, video_parts, wan_codec, wan_parts  # noqa: E402
from avlink_jax.data.batch import Layout  # noqa: E402
from avlink_jax.errors import UserError  # noqa: E402

FPS = 16.0


@pytest.fixture(autouse=True, scope='module')
def quick():
  """Of the codec's own programs too."""
  with quickly_compiled():
    yield


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """(diffusers' module, codec, weights) of a random folder."""
  folder = tmp_path_factory.mktemp('wan')
  theirs = public_vaes.save_wan_vae(folder)
  codec = wan_codec.of_folder('video', folder / 'vae', FPS)
  return theirs, codec, codec.load(published_vae.weights_file(folder / 'vae', 'wan_vae'))


def video(frames, height, width, seed=0):
  rng = np.random.default_rng(seed)
  return rng.uniform(-1, 1, (1, frames, height, width, 3)).astype(np.float32)


@functools.cache
def latents_of(theirs, *size):
  """Normalised latents by diffusers, (1, T, H, W, C)."""
  with torch.no_grad():
    z = theirs.encode(torch.from_numpy(video(*size)).permute(0, 4, 1, 2, 3)).latent_dist.mode()
  mean, std = (torch.tensor(theirs.config[name]).view(1, -1, 1, 1, 1)
               for name in ('latents_mean', 'latents_std'))
  return ((z - mean) / std).permute(0, 2, 3, 4, 1).numpy()


@functools.cache
def video_of(theirs, *size):
  """What diffusers decodes such latents to, (1, T, H, W, 3) in [−1, 1]."""
  mean, std = (np.float32(theirs.config[name]) for name in ('latents_mean', 'latents_std'))
  z = torch.from_numpy(latents_of(theirs, *size) * std + mean).permute(0, 4, 1, 2, 3)
  with torch.no_grad():
    return theirs.decode(z).sample.permute(0, 2, 3, 4, 1).numpy()


def assert_same(ours, theirs, tolerance=1e-4):
  assert ours.shape == theirs.shape
  np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())


SIZES = pytest.mark.parametrize('size', [(1, 16, 24), (5, 24, 40), (9, 8, 16)])


@SIZES
def test_it_encodes_as_diffusers_does(saved, size):
  theirs, codec, weights = saved
  ours = plain_jit(codec.vae.encode)(weights['params'], video(*size))
  assert_same(ours, latents_of(theirs, *size))
  assert ours.std() > 0.1


@SIZES
def test_it_decodes_as_diffusers_does(saved, size):
  theirs, codec, weights = saved
  ours = plain_jit(codec.vae.decode)(weights['params'], latents_of(theirs, *size))
  assert_same(np.clip(ours, -1, 1), video_of(theirs, *size))
  assert ours.std() > 0.1


def test_convolutions_of_accelerators_give_the_same(saved):
  theirs, codec, weights = saved
  vae = wan_codec.read_vae(codec.folder, planes=False)
  assert codec.vae.planes and not vae.planes
  part = plain_jit(functools.partial(vae.encode_part, past=None))(
      weights['params'], video=video(9, 8, 16)[:, :1])[0]
  assert_same(part, latents_of(theirs, 9, 8, 16)[:, :1])


def test_parts_of_any_length_are_the_whole(saved):
  """A latent at a time on the host, and all but the first at once."""
  theirs, codec, weights = saved
  vae, params, size = codec.vae, weights['params'], (9, 8, 16)
  frames, latents = video(*size), latents_of(theirs, *size)
  assert_same(wan_parts.encode(vae, params, frames), latents)
  assert_same(np.clip(wan_parts.decode(vae, params, latents), -1, 1), video_of(theirs, *size))
  first, past = wan_parts._part(vae, 'encode_part', params, None, frames[:, :1])
  rest, _ = wan_parts._part(vae, 'encode_part', params, past, frames[:, 1:])
  assert_same(jnp.concatenate([first, rest], axis=1), latents)


def test_lengths_between_are_padded_with_the_last_frame(saved):
  _, codec, weights = saved
  frames = video(9, 8, 16)
  longer = np.concatenate([frames[:, :7], np.repeat(frames[:, 6:7], 2, axis=1)], axis=1)
  wider = np.pad(frames[:, :7, :5, :12], [(0, 0), (0, 0), (0, 3), (0, 4), (0, 0)], mode='edge')
  longer[:, :, 5:], longer[:, :, :, 12:] = longer[:, :, 4:5], longer[:, :, :, 11:12]
  assert codec.vae.padded(frames[:, :7, :5, :12]).shape == longer.shape
  np.testing.assert_array_equal(codec.vae.padded(wider)[:, :7], wider)
  np.testing.assert_array_equal(codec.vae.padded(frames[:, :7, :5, :12]), longer)


class Doubling:
  """An autoencoder of no surroundings: latents are every second pixel and frame 4k, as they are."""
  time_stride, space_stride, latent_channels = 4, 2, 3
  latent_count = staticmethod(lambda frames: 1 + -(-(frames - 1) // 4))
  padded = staticmethod(lambda video, pad: video)

  def encode_part(self, params, past, video):
    return video[:, -1:, ::2, ::2], ()

  def decode_part(self, params, past, latents):
    return jnp.repeat(jnp.repeat(jnp.repeat(
        latents, 1 if past is None else 4, axis=1), 2, axis=2), 2, axis=3), ()


def test_tiles_blend_to_what_there_is_where_no_surroundings_count():
  z = np.random.default_rng(0).standard_normal((1, 3, 21, 34, 3), np.float32)
  whole = np.repeat(np.repeat(np.repeat(z, [1, 4, 4], axis=1), 2, axis=2), 2, axis=3)
  vae = Doubling()
  for tile in None, (8, 8), (5, 34):
    np.testing.assert_allclose(wan_parts.decode(vae, None, z, tile), whole, atol=1e-5)
    np.testing.assert_allclose(wan_parts.encode(vae, None, whole, tile), z, atol=1e-5)


def test_between_tiles_there_is_no_edge():
  """Tiles that disagree by 1: neighbouring rows differ by about a step of the ramp."""
  class Disagreeing(Doubling):
    tiles = 0

    def decode_part(self, params, past, latents):
      self.tiles += past is None
      return jnp.full((1, 1 if past is None else 4, 2 * latents.shape[2], 2 * latents.shape[3], 3),
                      float(self.tiles % 2)), ()

  vae = Disagreeing()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(wan_parts, '_part', lambda vae, method, params, past, x: getattr(vae, method)(
        params, past, x))
    out = wan_parts.decode(vae, None, np.zeros((1, 1, 40, 4, 3)), (10, 4))[0, 0, :, 0, 0]
  assert vae.tiles == 4 and out.min() == 0 and out.max() == 1
  assert np.abs(np.diff(out)).max() < 1.2 / (4 * wan_parts.OVERLAP)


def test_too_little_memory_makes_tiles(saved, monkeypatch, capsys):
  _, codec, weights = saved
  monkeypatch.setattr(wan_parts, 'OVERLAP', 1)
  part, seen = wan_parts._part, []

  def limited(vae, method, params, past, x):
    seen.append(x.shape[2:4])
    if max(x.shape[2:4]) > 4:
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: out of memory')
    return part(vae, method, params, past, x)

  monkeypatch.setattr(wan_parts, '_part', limited)
  z = np.random.default_rng(0).standard_normal((1, 1, 2, 6, 16), np.float32)
  assert wan_parts.decode(codec.vae, weights['params'], z).shape == (1, 1, 16, 48, 3)
  assert seen[0] == (2, 6) and seen[-1][1] <= 4
  assert 'in tiles of' in capsys.readouterr().err


@pytest.mark.parametrize('fps', [16.0, 6.0])
def test_latents_are_when_their_frames_are(saved, fps):
  """The first at frame 0, latent k at (4k − 1.5)/fps, the mean of frames 4k − 3 … 4k."""
  _, codec, _ = saved
  codec = wan_codec.of_folder('video', codec.folder, fps)
  times = np.arange(81) / fps
  expected = [times[0], *times[1:].reshape(-1, 4).mean(1)]
  np.testing.assert_allclose(codec.seconds(21), expected, rtol=1e-12)
  assert codec.seconds(3)[2] == (4 * 2 - 1.5) / fps and codec.rate == fps / 4


def test_a_clip_has_the_published_grid_and_its_mask(saved):
  _, codec, _ = saved
  layout = Layout(5.0625, FPS, 240, 416)
  assert layout.frames == 81 and codec.shape(layout) == (21, 30, 52, 16)
  mask = np.arange(81) < np.array([[81], [1], [2], [5], [6]])
  counts = codec.mask({'video_mask': mask}).sum(1)
  np.testing.assert_array_equal(counts, [21, 1, 2, 2, 3])
  np.testing.assert_array_equal(codec.blank(0.3125, layout)['video_mask'], mask[3])


def test_a_clip_is_decoded_to_its_own_frames(saved):
  _, codec, weights = saved
  layout = Layout(0.5, FPS, 12, 20)
  z = np.random.default_rng(0).standard_normal(codec.shape(layout), np.float32)
  frames = codec.finish(weights, z, 0.4, layout)
  assert (frames.dtype, frames.shape) == (np.uint8, (7, 12, 20, 3))


@pytest.mark.parametrize('change, said', [
    ({'is_residual': True}, 'is_residual=True is not supported: False is'),
    ({'patch_size': 2}, 'patch_size=2 is not supported'),
    ({'attn_scales': [0.5]}, r'attn_scales=\[0.5\] is not supported'),
    ({'decoder_base_dim': 256}, 'decoder_base_dim=256 is not supported'),
    ({'clip_output': False}, 'clip_output=False is an option that is not known'),
    ({'_class_name': 'AutoencoderKL'}, 'the config of AutoencoderKL, not of AutoencoderKLWan'),
    ({'z_dim': 8}, 'need z_dim=8 numbers'),
    ({'temperal_downsample': [True]}, 'dim_mult has 4 levels'),
    ({'dim_mult': 'wide'}, 'invalid literal'),
    ({'latents_std': [0.0] * 16}, 'deviations above 0')])
def test_another_model_is_refused_by_what_is_different(saved, tmp_path, change, said):
  _, codec, _ = saved
  config = json.loads((codec.folder / 'config.json').read_text()) | change
  (tmp_path / 'config.json').write_text(json.dumps(config))
  with pytest.raises(UserError, match=said) as caught:
    wan_codec.read_vae(tmp_path)
  assert '\n' not in str(caught.value) and str(caught.value).startswith(f'{tmp_path}/config.json: ')


def test_published_sizes_have_as_many_parameters_as_diffusers_class(tmp_path):
  import diffusers
  with torch.device('meta'):
    theirs = diffusers.AutoencoderKLWan()
  theirs.save_config(tmp_path)
  vae = wan_codec.read_vae(tmp_path)
  assert (vae.time_stride, vae.space_stride, vae.latent_channels) == (4, 8, 16)
  ours = jax.tree.leaves(jax.eval_shape(vae.init, jax.random.key(0)))
  assert sum(x.size for x in ours) == sum(x.numel() for x in theirs.parameters())


def test_video_parts_halves_what_it_is_given():
  """Which tiles rely on."""
  assert video_parts.halved((30, 52), 1, None, wan_parts.OVERLAP) == (1, (30, 26))
