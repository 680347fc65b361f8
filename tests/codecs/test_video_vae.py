"""The video autoencoder: 4 × 8 × 8, causal, pictures as still videos, parts as the whole."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from micro import plain_jit, random_params
from runs import quickly_compiled

from avlink_jax import build as model_builder
from avlink_jax.codecs import causal, video_parts
from avlink_jax.codecs.causal import CausalConv, LocalNorm
from avlink_jax.codecs.pixels import as_float, as_uint8
from avlink_jax.codecs.video_latents import VideoLatents
from avlink_jax.codecs.video_vae import VideoVAE
from configs import base_vae, video_vae

# Every kind of level: one that halves space alone, one that halves time too.
SMALL = VideoVAE(width=4, multipliers=(1, 2, 2, 3), blocks=1, decoder_blocks=1, middle=1,
                 latent_channels=3, planes=True)
# Cells of pixels, a matrix around, kernels of their own: nano's kind.
CELLS = VideoVAE(width=4, multipliers=(1, 2), time_halvings=1, blocks=1, decoder_blocks=2, middle=0,
                 latent_channels=3, patch=(2, 4, 4), ends=(1, 3, 3), up_kernel=(1, 1, 1),
                 linear=True, planes=True)
# Frames one by one, a quarter of their size: the base size's kind.
FRAMES = VideoVAE(width=4, multipliers=(1, 2), time_halvings=0, blocks=1, decoder_blocks=1,
                  middle=1, latent_channels=3, patch=(1, 2, 2), kernel=(1, 3, 3), ends=(1, 3, 3),
                  up_kernel=(1, 3, 3), linear=True, planes=True)
KINDS = pytest.mark.parametrize('vae', [SMALL, CELLS], ids=['plain', 'cells'])


@pytest.fixture(autouse=True, scope='module')
def quick():
  """Of the codec's own programs too."""
  with quickly_compiled():
    yield


@functools.cache
def params(vae):
  return random_params(vae)


@functools.cache
def compiled(vae):
  """(encode, decode) of given parameters."""
  return (plain_jit(lambda video: vae.encode(params(vae), 0.7, video)),
          plain_jit(lambda z, *size: vae.decode(params(vae), 0.7, z)))


def video(frames, height=16, width=24, seed=0):
  rng = np.random.default_rng(seed)
  return rng.uniform(-1, 1, (1, frames, height, width, 3)).astype(np.float32)


def latents(vae, count, height=2, width=3, seed=0):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((1, count, height, width, vae.latent_channels), np.float32)


def assert_same(a, b):
  np.testing.assert_allclose(a, b, atol=1e-5 * max(1, np.abs(b).max()))


@pytest.mark.parametrize('scale, channels', [('paper', 16), ('small', 16), ('nano', 8)])
def test_a_clip_lies_on_the_base_models_grid(scale, channels):
  """124 frames of 288 × 512 are 31 × 36 × 64 latents and come back as 124 × 288 × 512."""
  codec = model_builder.build(video_vae.get_config(scale)).modalities['video'].codec.vae
  shapes = jax.eval_shape(codec.init, jax.random.key(0))
  clip = jax.ShapeDtypeStruct((1, 124, 288, 512, 3), jnp.uint8)
  z = jax.eval_shape(codec.encode, shapes, 1.0, clip)
  assert (codec.time_stride, codec.space_stride) == (4, 8)
  assert z.shape == (1, 31, 36, 64, channels)
  assert jax.eval_shape(codec.decode, shapes, 1.0, z).shape == clip.shape


def test_paper_scale_is_magvit_v2s():
  """128 · (1, 2, 2, 4) channels, 4 blocks a level, time halved by the last two strides."""
  codec = model_builder.build(video_vae.get_config('paper')).modalities['video'].codec.vae
  assert codec.widths == (128, 256, 256, 512) and codec.blocks == codec.decoder_blocks == 4
  assert [codec.stride_of(level) for level in range(3)] == [(1, 2, 2), (2, 2, 2), (2, 2, 2)]
  encoder = jax.eval_shape(codec.init, jax.random.key(0))['encoder']
  assert encoder['first']['kernel'].shape == (3, 3, 3, 3, 128)
  assert sum(name.startswith(('block', 'middle')) for name in encoder) == 4 * 4 + 4


@pytest.mark.parametrize('config, size', [(video_vae, 450_000), (base_vae, 300_000)])
def test_nano_is_small_enough_to_ship(config, size):
  codec = model_builder.build(config.get_config('nano')).modalities['video'].codec.vae
  shapes = jax.eval_shape(codec.init, jax.random.key(0))
  assert sum(x.size for x in jax.tree.leaves(shapes)) < size


@pytest.mark.parametrize('scale, channels', [('paper', 8), ('small', 8), ('nano', 4)])
def test_the_base_size_has_a_latent_for_four_by_four_pixels_of_each_frame(scale, channels):
  codec = model_builder.build(base_vae.get_config(scale)).modalities['video'].codec.vae
  shapes = jax.eval_shape(codec.init, jax.random.key(0))
  clip = jax.ShapeDtypeStruct((1, 31, 36, 64, 3), jnp.uint8)
  assert jax.eval_shape(codec.encode, shapes, 1.0, clip).shape == (
      1, 31, 9, 16, channels)


def test_frames_that_no_kernel_joins_are_coded_one_by_one():
  encode, decode = compiled(FRAMES)
  x = video(3)
  z = encode(x)
  assert z.shape == (1, 3, 4, 6, 3)
  assert_same(z, np.concatenate([encode(x[:, k:k + 1]) for k in range(3)], axis=1))
  assert_same(decode(z), np.concatenate([decode(z[:, k:k + 1]) for k in range(3)], axis=1))


# In time

@KINDS
@given(changed=st.integers(0, 11), frames=st.sampled_from([9, 12]))
@settings(max_examples=6, deadline=None)
def test_a_frame_changes_no_earlier_latent(vae, changed, frames):
  changed = min(changed, frames - 1)
  encode, _ = compiled(vae)
  x = video(frames)
  other = x.copy()
  other[:, changed] = video(1, seed=1)
  before, after = encode(x), encode(other)
  own = (changed + -frames % 4) // 4
  np.testing.assert_array_equal(before[:, :own], after[:, :own])
  assert np.abs(before[:, own] - after[:, own]).max() > 1e-4


@KINDS
def test_a_latent_changes_no_earlier_frame(vae):
  _, decode = compiled(vae)
  z = latents(vae, 3)
  other = z.copy()
  other[:, 1] += 1
  before, after = decode(z), decode(other)
  np.testing.assert_array_equal(before[:, :4], after[:, :4])
  assert (np.abs(before[:, 4:8] - after[:, 4:8]).max(axis=(0, 2, 3, 4)) > 1e-4).all()


@KINDS
def test_a_picture_is_a_still_video(vae):
  encode, _ = compiled(vae)
  picture = video(1)
  alone = encode(picture)
  assert alone.shape[1] == 1
  for frames in (5, 8):
    still = encode(np.repeat(picture, frames, axis=1))
    assert_same(still, np.repeat(alone, 2, axis=1))


@KINDS
def test_the_first_of_1_plus_4k_frames_is_the_first_latent(vae):
  encode, _ = compiled(vae)
  x = video(9)
  z = encode(x)
  assert z.shape[1] == 3
  assert_same(z[:, :1], encode(x[:, :1]))


# Lengths and sizes that the strides do not divide

@KINDS
@pytest.mark.parametrize('frames, height, width', [(1, 8, 8), (2, 9, 15), (5, 16, 17), (8, 3, 5)])
def test_what_does_not_divide_is_filled_up_and_cut_back(vae, frames, height, width):
  x = video(frames, height, width)
  z = jax.eval_shape(lambda x: vae.encode(params(vae), 1.0, x), x)
  assert z.shape == (1, -(-frames // 4), -(-height // 8), -(-width // 8), 3)
  filled = np.asarray(vae.padded(x))
  more = np.pad(x, ((0, 0), (-frames % 4, 0), (0, -height % 8), (0, -width % 8), (0, 0)), 'edge')
  np.testing.assert_array_equal(filled, more)
  np.testing.assert_array_equal(vae.cut(filled, frames, height, width), x)
  back = jax.eval_shape(lambda z: vae.decode(params(vae), 1.0, z, frames, height, width), z)
  assert back.shape == x.shape


# Parts

@KINDS
@pytest.mark.parametrize('at_once, tile', [(2, None), (1, (2, 2)), (3, (1, 4))])
def test_parts_are_the_whole(vae, at_once, tile):
  """Time by exact state, tiles by what lies around them: odd frames, odd size."""
  encode, decode = compiled(vae)
  x = video(19, 30, 47)
  z = encode(x)
  assert_same(vae.encode_in_parts(params(vae), 0.7, x, at_once, tile), z)
  whole = vae.cut(decode(z), 19, 30, 47)
  assert_same(vae.decode_in_parts(params(vae), 0.7, z, 19, 30, 47, at_once, tile), whole)


def test_tiles_see_all_that_matters_and_no_less_would_do():
  """With a halo of one latent less a tile's edge differs: the halo is no guess."""
  wide = dataclasses.replace(CELLS, blocks=2, decoder_blocks=1)
  given = random_params(wide)
  x = video(4, 8, 160)
  whole = wide.encode(given, 1.0, x)
  assert wide.halo[0] < 20
  for less, same in ((0, True), (2, False)):
    tiles = video_parts.tiles((1, 20), (1, 2), wide.halo[0] - less)
    made = np.concatenate([np.asarray(wide.encode(
        given, 1.0, x[:, :, :, video_parts.scaled(columns.context, 8)]))[:, :, :, columns.inner]
        for _, columns in tiles], axis=3)
    assert np.allclose(made, whole, atol=1e-5) == same


@given(size=st.integers(1, 40), tile=st.integers(1, 12), halo=st.integers(0, 9))
def test_tiles_cover_a_grid_once_and_are_all_of_one_size(size, tile, halo):
  spans = [columns for _, columns in video_parts.tiles((1, size), (1, tile), halo)]
  covered = np.concatenate([np.arange(size)[span.tile] for span in spans])
  np.testing.assert_array_equal(covered, np.arange(size))
  assert len({span.context.stop - span.context.start for span in spans}) == 1
  for span in spans:
    np.testing.assert_array_equal(
        np.arange(size)[span.context][span.inner], np.arange(size)[span.tile])
    assert span.context.start <= max(span.tile.start - halo, 0)
    assert span.context.stop >= min(span.tile.stop + halo, size) and 0 <= span.context.start


@pytest.mark.slow
@pytest.mark.parametrize('scale, size', [('nano', (48, 64)), ('paper', (8, 16))])
def test_parts_are_the_whole_at_shipped_sizes(scale, size):
  config = video_vae.get_config(scale)
  config.video_codec.blocks = config.video_codec.decoder_blocks = 1  # all channels, fewer layers
  config.video_codec.middle = min(config.video_codec.middle, 1)
  codec = model_builder.build(config).modalities['video'].codec.vae
  given, x = random_params(codec), video(9, *size)
  tile = (2, 3) if scale == 'nano' else None
  whole = plain_jit(codec.encode)(given, 1.0, x)
  assert_same(codec.encode_in_parts(given, 1.0, x, 1, tile), whole)
  assert_same(codec.decode_in_parts(given, 1.0, whole, 9, latents_at_once=2, tile=tile),
              plain_jit(lambda p, z: codec.decode(p, 1.0, z, 9))(given, whole))


# Too little memory

class Device:
  """Decodes as the codec does, but for parts of more than so many latents."""

  def __init__(self, room):
    self.room, self.decode, self.sizes = room, video_parts._decode_part, []

  def __call__(self, vae, params, std, past, latents):
    if latents.size // latents.shape[-1] > self.room:
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.')
    self.sizes.append(latents.shape[1:4])
    return self.decode(vae, params, std, past, latents)


@pytest.mark.parametrize('room, parts, said', [
    (200, (2, 3, 30), '2 latents at a time'), (80, (1, 3, 25), 'in tiles of 3 × 15')])
def test_where_memory_is_short_smaller_parts_are_taken_and_said(
    monkeypatch, capsys, room, parts, said):
  vae = dataclasses.replace(CELLS, decoder_blocks=1)
  device = Device(room)
  monkeypatch.setattr(video_parts, '_decode_part', device)
  given, z = random_params(vae), latents(vae, 4, 3, 30)
  made = vae.decode_in_parts(given, 1.0, z)
  assert vae.halo[1] == 5 and parts in device.sizes
  assert said in capsys.readouterr().err.splitlines()[-1]
  assert_same(made, plain_jit(lambda z: vae.decode(given, 1.0, z))(z))


def test_where_no_part_is_small_enough_the_error_stays(monkeypatch):
  monkeypatch.setattr(video_parts, '_decode_part', Device(0))
  with pytest.raises(jax.errors.JaxRuntimeError, match='RESOURCE_EXHAUSTED'):
    CELLS.decode_in_parts(params(CELLS), 1.0, latents(CELLS, 2))


@given(height=st.integers(1, 40), width=st.integers(1, 70), at_once=st.integers(1, 9),
       halo=st.integers(0, 30))
def test_each_smaller_part_sees_less_until_none_can(height, width, at_once, halo):
  seen = lambda tile: np.prod(np.minimum(np.add(tile, 2 * halo), (height, width)))  # noqa: E731
  tile = None
  while (smaller := video_parts.halved((height, width), at_once, tile, halo)) is not None:
    less = smaller[0] < at_once or seen(smaller[1]) < seen(tile or (height, width))
    assert less
    at_once, tile = smaller
  assert at_once == 1 and seen((1, 1)) == seen(tile or (height, width))


# The layers

@pytest.mark.parametrize('kernel, strides', [
    ((3, 3, 3), (1, 1, 1)), ((3, 3, 3), (2, 2, 2)), ((3, 3, 3), (1, 2, 2)), ((1, 3, 3), (1, 1, 1)),
    ((1, 1, 1), (1, 1, 1))])
@pytest.mark.parametrize('size', [(6, 8), (5, 7)])
def test_pictures_added_up_are_the_3d_convolution(kernel, strides, size):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, 6, *size, 3), np.float32)
  k = rng.standard_normal((*kernel, 3, 5), np.float32)
  wanted = causal.convolve(x, k, strides)
  assert_same(causal.convolve_planes(x, k, strides), wanted)


def test_a_convolution_sees_its_own_instant_and_those_before():
  """Against the sum written out, at stride 1 and 2, over a past that stands still."""
  rng = np.random.default_rng(0)
  x = rng.standard_normal((1, 6, 1, 1, 2), np.float32)
  for stride in (1, 2):
    conv = CausalConv(1, (3, 1, 1), (stride, 1, 1))
    given = random_params(_Init(conv, x))
    out = conv.apply({'params': given}, x)[0, :, 0, 0, 0]
    still = np.concatenate([np.repeat(x[:, :1], 3 - stride, 1), x], 1)[0, :, 0, 0]
    wanted = [np.sum(still[stride * n:stride * n + 3] * given['kernel'][:, 0, 0, :, 0])
              for n in range(6 // stride)]
    np.testing.assert_allclose(out, wanted + given['bias'], rtol=1e-5)


@dataclasses.dataclass
class _Init:
  """A layer as `random_params` takes it."""
  layer: object
  x: object

  def init(self, key):
    return self.layer.init(key, self.x)['params']


def test_the_norm_is_of_one_position():
  x = np.random.default_rng(0).normal(3, 2, (1, 2, 3, 4, 32)).astype(np.float32)
  got = LocalNorm(affine=False).apply({}, x).reshape(-1, 2, 16)
  parts = x.reshape(-1, 2, 16)
  wanted = (parts - parts.mean(-1, keepdims=True)) / parts.std(-1, keepdims=True)
  np.testing.assert_allclose(got, wanted, atol=1e-4)


# The code

@KINDS
def test_decoding_takes_the_scale_out_again(vae):
  z = latents(vae, 2)
  np.testing.assert_allclose(compiled(vae)[1](z), vae.decode(params(vae), 1.0, 0.7 * z), atol=1e-4)


def test_the_linear_path_begins_as_a_projection():
  """With convolutions that say nothing a code is x·Q and comes back as x·Q·Qᵀ, of 4 × 8 × 8."""
  given = plain_jit(CELLS.init)(jax.random.key(0, impl='unsafe_rbg'))
  q = np.asarray(given['linear']['encode'])
  given = {**jax.tree.map(jnp.zeros_like, given), 'linear': given['linear']}
  np.testing.assert_allclose(q.T @ q, np.eye(3), atol=1e-6)
  x = video(4, 8, 8)
  z = plain_jit(CELLS.encode)(given, 1.0, x)
  np.testing.assert_allclose(z.reshape(3), x.reshape(-1) @ q, atol=1e-5)
  np.testing.assert_allclose(plain_jit(CELLS.decode)(given, 1.0, z).reshape(-1),
                             x.reshape(-1) @ q @ q.T, atol=1e-5)


@KINDS
def test_every_parameter_is_learnt_from_a_reconstruction(vae):
  def loss(p):
    x = video(8)
    return jnp.mean((vae.decode(p, 1.0, vae.moments(p, x)[0]) - x) ** 2)

  slopes = plain_jit(jax.grad(loss))(params(vae))
  for path, g in jax.tree_util.tree_leaves_with_path(slopes):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    assert np.isfinite(g).all() and np.any(g), name
    if name == 'encoder/last/kernel':  # whose other half makes the log-variances
      assert not np.any(g[..., vae.latent_channels:])


def test_pixels_go_there_and_back():
  every = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(as_uint8(as_float(every)), every)
  assert as_float(every).min() == -1 and as_float(every).max() == 1
  np.testing.assert_array_equal(as_uint8(np.array([-3.0, 3.0])), [0, 255])


@pytest.mark.parametrize('vae', [SMALL, CELLS, FRAMES], ids=['quarter', 'half', 'whole'])
@pytest.mark.parametrize('frames', [5, 8, 31])
def test_a_latents_time_is_the_mean_of_its_own_frames(vae, frames):
  codec, stride = VideoLatents('video', 6.0, vae, frames), vae.time_stride
  index = np.arange(frames) + -frames % stride  # behind the repeats in front
  means = [np.mean(np.arange(frames)[index // stride == n]) for n in range(index[-1] // stride + 1)]
  np.testing.assert_allclose(codec.seconds(len(means)), np.array(means) / 6)
