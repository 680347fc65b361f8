"""Prompts: bytes there and back, cut between characters, and padding that says nothing."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from micro import plain_jit, random_params

from avlink_jax.codecs.text import FIRST_BYTE, PAD, START, STRIDE, ByteEncoder, drop

TEXT = ByteEncoder(width=8, depth=2, heads=2, max_bytes=32)
prompts = st.text(max_size=60)


@functools.cache
def params():
  return random_params(TEXT)


encode = plain_jit(TEXT.encode)


def said(tokens):
  """The bytes of one row of tokens."""
  return bytes(int(t) - FIRST_BYTE for t in tokens[1:] if t != PAD)


@given(prompts)
@settings(max_examples=200)
def test_tokens_say_the_prompt_or_as_many_whole_characters_as_fit(prompt):
  tokens, = TEXT.prepare([prompt])
  assert tokens.shape == (32,) and tokens.dtype == np.int32 and tokens[0] == START
  kept = said(tokens).decode()  # raises where a character was cut in two
  assert prompt.startswith(kept)
  left = prompt[len(kept):]
  assert not left or len((kept + left[0]).encode()) > TEXT.room
  length = len(kept.encode())
  assert (tokens[1 + length:] == PAD).all() and not (tokens[:1 + length] == PAD).any()


@pytest.mark.parametrize('character', ['é', '鼓', '🥁'])
def test_a_character_of_many_bytes_is_never_cut(character):
  size = len(character.encode())
  for before in range(size):
    prompt = 'a' * before + character * 40
    assert said(TEXT.prepare([prompt])[0]).decode() == prompt[
        :before + (TEXT.room - before) // size]


def test_the_null_prompt_is_the_start_alone():
  tokens, = TEXT.prepare([''])
  assert tokens[0] == START and not tokens[1:].any()
  _, mask = encode(params(), tokens[None])
  np.testing.assert_array_equal(mask, [[True] + [False] * (32 // STRIDE - 1)])


def test_prompts_are_tokenised_apart():
  both = TEXT.prepare(['a drum', 'rain on tin'])
  np.testing.assert_array_equal(both, np.concatenate(
      [TEXT.prepare(['a drum']), TEXT.prepare(['rain on tin'])]))


@given(st.text('ab c', max_size=31))
@settings(max_examples=30)
def test_there_is_an_embedding_for_every_four_bytes(prompt):
  embedding, mask = encode(params(), TEXT.prepare([prompt]))
  assert embedding.shape == (1, 8, 8)
  assert mask[0].sum() == -(-(len(prompt) + 1) // STRIDE)
  assert (np.diff(mask[0].astype(int)) <= 0).all()


@pytest.mark.parametrize('prompt', ['', 'hi', 'drop', 'fourteen bytes'])
def test_padding_does_not_change_what_is_said(prompt):
  """The same parameters in an encoder with half the room: half the padding."""
  short = dataclasses.replace(TEXT, max_bytes=16)
  embedding, mask = encode(params(), TEXT.prepare([prompt]))
  shorter, shorter_mask = plain_jit(short.encode)(
      params() | {'position': params()['position'][:16]}, short.prepare([prompt]))
  count = shorter_mask.sum()
  assert count == mask.sum()
  np.testing.assert_allclose(embedding[:, :count], shorter[:, :count], atol=1e-5)


def test_what_padding_is_embedded_as_is_never_read():
  other = jax.tree.map(np.copy, params())
  other['Embed_0']['embedding'][PAD] += 5
  other['position'][9:] += 5
  tokens = TEXT.prepare(['a drum b'])  # 9 tokens: the third embedding is three quarters padding
  np.testing.assert_array_equal(encode(other, tokens)[0][:, :3], encode(params(), tokens)[0][:, :3])


def test_order_and_every_byte_count():
  real = lambda prompt: np.asarray(encode(params(), TEXT.prepare([prompt]))[0])[0, :3]  # noqa: E731
  base = real('a ball falls')[:3]
  for other in ('a ball fallz', 'b ball falls', 'ball a falls', 'a bal lfalls'):
    assert np.abs(real(other) - base).max() > 1e-2, other


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
