"""Captions through T5: each embedded once, the same in any company, kept in memory and on disk."""

import concurrent.futures
import json
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import t5_folders
from t5_folders import (
    OPTIMISED,
    SENTENCES,
    TINY,
    run_ours,
    run_theirs,
    tensors_of,
    theirs,
    tokenizer_json,
    told,
    write,
)

from avlink_jax.codecs import pretrained_text, t5
from avlink_jax.codecs.pretrained_text import Pretrained
from avlink_jax.codecs.text_cache import EmbeddingCache
from avlink_jax.errors import UserError


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with t5_folders.quickly_compiled():
    yield


@pytest.fixture
def folder(tmp_path):
  return write(tmp_path / 'model', 'tokenizer.json')


@pytest.fixture
def computed(monkeypatch):
  """Lists how many captions each call of the compiled encoder was given."""
  return t5_folders.count_computed(monkeypatch)


# The encoder and its cache

def test_captions_are_embedded_as_transformers_does(tmp_path, monkeypatch):
  monkeypatch.setattr(t5, 'embed', OPTIMISED)
  model, folder = theirs(tmp_path, TINY)
  (folder / 'tokenizer.json').write_bytes(tokenizer_json())
  encoder = pretrained_text.load(folder, tmp_path / 'cache', max_tokens=20)
  prompts = [*SENTENCES, '', SENTENCES[0], ' '.join(SENTENCES)]
  prepared = encoder.prepare(prompts)
  assert prepared['embedding'].shape == (11, 20, 16) and encoder.width == 16
  assert prepared['embedding'].dtype == np.float32 and prepared['mask'].dtype == bool
  kept = [np.load(file) for file in (tmp_path / 'cache').glob('*.npy')]
  assert len(kept) == len(set(prompts)) and {rows.dtype for rows in kept} == {np.dtype(np.float16)}
  embedding, mask = jax.jit(encoder.encode)(encoder.init(jax.random.key(0)), prepared)
  assert embedding.dtype == np.float32
  for prompt, row, valid in zip(prompts, np.asarray(embedding), mask, strict=True):
    tokens = encoder.tokenize(prompt)
    tokens = tokens if len(tokens) <= 20 else tokens[:19] + [1]
    assert valid.sum() == len(tokens) and valid[:len(tokens)].all()
    tokens = np.array([tokens])
    wanted = run_theirs(model, tokens, np.ones(tokens.shape, bool))[0]
    np.testing.assert_allclose(row[:len(wanted)], wanted, rtol=2**-11, atol=1e-4)  # float16's
    assert not row[len(wanted):].any()


def test_a_caption_is_embedded_once(folder, computed):
  encoder = pretrained_text.load(folder)
  first = encoder.prepare(['a ball', 'a drum', 'a ball', ''])
  assert sum(computed) == 3
  again = encoder.prepare(['', 'a drum', 'a ball'])
  assert sum(computed) == 3
  np.testing.assert_array_equal(again['embedding'], first['embedding'][[3, 1, 0]])
  encoder.prepare(['a ball', 'rain'])
  assert sum(computed) == 4


def test_captions_are_embedded_together(folder, computed):
  pretrained_text.load(folder).prepare([f'a drum {n}' for n in range(20)])
  assert computed == [8, 8, 4]


def test_captions_of_all_lengths_have_few_shapes(folder, monkeypatch):
  shapes = []

  def apply(model, params, tokens, mask, dtype):
    shapes.append(tokens.shape)
    return np.zeros((*tokens.shape, 16), np.float32)

  monkeypatch.setattr(t5, 'embed', apply)
  prepared = pretrained_text.load(folder, max_tokens=77).prepare(['drum ' * n for n in range(40)])
  assert prepared['mask'].sum(1).min() == 1 and prepared['mask'].sum(1).max() == 77
  assert set(shapes) == {(8, 16), (8, 32), (8, 64), (8, 77)}


def test_the_same_bits_in_any_company(folder, monkeypatch):
  monkeypatch.setattr(t5, 'embed', OPTIMISED)
  alone = pretrained_text.load(folder).prepare(['a hammer strikes metal'])
  among = pretrained_text.load(folder).prepare(
      [*SENTENCES, ' '.join(SENTENCES), 'a hammer strikes metal'])
  np.testing.assert_array_equal(alone['embedding'][0], among['embedding'][-1])


def test_another_process_finds_everything_on_disk(folder, tmp_path, computed):
  first = pretrained_text.load(folder, tmp_path / 'cache').prepare(SENTENCES)
  assert sum(computed) == len(SENTENCES)
  second = pretrained_text.load(folder, tmp_path / 'cache').prepare(SENTENCES[::-1])
  assert sum(computed) == len(SENTENCES)
  np.testing.assert_array_equal(second['embedding'], first['embedding'][::-1])
  np.testing.assert_array_equal(second['mask'], first['mask'][::-1])
  files = list((tmp_path / 'cache').iterdir())
  assert len(files) == len(SENTENCES)
  for file in files:  # the rows that say something, for anybody to read; nothing half written
    assert len(file.stem) == 64 and file.suffix == '.npy'
    assert np.load(file).dtype == np.float16 and np.load(file).shape[1] == 16
  assert sorted(len(np.load(f)) for f in files) == sorted(first['mask'].sum(1))


@pytest.mark.parametrize('damage', [
    lambda blob: b'', lambda blob: blob[:-1], lambda blob: blob[:60],
    lambda blob: b'\0' * len(blob), lambda blob: blob[:-60] + bytes([blob[-60] ^ 1]) + blob[-59:]],
    ids=['empty', 'cut', 'short', 'zeros', 'one bit'])
def test_a_damaged_file_is_made_anew(folder, tmp_path, computed, damage):
  first = pretrained_text.load(folder, tmp_path / 'cache').prepare(['a drum'])
  file, = (tmp_path / 'cache').iterdir()
  whole = file.read_bytes()
  file.write_bytes(damage(whole))
  again = pretrained_text.load(folder, tmp_path / 'cache').prepare(['a drum'])
  np.testing.assert_array_equal(again['embedding'], first['embedding'])
  assert sum(computed) == 2 and file.read_bytes() == whole


def test_other_lengths_weights_numbers_or_tokenizers_do_not_meet_in_the_cache(folder, tmp_path,
                                                                             computed):
  def load(**options):
    encoder = pretrained_text.load(folder, tmp_path / 'cache', **options)
    return encoder.prepare(['a drum'])['embedding'][0]

  first = load()
  assert load(max_tokens=3).shape == (3, 16) and sum(computed) == 2
  load(dtype='bfloat16')
  assert sum(computed) == 3
  safetensors.numpy.save_file(tensors_of(TINY, seed=1), folder / 'model.safetensors')
  assert np.abs(load() - first).max() > 0.1 and sum(computed) == 4
  (folder / 'config.json').write_text(json.dumps(TINY | {'layer_norm_epsilon': 0.1}))
  load()
  assert sum(computed) == 5
  tokenizer = json.loads((folder / 'tokenizer.json').read_text())
  (folder / 'tokenizer.json').write_text(json.dumps(tokenizer | {'normalizer': None}))
  load()
  assert sum(computed) == 6 == len(list((tmp_path / 'cache').iterdir()))


def test_threads_share_the_work(folder, tmp_path, computed):
  encoder = pretrained_text.load(folder, tmp_path / 'cache')
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    made = list(pool.map(encoder.prepare, [SENTENCES] * 16))
  assert sum(computed) == len(SENTENCES)
  for other in made[1:]:
    np.testing.assert_array_equal(other['embedding'], made[0]['embedding'])


def test_memory_is_bounded_and_keeps_what_was_used_last():
  cache, rows = EmbeddingCache(max_bytes=100), np.zeros((1, 10), np.float32)
  for key in 'ab':
    cache.put(key, rows)
  cache.put('b', rows)  # again, which counts once
  assert cache.get('a') is rows
  cache.put('c', rows)
  assert cache.get('b') is None and cache.get('a') is rows and cache.get('c') is rows
  cache.put('large', np.zeros(1000))
  assert all(cache.get(key) is None for key in ('a', 'c', 'large'))


def test_what_float16_cannot_hold_stays_float32(folder, tmp_path):
  tensors = tensors_of(TINY)
  tensors['encoder.final_layer_norm.weight'] *= 1e6
  write(folder, tensors=tensors)
  for _ in range(2):  # computed, then from disk
    prepared = pretrained_text.load(folder, tmp_path / 'cache').prepare(['a drum'])
    assert prepared['embedding'].dtype == np.float32
    assert np.isfinite(prepared['embedding']).all() and prepared['embedding'].max() > 65504


def test_no_prompts_make_an_empty_batch(folder):
  assert pretrained_text.load(folder).prepare([])['embedding'].shape == (0, 77, 16)


@pytest.mark.parametrize('max_tokens', [2, 100])
def test_too_long_a_prompt_is_cut_with_its_end_kept(folder, max_tokens):
  encoder = pretrained_text.load(folder, max_tokens=max_tokens)
  said = encoder.tokenize(' '.join(SENTENCES))
  kept = said if len(said) <= max_tokens else said[:max_tokens - 1] + [1]
  prepared = encoder.prepare([' '.join(SENTENCES)])
  tokens, mask = np.zeros((2, 8, max_tokens), np.int32)
  tokens[0, :len(kept)], mask[0, :len(kept)] = kept, 1
  wanted = run_ours(folder, tokens, mask.astype(bool))[0]
  assert prepared['mask'].sum() == len(kept)
  np.testing.assert_allclose(prepared['embedding'][0], wanted, rtol=1e-3, atol=1e-3)


def test_where_one_token_fits_every_prompt_is_its_end(folder):
  embedding = pretrained_text.load(folder, max_tokens=1).prepare(['', 'a drum'])['embedding']
  np.testing.assert_array_equal(embedding[0], embedding[1])


def test_a_prompt_that_does_not_fit_is_told_with_the_limit(folder):
  encoder = pretrained_text.load(folder, max_tokens=6)
  prompt = 'drum ' * 20
  count = len(encoder.tokenize(prompt))
  with pytest.raises(UserError, match=f'{count} tokens long.*at most 6'):
    encoder.check(prompt)
  pretrained_text.load(folder, max_tokens=count).check(prompt)
  with pytest.raises(UserError, match='tokens long'):
    pretrained_text.load(folder, max_tokens=count - 1).check(prompt)


# Before there are weights

def test_nothing_is_read_before_the_first_prompt(tmp_path):
  """A config can be built, its towers initialised and its folder looked at without T5."""
  text = Pretrained(str(tmp_path / 'nowhere'), 16, 20)
  assert text.width == 16 and text.init(jax.random.key(0)) == {}
  write(tmp_path / 'nowhere', 'tokenizer.json')
  assert text.prepare(['a drum'])['embedding'].shape == (1, 20, 16)
  shutil.rmtree(tmp_path / 'nowhere')
  text.prepare(['another'])  # and once, for good


def test_what_is_read_late_is_what_is_read_at_once(folder, tmp_path):
  late = Pretrained(str(folder), 16, 20, str(tmp_path / 'cache'), 'bfloat16')
  at_once = pretrained_text.load(folder, max_tokens=20, dtype='bfloat16')
  prompts = ['', *SENTENCES, ' '.join(SENTENCES)]
  jax.tree.map(np.testing.assert_array_equal, late.prepare(prompts), at_once.prepare(prompts))
  assert len(list((tmp_path / 'cache').iterdir())) == len(prompts)
  prepared = late.prepare(SENTENCES)
  jax.tree.map(np.testing.assert_array_equal, late.encode({}, prepared),
               at_once.encode({}, prepared))
  for text in (late, at_once):
    with pytest.raises(UserError, match='tokens long'):
      text.check(' '.join(SENTENCES))
    text.check('a drum')


def test_weights_of_another_width_are_told_with_what_to_set(folder):
  text = Pretrained(str(folder), 64, 20)
  for call in (lambda: text.prepare(['a drum']), lambda: text.check('a drum')):
    line = told(call)
    assert str(folder) in line and '--config.text.width=16' in line


def test_a_folder_that_is_not_there_is_told_each_time(tmp_path):
  text = Pretrained(str(tmp_path / 'nowhere'), 16, 20)
  for _ in range(2):  # no half-loaded state is left behind by the first
    assert 'nowhere: no such folder' in told(text.prepare, ['a drum'])


def test_threads_that_come_at_once_read_the_weights_once(folder, computed, monkeypatch):
  loads, load, gate = [], pretrained_text.load, threading.Barrier(8)

  def counting(*args):
    loads.append(args)
    return load(*args)

  def prepare(prompts):
    gate.wait(timeout=60)
    return text.prepare(prompts)

  monkeypatch.setattr(pretrained_text, 'load', counting)
  text = Pretrained(str(folder), 16, 20)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    made = list(pool.map(prepare, [SENTENCES] * 8))
  assert len(loads) == 1 and sum(computed) == len(SENTENCES)
  for other in made[1:]:
    np.testing.assert_array_equal(other['embedding'], made[0]['embedding'])


@pytest.mark.parametrize('inside', ['jit', 'scan', 'grad'])
def test_the_null_prompt_can_be_prepared_while_something_else_is_compiled(folder, inside):
  """As tasks and sampler do: T5 is read and run then, and what it makes is a constant."""
  text = Pretrained(str(folder), 16, 20)

  def nothing_said(x):
    null = jax.tree.map(jnp.asarray, text.prepare(['']))
    embedding, mask = text.encode({}, null)
    return jnp.sum(x * embedding * mask[..., None])

  call = {'jit': jax.jit(nothing_said), 'grad': jax.jit(jax.grad(nothing_said)),
          'scan': jax.jit(lambda x: jax.lax.scan(
              lambda carry, _: (carry + nothing_said(x), None), 0.0, None, length=2)[0])}[inside]
  made = call(2.0)
  embedding = pretrained_text.load(folder, max_tokens=20).prepare([''])['embedding'][0]
  assert not embedding[1:].any() and embedding[0].any()
  times = {'jit': 2, 'grad': 1, 'scan': 4}[inside]
  np.testing.assert_allclose(made, times * embedding.sum(), rtol=1e-4, atol=1e-5)
  assert isinstance(text.prepare([''])['embedding'], np.ndarray)  # no tracer got into the cache


def test_one_thread_embeds_captions_while_another_compiles(folder):
  """The data's threads run beside the step's first call, which prepares the null prompt."""
  text = Pretrained(str(folder), 16, 20)

  @jax.jit
  def step(x):
    return x + text.prepare([''])['embedding'].sum()

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    made = [pool.submit(text.prepare, [f'{said} {n}' for said in SENTENCES[:2]])
            for n in range(8)] + [pool.submit(step, 1.0)]
    made = [job.result(timeout=120) for job in made]
  wanted = pretrained_text.load(folder, max_tokens=20)
  assert made[-1] == pytest.approx(1 + wanted.prepare([''])['embedding'].sum(), rel=1e-5)
  for n, batch in enumerate(made[:-1]):
    again = wanted.prepare([f'{said} {n}' for said in SENTENCES[:2]])
    np.testing.assert_array_equal(batch['embedding'], again['embedding'])
