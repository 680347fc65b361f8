"""Synchformer: by how much a clip's audio is late against its video, between -2 and 2 seconds.

Both are cut into segments of 0.64 s, every 0.32 s, and each segment is embedded by itself: audio by
a transformer on its log-mel (AST), which gives six vectors in time; 16 frames of video by one whose
attention goes along time and across a frame in turn (Motionformer, divided attention), which gives
eight. A third transformer sees 14 segments of both, 4.8 s, and chooses one of 21 offsets,
-2, -1.8, ..., 2 s: the finest difference that it tells is 0.2 s, and nothing beyond 2 s.

Source: Iashin et al. 2024, `v-iashin/Synchformer`; as av-benchmark has it (frames 224 × 224 from
the centre at 25 a second, no other choice of segments, the model of AudioSet, 24-01-04T16-39-21);
names as in `synchformer_state_dict.pth`, which its project MMAudio publishes.
"""

import jax.numpy as jnp
import librosa
import numpy as np
from einops import rearrange, repeat
from PIL import Image

from avlink_jax.metrics.networks import transformer
from avlink_jax.metrics.networks.layers import conv, linear

SAMPLE_RATE, FPS = 16000, 25
SEGMENT, STEP = 10240, 5120  # samples
SEGMENT_FRAMES, STEP_FRAMES = 16, 8
SEGMENTS = 14  # that are compared at once
SHORTEST = (SEGMENT + (SEGMENTS - 1) * STEP) / SAMPLE_RATE  # seconds
OFFSETS = np.linspace(-2, 2, 21)  # seconds
WINDOW, HOP, N_FFT, BANDS = 400, 160, 1024, 128
LOG_OFFSET = 1e-6  # of power
FRAMES = 66  # of a segment's log-mel, of which the last is empty
MEL_MEAN, MEL_STD = -4.2677393, 4.5689974
SIZE = 224  # pixels
HEADS, COMPARING_HEADS = 12, 8
PATCH_STRIDE = 10  # of log-mels
AST_EPS, COMPARING_EPS = 1e-12, 1e-5


def prepare_audio(wave):
  """Log-mels float32 (segments, 66, 128) of audio (S,) at 16 kHz, S >= 10,240."""
  wave = np.asarray(wave, np.float32)
  segments = np.lib.stride_tricks.sliding_window_view(wave, SEGMENT)[::STEP]
  spectrum = librosa.feature.melspectrogram(
      y=segments, sr=SAMPLE_RATE, n_fft=N_FFT, win_length=WINDOW, hop_length=HOP, center=True,
      pad_mode='reflect', power=2.0, n_mels=BANDS, fmin=0.0, htk=True, norm=None)
  mel = np.log(np.swapaxes(spectrum, 1, 2) + LOG_OFFSET)
  mel = np.pad(mel, ((0, 0), (0, FRAMES - mel.shape[1]), (0, 0)))
  return ((mel - MEL_MEAN) / (2 * MEL_STD)).astype(np.float32)


def prepare_video(frames):
  """Centres uint8 (segments, 16, 224, 224, 3) of frames (N, H, W, 3) at 25 a second, N >= 16."""
  height, width = frames.shape[1:3]
  height, width = ((SIZE, int(width * SIZE / height)) if height <= width else
                   (int(height * SIZE / width), SIZE))
  top, left = round((height - SIZE) / 2), round((width - SIZE) / 2)
  frames = np.stack([np.asarray(Image.fromarray(frame).resize(
      (width, height), Image.Resampling.BICUBIC))[top:top + SIZE, left:left + SIZE]
      for frame in frames])
  return np.stack([frames[first:first + SEGMENT_FRAMES]
                   for first in range(0, len(frames) - SEGMENT_FRAMES + 1, STEP_FRAMES)])


def rename(arrays):
  """Names as in the checkpoint. Raises KeyError: what compares is not among them."""
  arrays['transformer.off_head.weight']
  return arrays


def forward_audio(weights, x):
  """Embeds log-mels (B, 66, 128): {'embedding': (B, 6 * 768)}, six vectors in time."""
  root = 'afeat_extractor.ast'
  x = conv(weights, f'{root}.embeddings.patch_embeddings.projection',
           rearrange(x, 'b t f -> b f t 1'), PATCH_STRIDE)
  bands = x.shape[1]
  tokens = jnp.concatenate([weights[f'{root}.embeddings.{name}_token']
                            for name in ('cls', 'distillation')], 1)
  x = jnp.concatenate([repeat(tokens, '1 l c -> b l c', b=len(x)),
                       rearrange(x, 'b f t c -> b (f t) c')], 1)
  x = x + weights[f'{root}.embeddings.position_embeddings']
  for name in transformer.numbered(weights, f'{root}.encoder.layer', 'layernorm_before.weight'):
    given = transformer.layer_norm(weights, f'{name}.layernorm_before', x, AST_EPS)
    q, k, v = (linear(weights, f'{name}.attention.attention.{part}', given)
               for part in ('query', 'key', 'value'))
    x = x + linear(weights, f'{name}.attention.output.dense',
                   transformer.attend(q, k, v, HEADS))
    x = x + transformer.mlp(
        weights, f'{name}.intermediate.dense', f'{name}.output.dense',
        transformer.layer_norm(weights, f'{name}.layernorm_after', x, AST_EPS))
  x = transformer.layer_norm(weights, f'{root}.layernorm', x, AST_EPS)[:, 2:]
  x = rearrange(x, 'b (f t) c -> b t f c', f=bands)
  return {'embedding': _gathered(weights, 'afeat_extractor.freq_attn_agg', x)}


def forward_video(weights, x):
  """Embeds frames (B, 16, 224, 224, 3) of 0 to 255: {'embedding': (B, 8 * 768)}, eight in time."""
  root = 'vfeat_extractor'
  name = f'{root}.patch_embed_3d.proj'
  x = conv(weights, name, x / 127.5 - 1.0, weights[f'{name}.weight'].shape[2:])
  frames = x.shape[1]
  position = weights[f'{root}.pos_embed']
  x = rearrange(x, 'b t h w c -> b t (h w) c') + position[:, None, 1:]
  x = rearrange(x + weights[f'{root}.temp_embed'][:, :, None], 'b t n c -> b (t n) c')
  first = repeat(weights[f'{root}.cls_token'] + position[:, :1], '1 1 c -> b 1 c', b=len(x))
  x = jnp.concatenate([first, x], 1)
  for name in transformer.numbered(weights, f'{root}.blocks', 'norm1.weight'):
    x = x + _divided(weights, f'{name}.timeattn', transformer.layer_norm(
        weights, f'{name}.norm3', x), frames, along_time=True)
    x = x + _divided(weights, f'{name}.attn', transformer.layer_norm(
        weights, f'{name}.norm1', x), frames, along_time=False)
    x = x + transformer.mlp(weights, f'{name}.mlp.fc1', f'{name}.mlp.fc2',
                            transformer.layer_norm(weights, f'{name}.norm2', x))
  x = transformer.layer_norm(weights, f'{root}.norm', x[:, 1:])
  x = rearrange(x, 'b (t n) c -> b t n c', t=frames)
  return {'embedding': _gathered(weights, f'{root}.spatial_attn_agg', x)}


def _divided(weights, name, x, frames, along_time):
  """Attention of x (B, 1 + T * N, C): the first token attends to all; any other to the first and to
  those at its own place in all frames, or in its own frame at all places."""
  q, k, v = jnp.split(linear(weights, f'{name}.qkv', x), 3, -1)
  first = transformer.attend(q[:, :1], k, v, HEADS)
  apart = 'b (t n) c -> b n t c' if along_time else 'b (t n) c -> b t n c'
  queries, keys, values = (rearrange(part[:, 1:], apart, t=frames) for part in (q, k, v))
  keys, values = (jnp.concatenate([repeat(part[:, :1], 'b 1 c -> b g 1 c', g=group.shape[1]),
                                   group], 2) for part, group in ((k, keys), (v, values)))
  others = transformer.attend(queries, keys, values, HEADS)
  back = 'b n t c -> b (t n) c' if along_time else 'b t n c -> b (t n) c'
  return linear(weights, f'{name}.proj', jnp.concatenate([first, rearrange(others, back)], 1))


def _gathered(weights, name, x):
  """Vector of each time, of the places there: x (B, T, N, C) -> (B, T * C)."""
  times = x.shape[1]
  x = rearrange(x, 'b t n c -> (b t) n c')
  x = jnp.concatenate([repeat(weights[f'{name}.cls_token'], '1 1 c -> b 1 c', b=len(x)), x], 1)
  x = x + transformer.attention(weights, f'{name}.self_attn',
                                transformer.layer_norm(weights, f'{name}.norm1', x), HEADS)
  x = x[:, 0]
  x = x + transformer.mlp(weights, f'{name}.linear1', f'{name}.linear2',
                          transformer.layer_norm(weights, f'{name}.norm2', x))
  return rearrange(x, '(b t) c -> b (t c)', t=times)


def compare(weights, audio, video):
  """Logits (B, 21) of OFFSETS, of rows of both: (B, 14, 6 * 768) and (B, 14, 8 * 768)."""
  width, root = len(weights['aproj.bias']), 'transformer'
  video, audio = (transformer.layer_norm(
      weights, f'{root}.{kind}_in_lnorm',
      linear(weights, f'{kind[0]}proj', rearrange(rows, 'b s (t c) -> b (s t) c', c=width)),
      COMPARING_EPS) for kind, rows in (('vis', video), ('aud', audio)))
  first, between = (repeat(weights[f'{root}.{kind}_tok'], '1 1 c -> b 1 c', b=len(audio))
                    for kind in ('OFF', 'MOD'))
  x = jnp.concatenate([first, video, between, audio], 1) + weights[f'{root}.pos_emb_cfg.pos_emb']
  for name in transformer.numbered(weights, f'{root}.blocks', 'ln1.weight'):
    given = transformer.layer_norm(weights, f'{name}.ln1', x, COMPARING_EPS)
    q, k, v = (linear(weights, f'{name}.attn.{part}', given) for part in ('query', 'key', 'value'))
    x = x + linear(weights, f'{name}.attn.proj', transformer.attend(q, k, v, COMPARING_HEADS))
    x = x + transformer.mlp(weights, f'{name}.mlp.0', f'{name}.mlp.2',
                            transformer.layer_norm(weights, f'{name}.ln2', x, COMPARING_EPS))
  x = transformer.layer_norm(weights, f'{root}.ln_f', x[:, 0], COMPARING_EPS)
  return linear(weights, f'{root}.off_head', x)


def desync(compared, audio, video) -> float:
  """Mean absolute offset in seconds of a clip's first 14 segments and of its last 14.

  Args:
    compared: `compare` with its weights.
    audio, video: rows (S, 6 * 768) and (S', 8 * 768), S, S' >= 14.
  """
  ends = [np.stack([rows[:SEGMENTS], rows[-SEGMENTS:]]) for rows in (audio, video)]
  return float(np.abs(OFFSETS[np.argmax(compared(*ends), -1)]).mean())
