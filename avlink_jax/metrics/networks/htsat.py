"""HTS-AT: LAION-CLAP's audio encoder, a Swin transformer on a folded log-mel.

Ten seconds at 48 kHz; the log-mel (64 bands) is stretched to 1024 frames and folded into a square
of four quarters, one under the other. Then patches of 4 × 4, and stages of blocks whose attention
stays in windows of 8 × 8, which every second block shifts by half; between stages four neighbours
become one. Depths, heads and widths are read from the weights.

Source: Chen et al. 2022, `LAION-AI/CLAP` (clap_module/htsat.py); names as in its checkpoints.
"""

import functools

import jax.numpy as jnp
import librosa
import numpy as np
from einops import rearrange

from avlink_jax.metrics.networks import transformer
from avlink_jax.metrics.networks.layers import batch_norm, conv, linear

SAMPLE_RATE, SECONDS = 48000, 10
WINDOW, HOP, BANDS, LOWEST, HIGHEST = 1024, 480, 64, 50, 14000
FLOOR = 1e-10  # of power
FOLDS, STRETCHED = 4, 1024  # quarters, and frames of all of them
EPS = 1e-5
MASKED = -100.0
SHARPNESS = -0.75  # torch's bicubic kernel


def prepare(wave):
  """Log-mels float32 (P, 1001, 64), dB, of each ten seconds of audio (S,) at 48 kHz.

  Shorter pieces are repeated as often as they fit whole, then followed by silence."""
  wave, size = np.asarray(wave, np.float32), SECONDS * SAMPLE_RATE
  pieces = [wave[first:first + size] for first in range(0, len(wave), size)] or [
      np.zeros(size, np.float32)]
  filled = np.zeros((len(pieces), size), np.float32)
  for row, piece in zip(filled, pieces, strict=True):
    repeated = np.tile(piece, size // len(piece))
    row[:len(repeated)] = repeated
  mel = librosa.feature.melspectrogram(
      y=filled, sr=SAMPLE_RATE, n_fft=WINDOW, hop_length=HOP, center=True, pad_mode='reflect',
      n_mels=BANDS, fmin=LOWEST, fmax=HIGHEST, power=2.0)
  return (10 * np.log10(np.maximum(np.swapaxes(mel, 1, 2), FLOOR))).astype(np.float32)


@functools.cache
def stretching(count, wanted):
  """Matrix (wanted, count) of bicubic interpolation whose ends stay where they are.

  Its places are float32, as torch has them: the network was trained so, and 1e-4 shows."""
  def near(x):
    return ((SHARPNESS + 2) * x - (SHARPNESS + 3)) * x * x + 1

  def far(x):
    return ((SHARPNESS * x - 5 * SHARPNESS) * x + 8 * SHARPNESS) * x - 4 * SHARPNESS

  places = np.arange(wanted, dtype=np.float32) * np.float32((count - 1) / (wanted - 1))
  whole = np.floor(places).astype(int)
  rest = places - whole
  matrix = np.zeros((wanted, count))
  for shift, weight in ((-1, far(rest + 1)), (0, near(rest)), (1, near(1 - rest)),
                        (2, far(2 - rest))):
    np.add.at(matrix, (np.arange(wanted), np.clip(whole + shift, 0, count - 1)), weight)
  return matrix.astype(np.float32)


def forward(weights, x, root='audio_branch'):
  """Embeds log-mels (B, T, 64), T <= 1024: (B, C)."""
  x = batch_norm(weights, f'{root}.bn0', x, EPS)
  if x.shape[1] < STRETCHED:
    x = jnp.einsum('wt,btf->bwf', stretching(x.shape[1], STRETCHED), x)
  x = rearrange(x, 'b (fold t) f -> b (fold f) t 1', fold=FOLDS)
  name = f'{root}.patch_embed.proj'
  x = conv(weights, name, x, weights[f'{name}.weight'].shape[-1])
  x = transformer.layer_norm(weights, f'{root}.patch_embed.norm', x, EPS)
  for stage in transformer.numbered(weights, f'{root}.layers', 'blocks.0.norm1.weight'):
    for number, block in enumerate(transformer.numbered(weights, f'{stage}.blocks',
                                                        'norm1.weight')):
      x = x + _windowed(weights, f'{block}.attn', transformer.layer_norm(
          weights, f'{block}.norm1', x, EPS), shifted=number % 2 == 1)
      x = x + transformer.mlp(weights, f'{block}.mlp.fc1', f'{block}.mlp.fc2',
                              transformer.layer_norm(weights, f'{block}.norm2', x, EPS))
    if f'{stage}.downsample.reduction.weight' in weights:
      x = rearrange(x, 'b (h i) (w j) c -> b h w (j i c)', i=2, j=2)
      x = transformer.layer_norm(weights, f'{stage}.downsample.norm', x, EPS)
      x = x @ weights[f'{stage}.downsample.reduction.weight'].T
  return transformer.layer_norm(weights, f'{root}.norm', x, EPS).mean((1, 2))


def _windowed(weights, name, x, shifted):
  """Attention of x (B, H, W, C) within windows, which are not shifted where one covers all."""
  table = weights[f'{name}.relative_position_bias_table']  # ((2 * size - 1) ** 2, heads)
  size, heads = (round(len(table) ** 0.5) + 1) // 2, table.shape[1]
  height, width = x.shape[1:3]
  shift = size // 2 if shifted and min(height, width) > size else 0
  x = jnp.roll(x, (-shift, -shift), (1, 2))
  x = rearrange(x, 'b (h i) (w j) c -> b (h w) (i j) c', i=size, j=size)
  bias = jnp.moveaxis(table[_relative(size)], -1, 0)
  if shift:
    bias = bias + _apart(height, width, size, shift)[:, None]
  q, k, v = jnp.split(linear(weights, f'{name}.qkv', x), 3, -1)
  x = linear(weights, f'{name}.proj', transformer.attend(q, k, v, heads, bias))
  x = rearrange(x, 'b (h w) (i j) c -> b (h i) (w j) c', h=height // size, i=size)
  return jnp.roll(x, (shift, shift), (1, 2))


def _relative(size):
  """Rows of the table of biases for each two places of a window: int (size², size²)."""
  row, column = (places.ravel() for places in np.indices((size, size)))
  apart = [axis[:, None] - axis[None] + size - 1 for axis in (row, column)]
  return apart[0] * (2 * size - 1) + apart[1]


def _apart(height, width, size, shift):
  """Mask (windows, size², size²): what a shift brought together from opposite ends is not seen."""
  regions = [np.digitize(np.arange(side), (side - size, side - shift)) for side in (height, width)]
  label = rearrange(regions[0][:, None] * 3 + regions[1][None],
                    '(h i) (w j) -> (h w) (i j)', i=size, j=size)
  return np.where(label[:, :, None] == label[:, None], 0.0, MASKED).astype(np.float32)
