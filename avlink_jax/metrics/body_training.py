"""Training of the detector of moving bodies (body.py) on frames of `impacts`.

    python -m avlink_jax.metrics.body_training OUT.npz [--clips=1024] [--steps=1500]

makes it, and prints what it finds in 64 clips of the validation split, and in these spoiled. Half
of the frames that it learns from are true, some with a little grain; of the others the bodies are
spoiled (blurred to blots, cut into blocks that change places, or under tiles), and there nothing is
to be found. The bundled one was made so, in 7 minutes of one core.
"""

import argparse
import json
import sys

import cv2
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from avlink_jax.data.impacts import Impacts
from avlink_jax.metrics import body
from avlink_jax.metrics.body import AHEAD, BEHIND, CELL, HEIGHT, WIDTH

STEPS, BATCH, CLIPS = 1500, 64, 1024
RATE, WEIGHT = 3e-3, 10  # Adam's first rate; of cells with a body, which are few
REACH = 7  # pixels around a body's middle that are spoiled
GRAIN = 4.0  # deviation of a true frame's noise, at most, of 255
TESTED = 64  # clips


class Detector(nn.Module):
  """Frames (B, 36, 64, 9) in [−1, 1], of three moments -> logits (B, 9, 16)."""

  @nn.compact
  def __call__(self, x):
    for width, stride in body.LAYERS:
      x = nn.Conv(width, (3, 3), (stride, stride))(x)
      x = nn.relu(nn.GroupNorm(body.GROUPS, epsilon=body.EPSILON)(x))
    return nn.Conv(1, (1, 1))(x)[..., 0]


def wanted(scene, times):
  """Cells (N, 9, 16) in which a sounding body's middle lies, 1 or 0."""
  cells = np.zeros((len(times), HEIGHT // CELL, WIDTH // CELL), np.float32)
  x, y, zoom = scene.camera.at(times)
  for part in scene.bodies:
    if part.role != 'mover':
      continue
    pose = part.path(times)
    column = ((pose.x - x) * zoom * HEIGHT + WIDTH / 2) / CELL
    row = ((pose.y - y) * zoom * HEIGHT + HEIGHT / 2) / CELL
    inside = ((pose.grow > 0.3) & (0 <= column) & (column < cells.shape[2]) & (0 <= row)
              & (row < cells.shape[1]))
    moments = np.flatnonzero(inside)
    cells[moments, row[moments].astype(int), column[moments].astype(int)] = 1
  return cells


def spoiled(moments, cells, chance):
  """Frames uint8 (T, 36, 64, 3) of neighbouring moments without a body that one would recognise.

  cells (9, 16): where bodies are at the middle moment; chance: numpy Generator.
  """
  x = moments.astype(np.float32)
  how = chance.integers(3) if cells.any() else 0
  if how == 0:
    return tiled(x, (int(chance.integers(6, 19)), int(chance.integers(6, 17))),
                 chance.uniform(0.0, 0.5), chance)
  for row, column in np.argwhere(cells):
    top, left = (max(0, int(CELL * at + CELL // 2) - REACH) for at in (row, column))
    part = x[:, top:top + 2 * REACH, left:left + 2 * REACH]
    part[:] = [blot(one, chance) if how == 1 else blocks(one, chance) for one in part]
  return np.clip(x, 0, 255).astype(np.uint8)


def tiled(frames, patch, kept, chance):
  """Frames (T, H, W, 3) whose patches each keep `kept` of what deviates from their mean, and shift
  in colour; uint8."""
  x = frames.astype(np.float32)
  for row in range(0, x.shape[1], patch[0]):
    for column in range(0, x.shape[2], patch[1]):
      part = x[:, row:row + patch[0], column:column + patch[1]]
      mean = part.mean((1, 2), keepdims=True)
      part[:] = mean + kept * (part - mean) + chance.normal(0, 8, (len(x), 1, 1, 3))
  return np.clip(x, 0, 255).astype(np.uint8)


def blot(part, chance):
  """Part (H, W, 3) of a frame, blurred until no shape is left."""
  return cv2.GaussianBlur(part, (0, 0), chance.uniform(2.5, 4.0), borderType=cv2.BORDER_REPLICATE)


def blocks(part, chance, side=3):
  """Part (H, W, 3) of a frame whose blocks of 3×3 pixels have changed places."""
  rows, columns = (length // side for length in part.shape[:2])
  out, inner = part.copy(), part[:rows * side, :columns * side]
  cut = inner.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
  out[:rows * side, :columns * side] = chance.permutation(cut).reshape(
      rows, columns, side, side, 3).swapaxes(1, 2).reshape(inner.shape)
  return out


def spread(cells):
  """Cells (N, H, W) with half the weight on their neighbours: a middle may lie on a border."""
  padded = np.pad(cells, ((0, 0), (1, 1), (1, 1)))
  neighbours = np.max([padded[:, i:i + cells.shape[1], j:j + cells.shape[2]]
                       for i in range(3) for j in range(3)], axis=0)
  return np.maximum(cells, 0.5 * neighbours)


def train(clips=CLIPS, steps=STEPS, seed=0) -> dict:
  """Arrays of a detector trained on the train split: {'Conv_0/kernel': float16, …}."""
  source, rng = Impacts('train', size=clips), np.random.default_rng(seed)
  frames = [source.load(i).frames for i in range(clips)]
  places = [wanted(source.scene(i), np.arange(len(each)) / body.FPS)
            for i, each in enumerate(frames)]

  def example(i):
    k = rng.integers(len(frames[i]))
    moments = frames[i][np.clip(np.arange(k - BEHIND, k + AHEAD + 1), 0, len(frames[i]) - 1)]
    if rng.random() < 0.5:
      return spoiled(moments, places[i][k], rng), np.zeros_like(places[i][k])
    noise = rng.uniform(0, GRAIN) * rng.standard_normal(moments.shape)
    return np.clip(moments + noise, 0, 255), spread(places[i][k:k + 1])[0]

  network = Detector()
  params = network.init(jax.random.key(seed), jnp.zeros((1, HEIGHT, WIDTH, 9)))['params']
  optimiser = optax.adam(optax.cosine_decay_schedule(RATE, steps))
  state = optimiser.init(params)

  @jax.jit
  def step(params, state, x, y):
    def loss(params):
      error = optax.sigmoid_binary_cross_entropy(network.apply({'params': params}, x), y)
      return jnp.mean(error * (1 + WEIGHT * y))

    change, state = optimiser.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, change), state

  for _ in range(steps):
    x, y = map(np.stack, zip(*map(example, rng.integers(clips, size=BATCH)), strict=True))
    params, state = step(params, state, body.side_by_side(x), y)
  return {name: np.asarray(leaf, np.float16)
          for name, leaf in flax.traverse_util.flatten_dict(params, sep='/').items()}


def main(argv=None) -> int:
  """Trains, tests and writes a detector."""
  parser = argparse.ArgumentParser(prog='python -m avlink_jax.metrics.body_training',
                                   description=__doc__.splitlines()[0])
  parser.add_argument('output')
  parser.add_argument('--clips', type=int, default=CLIPS)
  parser.add_argument('--steps', type=int, default=STEPS)
  options = parser.parse_args(argv)
  made = train(options.clips, options.steps)
  np.savez_compressed(options.output, **made)
  test, rng = Impacts('validation', size=TESTED), np.random.default_rng(0)
  found: dict[str, list[float]] = {'true': [], 'blots or blocks': [], 'tiles': []}
  for i in range(TESTED):
    frames = test.load(i).frames
    cells = wanted(test.scene(i), np.arange(len(frames)) / body.FPS)
    near = np.maximum.reduce([cells, np.roll(cells, 1, 0), np.roll(cells, -1, 0)])
    changed = np.concatenate([spoiled(frames[k:k + 1], near[k], rng) for k in range(len(frames))])
    for name, each in (('true', frames), ('blots or blocks', changed),
                       ('tiles', tiled(frames, (12, 16), 0.25, rng))):
      found[name].append(body.scores(each, made)[0])
  print(json.dumps({'found': {name: round(float(np.mean(values)), 3)
                              for name, values in found.items()}}))
  return 0


if __name__ == '__main__':
  sys.exit(main())
