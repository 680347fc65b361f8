"""ImageBind: audio, images and video in one space of 1024 dimensions.

Two of its trunks, a ViT each. Audio: log-mels of two seconds as an image. Video: two frames as one
input; a single image is repeated. Each row has length 1. As in the public code, a clip is three
pieces of audio, or five pieces of video of two seconds (their first and last frames) in three crops
each, or one image a second, cropped to its centre. For av-benchmark's score a clip's video is one
image every two seconds, each pair of neighbours in three crops.

Source: Girdhar et al. 2023, `facebookresearch/ImageBind` (data.py, models/); names as in its
checkpoint `imagebind_huge.pth`. Frames are read at 12 a second here, not at the video's own rate.
"""

import cv2
import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat
from PIL import Image

from avlink_jax.metrics.networks import kaldi_mel, transformer
from avlink_jax.metrics.networks.layers import conv

SAMPLE_RATE, FPS = kaldi_mel.SAMPLE_RATE, 12
PIECE = 2.0  # seconds
AUDIO_PIECES, VIDEO_PIECES = 3, 5  # of a clip
BANDS, FRAMES = 128, 204  # of a piece of audio
MEL_MEAN, MEL_STD = -4.268, 9.138
SIZE = 224  # pixels
MEAN = np.float32([0.48145466, 0.4578275, 0.40821073])  # CLIP's
STD = np.float32([0.26862954, 0.26130258, 0.27577711])
HEADS = {'vision': 16, 'audio': 12}
STEM_EPS = 1e-5


def starts(seconds, count):
  """Starts of pieces, evenly spaced over the clip, in seconds; one where it is no longer."""
  last = max(seconds - PIECE, 0.0)
  return np.linspace(0, last, count) if last else np.zeros(1)


def prepare_audio(wave):
  """Log-mels float32 (P, 128, 204, 1), P <= 3, of audio (S,) at 16 kHz; padded with 0."""
  wave, size = np.asarray(wave, np.float64), round(PIECE * SAMPLE_RATE)
  pieces = []
  for start in starts(len(wave) / SAMPLE_RATE, AUDIO_PIECES):
    first = int(start * SAMPLE_RATE + 1e-6)
    mel = kaldi_mel.log_mel(wave[first:first + size], BANDS)[:FRAMES]
    pieces.append(np.pad(mel, ((0, FRAMES - len(mel)), (0, 0))).T)
  return ((np.stack(pieces) - MEL_MEAN) / MEL_STD).astype(np.float32)[..., None]


def prepare_images(frames):
  """Centre crops of frames uint8 (N, H, W, 3), each twice: float32 (N, 2, 224, 224, 3)."""
  cropped = []
  for frame in frames:
    frame = _resampled(frame)
    top, left = (round((side - SIZE) / 2) for side in frame.shape[:2])
    cropped.append(frame[top:top + SIZE, left:left + SIZE])
  return repeat(_normalised(np.stack(cropped)), 'n h w c -> n two h w c', two=2)


def prepare_video(frames):
  """Crops of pieces of video uint8 (N, H, W, 3) at 12 Hz: float32 (P, 2, 224, 224, 3), P <= 15."""
  height, width = _resized(*frames.shape[1:3])
  pieces = []
  for start in starts(len(frames) / FPS, VIDEO_PIECES):
    first = round(start * FPS)
    last = min(first + round(PIECE * FPS), len(frames)) - 1
    pieces.append([cv2.resize(frames[k].astype(np.float32), (width, height),
                              interpolation=cv2.INTER_LINEAR) for k in (first, last)])
  return _crops(_normalised(np.array(pieces)))


def prepare_pairs(frames):
  """Crops of frames uint8 (N, H, W, 3), N >= 2, each with the next: float32
  ((N - 1) * 3, 2, 224, 224, 3), as av-benchmark has them."""
  images = _normalised(np.stack([_resampled(frame) for frame in frames]))
  return _crops(np.stack([images[:-1], images[1:]], 1))


def _crops(pieces):
  """Both ends and the middle of pieces (N, T, H, W, 3), one side 224: (N * 3, T, 224, 224, 3)."""
  height, width = pieces.shape[2:4]
  over = max(height, width) - SIZE
  crops = [pieces[..., at:at + SIZE, :, :] if height > width
           else pieces[..., :, at:at + SIZE, :] for at in (0, -(-over // 2), over)]
  return rearrange(np.array(crops), 'crop n t h w c -> (n crop) t h w c')


def _resampled(frame):
  """Frame uint8 (H, W, 3) with its shorter side 224: bicubic, smoothed."""
  height, width = _resized(*frame.shape[:2])
  return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


def _resized(height, width):
  """Size with the shorter side 224 and the other in proportion, rounded down."""
  return (int(height * SIZE / width), SIZE) if width < height else (
      SIZE, int(width * SIZE / height))


def _normalised(frames):
  return (frames / np.float32(255) - MEAN) / STD


def forward_vision(weights, x):
  """Embeds image pairs (B, 2, 224, 224, 3): {'embedding': (B, 1024)}."""
  name = 'modality_preprocessors.vision.rgbt_stem.proj.1'
  x = conv(weights, name, x, weights[f'{name}.weight'].shape[2:])
  x = _with_positions(weights, 'vision', rearrange(x, 'b t h w c -> b (t h w) c'))
  x = transformer.layer_norm(weights, 'modality_trunks.vision.pre_transformer_layer.0', x)
  return _embedded(weights, 'vision', x)


def forward_audio(weights, x):
  """Embeds log-mels (B, 128, 204, 1): {'embedding': (B, 1024)}."""
  stem = 'modality_preprocessors.audio.rgbt_stem'
  x = rearrange(conv(weights, f'{stem}.proj', x, 10), 'b h w c -> b (h w) c')
  x = transformer.layer_norm(weights, f'{stem}.norm_layer', x, STEM_EPS)
  return _embedded(weights, 'audio', _with_positions(weights, 'audio', x))


def _with_positions(weights, kind, x):
  """Prepends the class token and adds position embeddings."""
  name = f'modality_preprocessors.{kind}'
  class_token = repeat(weights[f'{name}.cls_token'], '1 1 c -> b 1 c', b=len(x))
  return jnp.concatenate([class_token, x], 1) + weights[f'{name}.pos_embedding_helper.pos_embed']


def _embedded(weights, kind, x):
  x = transformer.blocks(weights, f'modality_trunks.{kind}.blocks', x, HEADS[kind])
  x = transformer.layer_norm(weights, f'modality_heads.{kind}.0', x[:, 0])
  x = x @ weights[f'modality_heads.{kind}.2.weight'].T
  return {'embedding': x / jnp.linalg.norm(x, axis=-1, keepdims=True)}
