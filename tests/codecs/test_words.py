"""The words encoder: any caption becomes words, and words become numbers that tell them apart."""

import functools

import jax
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from micro import plain_jit, random_params

from avlink_jax.codecs.text import PAD, START, WordEncoder, drop, split_words
from avlink_jax.data.impacts import Impacts
from avlink_jax.errors import UserError

TEXT = WordEncoder(width=8, depth=2, heads=2, buckets=64, max_words=12)


@functools.cache
def params():
  return random_params(TEXT)


encode = plain_jit(TEXT.encode)


@pytest.mark.parametrize('prompt, words', [
    ('A red ball, bouncing!', ['a', 'red', 'ball', ',', 'bouncing', '!']),
    ('steel-blue  drum\n', ['steel', '-', 'blue', 'drum']),
    ('红球 が лес', ['红', '球', 'が', 'лес']),
    ('ﬁne CAFE\u0301', ['fine', 'café']),
    (' \t', []),
])
def test_what_a_word_is(prompt, words):
  assert split_words(prompt) == words


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
@settings(max_examples=50)
def test_any_text_is_read_in_any_company(prompts):
  tokens = TEXT.prepare(prompts)
  assert tokens.shape == (len(prompts), 12, 2) and tokens.max() < 2 + 64
  assert (tokens[:, 0] == START).all()
  np.testing.assert_array_equal(tokens, np.concatenate([TEXT.prepare([p]) for p in prompts]))


def test_the_null_prompt_is_the_start_alone():
  tokens = TEXT.prepare([''])
  assert (tokens[0, 1:] == PAD).all()
  assert encode(params(), tokens)[1].sum() == 1


def test_padding_says_nothing():
  tokens = TEXT.prepare(['a drum'])
  embedding, mask = encode(params(), tokens)
  other = tokens.copy()
  other[0, 3:, 1] = 5  # PAD in the first table is what counts
  np.testing.assert_allclose(encode(params(), other)[0][mask], embedding[mask], atol=1e-6)
  assert mask.tolist() == [[True] * 3 + [False] * 9]


def test_order_and_words_matter():
  said = lambda prompt: np.asarray(encode(params(), TEXT.prepare([prompt]))[0])[0, :4]  # noqa: E731
  assert not np.allclose(said('wood on tin'), said('tin on wood'), atol=1e-3)
  assert not np.allclose(said('wood on tin'), said('wood on glass'), atol=1e-3)


def test_a_prompt_that_would_be_cut_is_told():
  TEXT.check('word ' * 11)
  with pytest.raises(UserError, match='12 words: this model reads at most 11'):
    TEXT.check('word ' * 12)
  assert TEXT.prepare(['word ' * 30]).shape == (1, 12, 2)


def test_at_nano_size_no_two_words_of_impacts_are_one():
  source, text = Impacts('train', size=300), WordEncoder()
  scenes = [source.scene(i) for i in range(300)]
  words = {word for scene in scenes for caption in (scene.audio_caption, scene.video_caption)
           for word in split_words(caption)}
  rows = {tuple(text.prepare([word])[0, 1]) for word in words}
  assert len(words) > 80 and len(rows) == len(words)


def test_it_is_trained_with_its_tower():
  tokens = TEXT.prepare(['a red ball'])
  gradients = plain_jit(jax.grad(lambda p: (TEXT.encode(p, tokens)[0]**3).sum()))(params())
  assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradients))


# Dropping prompts

def rows(count):
  return np.arange(1, 1 + count)[:, None] * np.ones((1, 4), np.int32)


def test_at_rate_zero_nothing_is_dropped_and_at_one_everything():
  null = np.zeros(4, np.int32)
  np.testing.assert_array_equal(drop(jax.random.key(0), rows(50), null, 0.0), rows(50))
  assert not np.any(drop(jax.random.key(0), rows(50), null, 1.0))


@pytest.mark.parametrize('rate', [0.1, 0.2, 0.5])
def test_prompts_are_dropped_whole_each_for_itself_and_as_often_as_said(rate):
  made = np.asarray(drop(jax.random.key(1), rows(5000), np.zeros(4, np.int32), rate))
  dropped = (made == 0).all(1)
  np.testing.assert_array_equal(made[~dropped], rows(5000)[~dropped])
  assert scipy.stats.binomtest(int(dropped.sum()), 5000, rate).pvalue > 1e-3
  neighbours = int((dropped[1:] & dropped[:-1]).sum())
  assert scipy.stats.binomtest(neighbours, 4999, rate**2).pvalue > 1e-3
