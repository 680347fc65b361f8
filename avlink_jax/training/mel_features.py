"""Training of the small network of the 1D-VAE's perceptual loss (`codecs/perceptual.py`).

    python -m avlink_jax.training.mel_features OUT.safetensors

It learns to recognise the materials and the kind of scene in crops of log-mels of `impacts`. These
differ in partials, decays and attacks, so its features depend on those. It takes less than three
minutes on two CPU cores.
"""

import functools
import json
import pathlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from avlink_jax.codecs.mel import MelSpec, log_mel, normalise
from avlink_jax.codecs.perceptual import MelFeatures
from avlink_jax.data.impacts import Impacts
from avlink_jax.data.impacts.kinds import KINDS
from avlink_jax.data.impacts.materials import MATERIALS
from avlink_jax.storage import weights

CLIPS, VALIDATION = 2048, 256
STEPS, BATCH, FRAMES = 1200, 32, 192  # about two contacts a crop
RATE = 3e-3


class Classifier(nn.Module):
  """Classifier: images (B, T, n_mels, 1) -> logits of kinds (B, 8) and of materials (B, 8)."""

  @nn.compact
  def __call__(self, image):
    features = MelFeatures(name='features')(image)[-1]
    # Pooling keeps the frequency axis: a partial's pitch is as informative as its shape.
    pooled = jnp.concatenate([features.mean(1), features.max(1)], -1).reshape(len(image), -1)
    return nn.Dense(len(KINDS))(pooled), nn.Dense(len(MATERIALS))(pooled)


def labelled_images(split, count):
  """Images (N, T, n_mels, 1), kinds int (N,), audible materials float (N, 8)."""
  spec = MelSpec()
  source = Impacts(split, size=count, height=9, width=16, fps=1.0)  # frames are unused
  kinds, materials, images = [], np.zeros((count, len(MATERIALS)), np.float32), []
  for i in range(count):
    scene = source.scene(i)
    kinds.append(sorted(KINDS).index(scene.kind))
    for pair in np.unique(scene.pair):
      materials[i, [list(MATERIALS).index(name) for name in scene.pairs[pair]]] = 1
    mel = log_mel(normalise(source.load(i).audio), spec)
    images.append((1 - mel / spec.silence)[..., None].astype(np.float16))
  return np.stack(images), np.array(kinds), materials


def loss(params, images, kinds, materials):
  """Cross-entropies of the kind and of each material; (scalar, accuracies (2,))."""
  kind_logits, material_logits = Classifier().apply(params, images)
  total = (optax.softmax_cross_entropy_with_integer_labels(kind_logits, kinds).mean()
           + optax.sigmoid_binary_cross_entropy(material_logits, materials).sum(-1).mean())
  return total, jnp.array([jnp.mean(kind_logits.argmax(-1) == kinds),
                           jnp.mean((material_logits > 0) == (materials > 0))])


def train(steps=STEPS, clips=CLIPS, validation=VALIDATION, seed=0):
  """Trains: (parameters of MelFeatures, validation accuracies {'kind', 'material'})."""
  images, kinds, materials = labelled_images('train', clips)
  optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def update(params, state, *batch):
    (value, _), gradients = jax.value_and_grad(loss, has_aux=True)(params, *batch)
    updates, state = optimizer.update(gradients, state)
    return optax.apply_updates(params, updates), state, value

  params = jax.jit(Classifier().init)(jax.random.key(seed), jnp.zeros((1, FRAMES, 64, 1)))
  state = optimizer.init(params)
  for step in range(steps):
    rng = np.random.default_rng((seed, step))
    rows = rng.integers(clips, size=BATCH)
    starts = rng.integers(images.shape[1] - FRAMES + 1, size=BATCH)
    crops = np.stack([images[row, start:start + FRAMES] for row, start in
                      zip(rows, starts, strict=True)])
    # Random loudness, which is independent of the material.
    crops = crops.astype(np.float32) + rng.uniform(-0.1, 0.1, (BATCH, 1, 1, 1)).astype(np.float32)
    params, state, value = update(params, state, crops, kinds[rows], materials[rows])
    if step % 100 == 0:
      print(f'step {step}: loss {value:.3f}', file=sys.stderr, flush=True)
  images, kinds, materials = labelled_images('validation', validation)
  _, accuracies = jax.jit(loss)(params, images[:, :FRAMES].astype(np.float32), kinds, materials)
  names = ('kind', 'material')
  return params['params']['features'], dict(zip(names, accuracies.tolist(), strict=True))


def main():
  out, = sys.argv[1:]
  params, accuracies = train()
  about = {'made_by': 'python -m avlink_jax.training.mel_features', 'steps': STEPS, 'seed': 0,
           **{f'{name}_accuracy': f'{value:.3f}' for name, value in accuracies.items()}}
  weights.save(out, {'params': params}, about, dtype=np.float16)
  print(json.dumps({'bytes': pathlib.Path(out).stat().st_size, **about}))


if __name__ == '__main__':
  main()
