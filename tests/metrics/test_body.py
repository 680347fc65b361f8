"""The detector of moving bodies: its NumPy form against Flax, and what it finds and does not."""

import jax
import numpy as np
import pytest

from avlink_jax.data.impacts import Impacts
from avlink_jax.metrics import body, body_training


@pytest.fixture(scope='module')
def world():
  return Impacts('test', size=12)


def test_it_computes_what_flax_does():
  network = body_training.Detector()
  x = np.random.default_rng(0).uniform(-1, 1, (2, 36, 64, 9)).astype(np.float32)
  frames = np.random.default_rng(1).integers(0, 256, (4, 36, 64, 3), np.uint8)
  params = network.init(jax.random.key(0), x)['params']
  params = jax.tree.map(lambda leaf: leaf + 0.05 * np.sin(np.arange(leaf.size)).reshape(leaf.shape),
                        params)
  arrays = {f'{layer}/{name}': np.asarray(leaf)
            for layer, leaves in params.items() for name, leaf in leaves.items()}
  logits = network.apply({'params': params}, body.seen(frames))
  np.testing.assert_allclose(
      body.probabilities(frames, arrays), jax.nn.sigmoid(logits), atol=2e-5)


def test_it_finds_the_bodies_of_true_clips_where_they_are(world):
  right, found = [], []
  for i in range(world.size):
    frames = world.load(i).frames
    cells = body_training.wanted(world.scene(i), np.arange(len(frames)) / body.FPS)
    shown = cells.any((1, 2))
    probabilities = body.probabilities(frames).reshape(len(frames), -1)
    near = body_training.spread(cells).reshape(len(frames), -1) > 0
    right.append(near[np.arange(len(frames)), probabilities.argmax(1)][shown].mean())
    found.append((probabilities.max(1) >= body.FOUND)[shown].mean())
  assert np.mean(found) > 0.95 and np.mean(right) > 0.95


@pytest.mark.parametrize('patch', [(12, 16), (18, 16)])
def test_it_finds_few_under_tiles(world, patch):
  rng = np.random.default_rng(0)
  found = [body.scores(body_training.tiled(world.load(i).frames, patch, 0.25, rng))[0]
           for i in range(6)]
  assert np.mean(found) < 0.3


def test_it_finds_few_blots_and_mixed_parts(world):
  rng, found = np.random.default_rng(0), []
  for i in range(6):
    frames = world.load(i).frames
    cells = body_training.wanted(world.scene(i), np.arange(len(frames)) / body.FPS)
    for k in np.flatnonzero(cells.any((1, 2)))[1:-1:4]:
      changed = body_training.spoiled(frames[k - 1:k + 2], cells[k], rng)
      found.append(body.probabilities(changed)[1].max() >= body.FOUND)
  assert np.mean(found) < 0.4
