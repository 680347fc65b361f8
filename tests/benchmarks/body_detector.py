"""Detector of the moving body of impacts, trained on true frames: is what should move there to be
seen?

A small convolutional network over three neighbouring frames says for each cell of 4×4 pixels
whether the middle of a body that makes sounds lies in it. What does not look like such a body is
not found, so a generated clip is judged by how often one is found, and how surely.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from avlink_jax.data.impacts import Impacts

HEIGHT, WIDTH, FPS, CELL = 36, 64, 6.0, 4  # pixels, frames a second, pixels
FOUND = 0.5  # probability from which on a body counts as found
STEPS, BATCH, CLIPS = 1500, 64, 1024
AHEAD, BEHIND = 1, 1  # neighbouring frames that it sees


class Detector(nn.Module):
  """Frames (B, 36, 64, 9) in [−1, 1], of three moments -> logits (B, 9, 16)."""

  @nn.compact
  def __call__(self, x):
    for width, stride in ((24, 1), (32, 2), (48, 2), (48, 1), (48, 1)):
      x = nn.relu(nn.GroupNorm(8)(nn.Conv(width, (3, 3), (stride, stride))(x)))
    return nn.Conv(1, (1, 1))(x)[..., 0]


def seen(frames):
  """Input (N, 36, 64, 9) of the detector for frames uint8 (N, 36, 64, 3) of a clip."""
  padded = np.concatenate([frames[:1]] * BEHIND + [frames] + [frames[-1:]] * AHEAD)
  moments = [padded[k:k + len(frames)] for k in range(AHEAD + BEHIND + 1)]
  return np.concatenate(moments, axis=-1).astype(np.float32) / 127.5 - 1


def wanted(scene, times):
  """Cells (N, 9, 16) in which a sounding body's middle lies, 1 or 0."""
  cells = np.zeros((len(times), HEIGHT // CELL, WIDTH // CELL), np.float32)
  x, y, zoom = scene.camera.at(times)
  for body in scene.bodies:
    if body.role != 'mover':
      continue
    pose = body.path(times)
    column = ((pose.x - x) * zoom * HEIGHT + WIDTH / 2) / CELL
    row = ((pose.y - y) * zoom * HEIGHT + HEIGHT / 2) / CELL
    inside = ((pose.grow > 0.3) & (0 <= column) & (column < cells.shape[2]) & (0 <= row)
              & (row < cells.shape[1]))
    moments = np.flatnonzero(inside)
    cells[moments, row[moments].astype(int), column[moments].astype(int)] = 1
  return cells


def spread(cells):
  """Cells (N, H, W) with half the weight on their neighbours: a middle may lie on a border."""
  padded = np.pad(cells, ((0, 0), (1, 1), (1, 1)))
  neighbours = np.max([padded[:, i:i + cells.shape[1], j:j + cells.shape[2]]
                       for i in range(3) for j in range(3)], axis=0)
  return np.maximum(cells, 0.5 * neighbours)


def train(clips=CLIPS, steps=STEPS, seed=0):
  """Detector trained on true frames of the train split: function frames uint8 (N, 36, 64, 3) of a
  clip -> probabilities (N, 9, 16)."""
  source, rng = Impacts('train', size=clips), np.random.default_rng(seed)
  inputs, answers = [], []
  for i in range(clips):
    frames = source.load(i).frames
    inputs.append(frames)
    answers.append(spread(wanted(source.scene(i), np.arange(len(frames)) / FPS)))
  network = Detector()
  params = network.init(jax.random.key(seed), jnp.zeros((1, HEIGHT, WIDTH, 9)))
  optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
  state = optimiser.init(params)

  @jax.jit
  def step(params, state, x, y):
    def loss(params):
      # Few cells hold a body: those weigh more.
      error = optax.sigmoid_binary_cross_entropy(network.apply(params, x), y)
      return jnp.mean(error * (1 + 10 * y))

    value, gradient = jax.value_and_grad(loss)(params)
    change, state = optimiser.update(gradient, state)
    return optax.apply_updates(params, change), state, value

  for _ in range(steps):
    chosen = rng.integers(clips, size=BATCH)
    at = [rng.integers(len(inputs[i])) for i in chosen]
    x = np.stack([seen(inputs[i])[k] for i, k in zip(chosen, at, strict=True)])
    y = np.stack([answers[i][k] for i, k in zip(chosen, at, strict=True)])
    params, state, _ = step(params, state, x, y)
  forward = jax.jit(functools.partial(network.apply, params))
  return lambda frames: np.asarray(jax.nn.sigmoid(forward(seen(frames))))


def scores(detector, frames):
  """(share of a clip's frames in which a body is found, mean of the highest probabilities)."""
  surest = detector(frames).max((1, 2))
  return float(np.mean(surest >= FOUND)), float(np.mean(surest))
