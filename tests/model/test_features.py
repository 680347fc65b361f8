"""Features from outside: read beside the clips, in time with them, and in a tower's place."""

import dataclasses
import functools
import warnings

import numpy as np
import pytest
from made_clips import make_clip, steady
from micro import build, frozen_of, micro_config, quick_jit, state_of

from avlink_jax.data import batch as batches
from avlink_jax.data import pipeline
from avlink_jax.data.clip import Clip
from avlink_jax.data.examples import Examples
from avlink_jax.data.sources import features
from avlink_jax.data.sources.folder import Folder
from avlink_jax.errors import MediaError, UserError
from avlink_jax.sampling import sampler
from avlink_jax.sampling.trained import Trained
from avlink_jax.training import step as training

WIDTH, RATE = 3, 25.0
CLICK = 45  # at 30 frames a second: 1.5 s


def write(path, vectors, **others):
  np.savez(path, features=vectors, **others)


# Reading

def test_vectors_and_their_rate_are_read_from_beside_the_clip(tmp_path):
  vectors = np.random.default_rng(0).standard_normal((9, WIDTH))
  write(tmp_path / 'dog.npz', vectors, fps=12.5)
  made, rate = features.read(tmp_path / 'dog.mp4', WIDTH, 6.0)
  assert rate == 12.5 and made.dtype == np.float32
  np.testing.assert_allclose(made, vectors, rtol=1e-6)


def test_without_a_rate_they_are_one_a_picture(tmp_path):
  write(tmp_path / 'dog.npz', np.zeros((9, WIDTH), np.float16))
  made, rate = features.read(tmp_path / 'dog.mp4', WIDTH, 6.0)
  assert rate == 6.0 and made.dtype == np.float32


GOOD = np.ones((4, WIDTH))
BAD = {
    'of another width': (dict(features=np.ones((4, WIDTH + 1))), r'\(4, 4\), not \(N, 3\)'),
    'of one moment alone': (dict(features=np.ones(WIDTH)), r'\(3,\), not \(N, 3\)'),
    'empty': (dict(features=np.ones((0, WIDTH))), r'\(0, 3\)'),
    'not finite': (dict(features=np.full((4, WIDTH), np.nan)), 'not finite'),
    'too large': (dict(features=np.full((4, WIDTH), 1e300)), 'not finite'),
    'pickled': (dict(features=np.array([[{}] * WIDTH], object)), 'cannot be read'),
    'words': (dict(features=np.array([['a'] * WIDTH])), 'cannot be read'),
    'under another name': (dict(vectors=GOOD), 'cannot be read'),
    'of no rate': (dict(features=GOOD, fps=0.0), 'not finite'),
    'of a negative rate': (dict(features=GOOD, fps=-6.0), 'not finite'),
    'of a rate that is no number': (dict(features=GOOD, fps=np.nan), 'not finite'),
    'of many rates': (dict(features=GOOD, fps=np.ones(4)), 'cannot be read'),
}


@pytest.mark.parametrize('name', BAD)
def test_what_cannot_be_used_is_told_in_one_line(tmp_path, name):
  arrays, said = BAD[name]
  np.savez(tmp_path / 'dog.npz', **arrays)
  with pytest.raises(MediaError, match=said) as raised, warnings.catch_warnings():
    warnings.simplefilter('ignore')  # NumPy's, about an overflow
    features.read(tmp_path / 'dog.mp4', WIDTH, 6.0)
  assert 'dog.npz' in raised.value.reason and '\n' not in raised.value.reason


def test_a_clip_without_features_is_told(tmp_path):
  with pytest.raises(MediaError, match=r'no features beside it \(dog.npz\)'):
    features.read(tmp_path / 'dog.mp4', WIDTH, 6.0)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_no_damage_ends_in_anything_but_a_line(tmp_path, save):
  """Cut anywhere, or any byte of it wrong: a report, or (damage that nothing checks) numbers."""
  path = tmp_path / 'dog.npz'
  save(path, features=np.random.default_rng(0).standard_normal((9, WIDTH)), fps=6.0)
  whole = path.read_bytes()
  cut = [whole[:n] for n in range(0, len(whole), 13)]
  wrong = [whole[:n] + bytes([whole[n] ^ flip]) + whole[n + 1:]
           for n in range(len(whole)) for flip in (1, 0x40, 0xff)]
  reported = 0
  for content in [b'not an archive', *cut, *wrong]:
    path.write_bytes(content)
    try:
      with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        features.read(tmp_path / 'dog.mp4', WIDTH, 6.0)
    except MediaError as error:
      reported += 1
      assert not error.reason.endswith('()')  # it says something
  assert reported > len(cut)


def test_a_single_array_in_the_archives_place_is_told(tmp_path):
  with open(tmp_path / 'dog.npz', 'wb') as file:
    np.save(file, GOOD)
  with pytest.raises(MediaError, match='cannot be read'):
    features.read(tmp_path / 'dog.mp4', WIDTH, 6.0)


# In time

LAYOUT = batches.Layout(1.0, 6.0, 8, 16)


def clip_of(vectors, rate, duration):
  return Clip('dog', duration, np.zeros((0, 8, 16, 3), np.uint8), np.zeros(0),
              np.zeros(0, np.float32), 16000, features=vectors, features_rate=rate)


@pytest.mark.parametrize('rate', [2.0, 6.0, 25.0, 29.97])
@pytest.mark.parametrize('start', [0.0, 0.37, 1.0])
def test_each_picture_gets_the_vector_that_is_on(rate, start):
  when = (np.arange(int(3 * rate)) / rate)[:, None].astype(np.float32)  # each says its own time
  made, real = batches.features(clip_of(when, rate, 3.0), start, LAYOUT)
  times = start + np.arange(6) / 6
  assert made.shape == (6, 1) and made.dtype == np.float32 and real.all()
  assert (made[:, 0] <= times + 1e-5).all() and (made[:, 0] > times - 1 / rate - 1e-5).all()


def test_past_the_last_vector_there_is_nothing():
  made, real = batches.features(clip_of(np.ones((9, 2), np.float32), 6.0, 3.0), 1.0, LAYOUT)
  assert real.tolist() == [True] * 3 + [False] * 3
  np.testing.assert_array_equal(made, np.repeat(real[:, None], 2, 1))


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
  """A folder of four clips of 3 s, with a click at 1.5 s, and vectors that say when they are, and
  whether it has clicked; and of one clip without vectors."""
  root = tmp_path_factory.mktemp('clips')
  times = np.arange(int(3 * RATE)) / RATE
  on = times >= CLICK / 30
  for n in range(4):
    make_clip(root / f'{n}.mp4', steady(30), flash=CLICK)
    write(root / f'{n}.npz', np.stack([times, on, np.full(len(times), n)], 1), fps=RATE)
  make_clip(root / 'bare.mp4', steady(30))
  return root


def micro_on(folder, **changes):
  config = micro_config('v2a', **{'towers.video.features': WIDTH, 'data.source': str(folder)},
                        **changes)
  return config, *build(config)


def open_examples(folder, split='train'):
  config, models, task = micro_on(folder)
  source = pipeline.open_source(config, models.layout, split, task.reads)
  examples = Examples(source, models.layout, task.readers, 1 << 28, 0.5, 0.5)
  return config, models, task, examples


def test_a_folder_gives_clips_their_vectors(clips):
  folder = Folder(clips, height=8, width=16, sample_rate=16000, features=WIDTH, features_rate=6.0)
  clip = folder.load(0)
  assert clip.features.shape == (75, WIDTH) and clip.features_rate == RATE
  plain = Folder(clips, height=8, width=16, sample_rate=16000).load(0)
  assert plain.features is None
  with pytest.raises(MediaError, match='no features beside it'):
    folder.load([folder.name(i) for i in range(5)].index('bare'))


def test_the_task_reads_them_in_the_pictures_place(clips):
  _, _, task = micro_on(clips)
  assert task.reads == ('audio', 'video_features')
  assert task.frozen_parts == ('codec', 'audio')


def test_a_crop_of_sound_and_vectors_is_one_piece_of_time(clips):
  """Wherever it begins: vectors say so from the click on."""
  _, models, _, examples = open_examples(clips)
  index = [examples.source.name(i) != 'bare' for i in range(len(examples.source))].index(True)
  starts, heard = set(), 0
  for seed in range(30):
    made, *_ = examples(index, seed)
    when, on, _ = made['video_features'].T
    starts.add(float(when[0]))
    np.testing.assert_allclose(np.diff(when), 1 / 6, atol=1 / RATE + 1e-5)
    assert made['video_mask'].all() and 'video' not in made
    first = np.argmax(on)
    if 0 < first < 5:  # the click is heard between two pictures' times
      heard += 1
      loudest = np.exp(made['mel']).sum(1).argmax() / models.modalities['audio'].codec.spec.rate
      assert (first - 1) / 6 - 0.05 < loudest < first / 6 + 0.05
  assert len(starts) > 20 and heard > 3


def test_a_clip_without_vectors_is_replaced_and_reported(clips):
  config, models, _, examples = open_examples(clips)
  bare = [examples.source.name(i) for i in range(len(examples.source))]
  if 'bare' not in bare:  # the split is by names, which do not change
    pytest.skip('the clip without vectors is of another split')
  made, name, _, skipped, _ = examples(bare.index('bare'))
  assert name != 'bare' and made['video_features'].shape == (6, WIDTH)
  assert skipped == [('bare', 'no features beside it (bare.npz)')]


def test_impacts_has_none_and_says_so():
  config = micro_config('v2a', **{'towers.video.features': WIDTH})
  with pytest.raises(UserError, match='impacts has no features'):
    pipeline.open_source(config, build(config)[0].layout, 'train')


# Training and sampling

@pytest.mark.slow
def test_v2a_trains_and_samples_from_a_folder_with_features(clips):
  config, models, task, examples = open_examples(clips)
  frozen = frozen_of(models)
  assert set(frozen['towers']) == {'audio'}
  state = state_of(task, config, frozen)
  step = quick_jit(functools.partial(
      training.train_step, task, training.make_optimizer(config), config))
  losses = []
  for batch, meta in pipeline.train_batches(examples, task.prepare, seed=0, batch_size=4,
                                            first_step=0, last_step=2, threads=1):
    assert batch['video_features'].shape == (4, 6, WIDTH) and batch['video_mask'].all()
    assert len(meta.ids) == 4 and 'video' not in batch
    state, metrics = step(state, frozen, batch)
    losses.append(float(metrics['loss']))
  assert len(losses) == 2 and np.isfinite(losses).all()

  config.sample.update(steps=2, batch_size=4)
  source = pipeline.open_source(config, models.layout, 'test')
  every = [source.load(i) for i in range(len(source)) if source.name(i) != 'bare'][:1]
  made, trained = sampler.Sampler(task, frozen), Trained(state.ema, {}, '', '')
  made._generate = quick_jit(made._generate.__wrapped__)  # quick to compile
  said = {'audio': 'a click', 'video': ''}
  backwards = dataclasses.replace(every[0], features=every[0].features[::-1])
  (result,), (other,) = (made(trained, [clip], [said], seed=1) for clip in (every[0], backwards))
  assert set(result) == {'audio'}
  result, other = result['audio'], other['audio']
  assert result.shape == (round(every[0].duration * 16000),) and np.isfinite(result).all()
  # It heard the features. (The largest sample of a hardly trained model says nothing.)
  assert np.median(np.abs(result - other)) > 0.02 * np.median(np.abs(result)) > 0
