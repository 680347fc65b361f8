"""Other ways in (Table 2): what they add, where in time it lands, and what cannot be heard."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from micro import quick_jit, random_like, random_params
from test_avlink import AUDIO, TOWERS, VIDEO, bare, frozen, inputs

from avlink_jax.errors import UserError
from avlink_jax.model.attention import Kernel
from avlink_jax.model.features import Features
from avlink_jax.model.fusion import Fusion
from avlink_jax.model.injection import Injection, pool, resampling
from avlink_jax.model.tower import EvenSeconds, Wrapper

V2A = ('audio',), 'video'
A2V = ('video',), 'audio'


# Closed forms

def test_pooling_is_the_mean_over_space_of_what_is_real():
  tokens = np.arange(2 * 6 * 2, dtype=np.float32).reshape(2, 6, 2)
  mask = np.array([[1, 1, 1, 0, 1, 1], [1, 0, 0, 1, 0, 0]], bool)
  pooled, real = pool(tokens, mask, 3)  # 3 moments of 2 tokens
  np.testing.assert_allclose(pooled[0], [[1, 2], [4, 5], [9, 10]])
  np.testing.assert_allclose(pooled[1], [[12, 13], [18, 19], [0, 0]])
  assert real.tolist() == [[True, True, True], [True, True, False]]


@pytest.mark.parametrize('source, target, wanted', [
    # Slower than what it goes to: each moment repeats the one that is on.
    ([0, 1, 2], [0, 0.5, 1, 1.5, 2, 2.5], [[1, 0, 0]] * 2 + [[0, 1, 0]] * 2 + [[0, 0, 1]] * 2),
    # Faster: the mean of those that fall into it.
    ([0, 0.25, 0.5, 0.75], [0, 0.5], [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]),
    # Neither divides the other.
    ([0, 0.4, 0.8, 1.2], [0, 1], [[1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 1]]),
    ([0, 1], [0, 1], [[1, 0], [0, 1]]),
    ([0, 1, 2], [0], [[1 / 3] * 3]),  # one moment holds all
    ([0], [0, 1, 2], [[1], [1], [1]]),
    # Moments of different lengths: each up to the next.
    ([0, 0.25, 0.5, 0.75], [0, 0.25], [[1, 0, 0, 0], [0, 1, 0, 0]]),
    ([0, 0.25, 0.5, 0.75], [0, 0.25, 0.75], [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]]),
])
def test_resampling_repeats_the_slower_and_averages_the_faster(source, target, wanted):
  made = resampling(np.array(source, float), np.array(target, float))
  np.testing.assert_allclose(made, wanted, atol=1e-6)


@pytest.mark.parametrize('source, target', [(6.0, 25.0), (25.0, 6.0), (6.0, 24.0), (30.0, 29.97)])
def test_resampling_is_a_mean_and_puts_nothing_elsewhere(source, target):
  at, to = (np.arange(round(5.16 * rate)) / rate for rate in (source, target))
  weights = resampling(at, to)
  np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
  within = max(1 / source, 1 / target) + 1e-6
  assert np.abs(weights @ at - to).max() <= within
  assert (np.diff(weights @ at) > -1e-5).all()  # in order


# The whole link

@functools.cache
def linked(kind, way=V2A, towers=None):
  """(link, its parameters random all over, its parameters as training starts, velocity)."""
  generated, _ = way
  link = Injection(dict(towers or TOWERS), generated[0], kind, 2)
  run = quick_jit(lambda params, trees, inputs: link.velocity(
      params, trees, inputs, generated)[generated[0]])
  fresh = quick_jit(link.init)(jax.random.key(0, impl='unsafe_rbg'))
  return link, random_params(link, 5), fresh, run


@functools.cache
def local(name):
  """A tower's parameters with all gates of its blocks shut, so that tokens keep to themselves."""
  tree = frozen()[name]
  return tree | {'blocks': tree['blocks'] | {'modulation': jax.tree.map(
      np.zeros_like, tree['blocks']['modulation'])}}


def masked(given, name):
  return given | {name: given[name].replace(mask=np.zeros_like(given[name].mask))}


@pytest.mark.parametrize('way', [V2A, A2V], ids=['v2a', 'a2v'])
def test_add_adds_nothing_at_initialisation(way):
  _, trained, fresh, run = linked('add', way)
  name = way[0][0]
  wanted = bare(name)
  np.testing.assert_allclose(run(fresh, frozen(), inputs()), wanted, atol=2e-6)
  assert not np.allclose(run(trained, frozen(), inputs()), wanted, atol=1e-2)


@pytest.mark.parametrize('kind', ['text', 'add'])
def test_a_condition_that_is_all_padding_is_not_heard(kind):
  _, trained, _, run = linked(kind)
  wanted = bare('audio')
  np.testing.assert_allclose(run(trained, frozen(), masked(inputs(), 'video')), wanted, atol=1e-5)
  assert not np.allclose(run(trained, frozen(), inputs()), wanted, atol=1e-2)


@pytest.mark.parametrize('kind', ['text', 'add'])
def test_padding_of_the_condition_is_not_heard(kind):
  _, trained, _, run = linked(kind)
  given = inputs()
  x = given['video'].x.copy()
  x[1, 3:] = 7.0  # where the second clip has ended
  after = run(trained, frozen(), given | {'video': given['video'].replace(x=x)})
  np.testing.assert_allclose(after, run(trained, frozen(), given), atol=1e-5)


def changed_moments(kind, way, moment):
  """Which of the generated modality's data steps change with one step of the condition's, where
  nothing else carries things through time."""
  (name,), source = way
  _, trained, _, run = linked(kind, way)
  trees, given = {n: local(n) for n in TOWERS}, inputs()
  x = given[source].x.copy()
  x[0, moment] *= -1
  before = run(trained, trees, given)
  after = run(trained, trees, given | {source: given[source].replace(x=x)})
  assert np.array_equal(after[1], before[1])  # the other clip
  by_step = np.abs(after[0] - before[0]).reshape(before.shape[1], -1).max(1)
  return np.flatnonzero(by_step > 1e-6).tolist()


def test_what_is_added_lands_at_its_own_time():
  """Pictures at 6 Hz, latents at 12 in tokens of two; both 6 tokens a second here."""
  for n in range(4):
    assert changed_moments('add', V2A, n) == [2 * n, 2 * n + 1]
    assert changed_moments('add', A2V, 2 * n) == [n]


def test_what_is_added_to_a_slower_tower_is_all_heard():
  """Latents at 12 Hz, a token each, on pictures at 6: every one of them counts."""
  fast = dataclasses.replace(AUDIO, patch=(1,))
  towers = (('audio', fast), ('video', VIDEO))
  _, trained, _, run = linked('add', A2V, towers)
  trees, given = {'audio': random_params(fast, 0), 'video': local('video')}, inputs()
  trees['audio']['blocks']['modulation'] = jax.tree.map(
      np.zeros_like, trees['audio']['blocks']['modulation'])
  before = run(trained, trees, given)
  for n in range(8):
    x = given['audio'].x.copy()
    x[0, n] *= -1
    after = run(trained, trees, given | {'audio': given['audio'].replace(x=x)})
    steps = np.abs(after[0] - before[0]).reshape(4, -1).max(1)
    assert np.flatnonzero(steps > 1e-6).tolist() == [n // 2]


def test_every_place_of_a_moment_gets_the_same():
  """What an audio latent adds to a picture's tokens, it adds to all four of them."""
  link, trained, _, _ = linked('add', A2V)
  zero = trained | {'project': jax.tree.map(np.zeros_like, trained['project'])}
  tokens = []
  video = Recorder(VIDEO, tokens)
  heard = dataclasses.replace(link, towers={'audio': AUDIO, 'video': video})
  for params in (trained, zero):
    heard.velocity(params, frozen(), inputs(), ('video',))
  added = np.asarray(tokens[0] - tokens[1]).reshape(2, 4, -1, VIDEO.width)
  assert added.shape[2] > 1 and np.abs(added).max() > 0.1
  np.testing.assert_allclose(added, np.broadcast_to(added[:, :, :1], added.shape), atol=1e-5)


@dataclasses.dataclass(frozen=True)
class Recorder(Wrapper):
  """Keeps the tokens that enter the first block."""
  seen: list

  def segment(self, params, first, count, stream):
    self.seen.append(stream.tokens)
    return super().segment(params, first, count, stream)


def test_beside_the_text_features_say_when_they_are():
  """Cross-attention does not know the order of what it looks at; the features' clock tells it."""
  _, trained, _, run = linked('text')
  trees, given = frozen() | {'video': local('video')}, inputs()
  given['video'] = given['video'].replace(mask=np.ones_like(given['video'].mask))
  backwards = given | {'video': given['video'].replace(x=given['video'].x[:, ::-1].copy())}
  before = run(trained, trees, given)
  assert not np.allclose(run(trained, trees, backwards), before, atol=1e-3)
  deaf = {'project': trained['project'] | {'clock': jax.tree.map(
      np.zeros_like, trained['project']['clock'])}}
  np.testing.assert_allclose(run(deaf, trees, backwards), run(deaf, trees, given), atol=1e-5)


def test_features_from_outside_can_be_injected_too():
  link = Injection({'audio': AUDIO, 'video': Features(7, EvenSeconds(6.0))}, 'audio', 'add', 2)
  given = inputs()
  x = np.random.default_rng(0).standard_normal((2, 4, 7)).astype(np.float32)
  given['video'] = given['video'].replace(x=x)
  made, mask = link.begin({}, {'video': {}}, given, ('audio',))
  assert made.shape == (2, 4, 2 * 7)
  np.testing.assert_array_equal(mask, given['video'].mask)
  np.testing.assert_allclose(made[..., :7].mean(-1), 0, atol=1e-5)


def test_an_unknown_way_in_is_told_with_those_there_are():
  with pytest.raises(UserError, match="'sum'.*fusion, cross, text or add"):
    Injection(TOWERS, 'audio', 'sum', 2)


# Symmetric cross-attention

CROSS = Fusion(blocks=1, width=20, heads=2, mlp=28, rank=4, cross=True,
               attention=Kernel('reference').between(TOWERS, TOWERS))


@pytest.mark.parametrize('cross', [True, False])
def test_by_cross_attention_a_stream_looks_at_the_other_only(cross):
  fusion = dataclasses.replace(CROSS, cross=cross)
  widths, counts = (16, 24), (5, 4)
  shapes = jax.eval_shape(functools.partial(fusion.init, tower_widths=widths), jax.random.key(0))
  params = jax.tree.map(lambda p: p[0], random_like(shapes, 5)['blocks'])
  rng = np.random.default_rng(0)
  tokens = [rng.standard_normal((1, n, c)).astype(np.float32)
            for n, c in zip(counts, widths, strict=True)]
  angles = [fusion.angles(np.arange(n) / 6.0) for n in counts]
  run = quick_jit(lambda tokens: fusion.block.apply(
      {'params': params}, tokens, [np.full(1, 0.3, np.float32)] * 2,
      [np.ones((1, n), bool) for n in counts], angles)[0])
  before = run(tokens)
  for m, other in ((0, 1), (1, 0)):
    moved = [x.copy() for x in tokens]
    moved[m][0, 2] *= -2
    after = run(moved)
    own = np.abs(after[m] - before[m]).max((0, 2)) > 1e-4
    assert own.tolist() == [n == 2 or not cross for n in range(counts[m])]
    assert (np.abs(after[other] - before[other]).max((0, 2)) > 1e-4).all()
