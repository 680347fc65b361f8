"""MODE sample, end to end: words, sounds and pictures in, a folder of whole clips out."""

import json
import math

import av
import jax
import numpy as np
import pytest
import runs
import soundfile
from micro import build, quick_jit
from runs import config_of, finished, manifest, parts

from avlink_jax.data.media import decode as media
from avlink_jax.data.media import mux
from avlink_jax.errors import UserError
from avlink_jax.sample import sample
from avlink_jax.sampling.export import one_way
from avlink_jax.sampling.in_training import TrainingSamples
from avlink_jax.sampling.inputs import blank_clip
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.train import train
from avlink_jax.training.log import Log

RATE, FPS, SECONDS = 16_000, 6, 2


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with runs.quickly_compiled():
    yield


@pytest.fixture(scope='module')
def frozen(tmp_path_factory):
  return parts(tmp_path_factory.mktemp('parts'))


@pytest.fixture(scope='module')
def run(frozen, tmp_path_factory):
  """task -> (config, workdir with a checkpoint), each made once."""
  made, root = {}, tmp_path_factory.mktemp('runs')

  def of(task):
    if task not in made:
      config = config_of(task, frozen)
      made[task] = config, finished(config, root / task)
    return made[task]

  return of


def told(call, *args, **kwargs):
  """The one line of the mistake that a call ends in."""
  with pytest.raises(UserError) as error:
    call(*args, **kwargs)
  assert '\n' not in str(error.value)
  return str(error.value)


def picture_and_sound(path):
  """(frames, sound) of a clip, which are of one length within a video frame."""
  clip = media.decode(path)
  assert abs(len(clip.frames) / FPS - len(clip.audio) / RATE) <= 1 / FPS
  return clip.frames, clip.audio


def tune(seconds, seed=0):
  """A sound that is like no other, nor like itself a little later."""
  t = np.arange(round(seconds * RATE)) / RATE
  noise = np.random.default_rng(seed).standard_normal((3, len(t) // 400 + 2))
  slow = [np.interp(t, np.arange(noise.shape[1]) * 0.025, row) for row in noise]
  return (0.1 * sum(np.sin(2 * np.pi * 150 * 2**k * t + s) * s for k, s in enumerate(slow))
          ).astype(np.float32)


def likeness(a, b, lag=1600):
  """Largest correlation coefficient of two sounds, shifted by up to `lag` samples."""
  size = min(len(a), len(b)) - 2 * lag
  a, b = a[:size + 2 * lag].astype(float), b[lag:lag + size].astype(float)
  products = np.fft.irfft(np.fft.rfft(a) * np.conj(np.fft.rfft(b, len(a))), len(a))[:2 * lag + 1]
  energy = np.cumsum(np.concatenate([[0], a**2]))
  power = energy[size:] - energy[:-size]  # of what stands under b at each lag
  return (products / np.sqrt(power) / np.linalg.norm(b)).max()


# Words alone

@pytest.mark.parametrize('task', ['t2a', 't2v'])
def test_a_prompt_gives_a_clip_and_a_list_of_them_one_clip_a_line(run, tmp_path, task):
  config, workdir = run(task)
  (tmp_path / 'said.txt').write_text('A ball!\n\n  Tin,   struck \nA ball!\n鼓 drum\n')
  ids = sample(config, workdir, prompt=str(tmp_path / 'said.txt'), output=tmp_path / 'out', seed=3)
  assert ids == ['000_a_ball', '001_tin_struck', '002_a_ball', '003_鼓_drum']
  made = manifest(tmp_path / 'out')
  prompts = [row['prompt'] for row in made.values()]
  assert prompts == ['A ball!', 'Tin, struck', 'A ball!', '鼓 drum']
  sounds = []
  for name, row in made.items():
    assert (row['task'], row['source'], row['seed'], row['steps']) == (task, 'prompt', 3, 2)
    assert row['files'].keys() == ({'audio', 'video'} if task == 't2a' else {'video'})
    assert row['duration'] == pytest.approx(config.data.seconds)
    assert (tmp_path / 'out' / f'{name}.wav').exists() == (task == 't2a')
    if task == 't2a':  # shown as its spectrogram
      assert row['picture'] == 'spectrogram'
      clip = media.decode(tmp_path / 'out' / f'{name}.mp4')
      assert abs(len(clip.audio) / RATE - SECONDS) <= 1 / FPS
      assert abs(clip.duration - SECONDS) <= 1 / FPS
      wave, rate = soundfile.read(tmp_path / 'out' / f'{name}.wav')
      assert rate == RATE and len(wave) == SECONDS * RATE and np.abs(wave).max() > 0
      sounds.append(wave)
    else:
      clip = media.decode(tmp_path / 'out' / f'{name}.mp4', need_audio=False)
      assert len(clip.frames) == SECONDS * FPS and clip.frames.std() > 0 and not len(clip.audio)
      sounds.append(clip.frames)
  assert not np.array_equal(sounds[0], sounds[2])  # the same words, another noise
  assert (tmp_path / 'out' / 'index.html').exists()
  assert not (tmp_path / 'out' / 'reference').exists()

  alone = sample(config, workdir, prompt='A ball!', output=tmp_path / 'one', seed=3)
  assert alone == ['000_a_ball'] and manifest(tmp_path / 'one').keys() == set(alone)
  if task == 't2a':  # in a batch of its own, as in a batch of two, but for how sums are added up
    wave, _ = soundfile.read(tmp_path / 'one' / '000_a_ball.wav')
    assert likeness(sounds[0], wave, lag=1) > 0.9


@pytest.mark.parametrize('prompt, stem', [
    ('A Ball, bouncing!', '007_a_ball_bouncing'), ('', '007'), ('?!', '007'), ('鼓', '007_鼓'),
    ('one two three four five six seven', '007_one_two_three_four_five_six'),
    ('../../etc/passwd', '007_etc_passwd'), ('x' * 99, '007_' + 'x' * 40)])
def test_a_clip_is_called_by_its_first_words(run, prompt, stem):
  models, _ = build(run('t2a')[0])
  clip = blank_clip(7, prompt, models.layout)
  assert clip.id == stem and clip.audio_caption == clip.video_caption == prompt
  assert clip.duration == SECONDS and not len(clip.frames) and not len(clip.audio)


@pytest.mark.parametrize('content, words', [
    (b'', 'no prompt in it'), (b' \n\t\n', 'no prompt in it'), (b'\xff\xfe\x00a ball', 'text file'),
    (None, 'No such file'), (b'a ball\nding\x07dong\n', 'control characters'),
    (b'a ball\n' + b'x ' * 99, '99 words'), ('folder', 'text file')])
def test_a_list_of_prompts_that_cannot_be_used_is_told(run, tmp_path, content, words):
  path = tmp_path / 'said.txt'
  if content == 'folder':
    path.mkdir()
  elif content is not None:
    path.write_bytes(content)
  config, workdir = run('t2a')
  assert words in told(sample, config, workdir, prompt=str(path), output=tmp_path / 'out')


@pytest.mark.parametrize('task', ['t2a', 'av', 'mel_vae'])
def test_a_clip_where_words_are_wanted_is_told(run, tmp_path, task):
  config, workdir = run(task)
  line = told(sample, config, workdir, input_path=tmp_path / 'a.mp4', output=tmp_path / 'out')
  assert line.startswith(task) and 'leave --input' in line


def test_words_where_nothing_listens_are_told(run, tmp_path):
  config, workdir = run('mel_vae')
  assert 'prompts out' in told(
      sample, config, workdir, prompt='a ball', output=tmp_path / 'out')


def test_several_prompts_for_given_clips_are_told(run, tmp_path):
  (tmp_path / 'said.txt').write_text('a\nb')
  config, workdir = run('a2v')
  assert 'holds 2 prompts: a2v takes one' in told(
      sample, config, workdir, prompt=str(tmp_path / 'said.txt'), output=tmp_path / 'out')


def test_a_workdir_without_weights_is_told(run, tmp_path):
  config = run('av')[0].copy_and_resolve_references()
  config.scale = 'small'
  assert 'no weights for av at scale small are bundled' in told(
      sample, config, tmp_path / 'nothing', output=tmp_path / 'out')


def test_a_workdir_that_was_named_is_not_replaced_by_bundled_weights(run, tmp_path):
  line = told(sample, run('t2a')[0], tmp_path / 'nothing', prompt='a drum',
              output=tmp_path / 'out', explicit=True)
  assert line.startswith(f'{tmp_path / "nothing"} has no checkpoint: train there first')


# Sound given

def encode(path, wave, codec):
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=RATE, layout='mono')
    resampler = av.AudioResampler(stream.format, 'mono', RATE, stream.frame_size or 1152)
    frame = av.AudioFrame.from_ndarray(wave[None], 'fltp', 'mono')
    frame.sample_rate = RATE
    for piece in resampler.resample(frame) + resampler.resample(None):
      container.mux(stream.encode(piece))
    container.mux(stream.encode())


@pytest.fixture(scope='module')
def sounds(tmp_path_factory):
  """(folder of clips with sound in four containers, {stem: the sound})."""
  folder = tmp_path_factory.mktemp('sounds')
  given = {name: tune(seconds, seed) for seed, (name, seconds) in enumerate(
      {'wave': 4.3, 'compressed': 2.4, 'lossless': 0.7, 'film': 1.7}.items())}
  mux.write_wav(folder / 'wave.wav', given['wave'], RATE)
  encode(folder / 'compressed.mp3', given['compressed'], 'mp3')
  encode(folder / 'lossless.flac', given['lossless'], 'flac')
  black = np.zeros((17, 36, 64, 3), np.uint8)
  mux.write_mp4(folder / 'film.mp4', frames=black, fps=10, audio=given['film'], sample_rate=RATE)
  mux.write_mp4(folder / 'silent.mp4', frames=black, fps=10)
  return folder, given


def test_a_sound_of_any_kind_gets_a_picture_of_its_length_and_stays(run, sounds, tmp_path):
  config, workdir = run('a2v')
  folder, given = sounds
  ids = sample(config, workdir, input_path=folder, prompt='a ball', output=tmp_path / 'out')
  assert sorted(ids) == sorted(given)
  for name, row in manifest(tmp_path / 'out').items():
    assert row['made'] == ['video'] and row['prompt'] == 'a ball'
    assert row['files'] == {'video': f'{name}.mp4'} and row['source'].startswith(str(folder))
    frames, sound = picture_and_sound(tmp_path / 'out' / f'{name}.mp4')
    # An mp3 begins with silence of its encoder's, which not every file tells.
    wanted = len(given[name]) / RATE * FPS
    assert math.ceil(wanted - 1e-6) <= len(frames) <= math.ceil(wanted + 0.08 * FPS)
    assert likeness(sound, given[name], lag=1300) > 0.95, name
    assert frames.std() > 5  # of the film, too, the picture is a new one
    assert all(likeness(sound, other, lag=1300) < 0.5 for n, other in given.items() if n != name)
  assert not list((tmp_path / 'out').glob('*.wav'))
  assert json.loads((tmp_path / 'out' / 'skipped.json').read_text())[0][0] == 'silent'


def test_a_film_without_sound_has_nothing_to_show_for(run, sounds, tmp_path):
  config, workdir = run('a2v')
  line = told(sample, config, workdir, input_path=sounds[0] / 'silent.mp4', output=tmp_path / 'out')
  assert line.startswith('nothing to sample for: silent: ')


@pytest.mark.slow
def test_pictures_for_a_data_sets_sounds_are_scored_against_its_own(run, tmp_path):
  """Trained for two steps, sampled as a run samples itself, scored."""
  config, _ = run('a2v')
  scores = train(config, tmp_path / 'run')
  folder = tmp_path / 'run' / 'samples' / 'step_2'
  assert scores['clips'] == 2
  assert {'av_align', 'reference_av_align', 'control_av_align'} <= scores.keys()
  logged = (tmp_path / 'run' / 'metrics.jsonl').read_text()
  assert ('"mse_video"' in logged) and '"mse_audio"' not in logged
  for name, row in manifest(folder).items():
    assert row['made'] == ['video'] and not (folder / f'{name}.wav').exists()
    _, sound = picture_and_sound(folder / f'{name}.mp4')
    _, reference = picture_and_sound(folder / 'reference' / f'{name}.mp4')
    assert likeness(sound, reference, lag=200) > 0.99
  own = sample(config, tmp_path / 'run', output=tmp_path / 'out', seed=1)
  assert {p.stem for p in (tmp_path / 'out' / 'reference').glob('*.mp4')} == set(own)


# Both ways, and both at once

@pytest.mark.slow
def test_one_set_of_fusion_blocks_goes_both_ways(frozen, tmp_path):
  """Trained for two steps on examples of either direction; each exported apart."""
  config = config_of('joint', frozen)
  scores = train(config, tmp_path / 'run')
  assert {'audio_onset_f1', 'audio_av_align', 'video_av_align', 'audio_clips'} <= scores.keys()
  step = tmp_path / 'run' / 'samples' / 'step_2'
  assert sorted(p.name for p in step.iterdir()) == ['audio', 'video']
  for way in ('audio', 'video'):
    assert (step / way / 'index.html').exists() and (step / way / 'scores.json').exists()
    rows = manifest(step / way)
    assert len(rows) == 2
    for name, row in rows.items():
      assert row['made'] == [way] and ('audio' in row['files']) == (way == 'audio')
      assert (step / way / 'reference' / f'{name}.mp4').exists()
      assert (step / way / f'{name}.wav').exists() == (way == 'audio')

  config.sample.direction = 'video'
  ids = sample(config, tmp_path / 'run', output=tmp_path / 'out', seed=1)
  assert not list((tmp_path / 'out').glob('*.wav'))
  assert all(row['made'] == ['video'] for row in manifest(tmp_path / 'out').values())
  for name in ids:  # the sound is the data's own
    _, sound = picture_and_sound(tmp_path / 'out' / f'{name}.mp4')
    _, reference = picture_and_sound(tmp_path / 'out' / 'reference' / f'{name}.mp4')
    assert likeness(sound, reference, lag=200) > 0.99


def test_of_two_directions_the_one_asked_for_is_taken_and_else_the_first(run, tmp_path):
  config, workdir = run('joint')
  task = build(config)[1]
  assert (one_way(task).generate, one_way(task, 'audio').generate, one_way(task, 'video').generate
          ) == (('audio',), ('audio',), ('video',))
  black = np.zeros((6, 36, 64, 3), np.uint8)
  mux.write_mp4(tmp_path / 'film.mp4', frames=black, fps=6)
  sample(config, workdir, input_path=tmp_path / 'film.mp4', output=tmp_path / 'out')
  assert manifest(tmp_path / 'out')['film']['made'] == ['audio']
  assert (tmp_path / 'out' / 'film.wav').exists()
  frames, _ = picture_and_sound(tmp_path / 'out' / 'film.mp4')
  assert frames.max() < 20  # the picture is the user's own


@pytest.mark.parametrize('direction', ['sideways', 'audio+video'])
def test_a_direction_that_is_not_trained_is_told_with_those_that_are(run, tmp_path, direction):
  config, workdir = run('joint')
  config = config.copy_and_resolve_references()
  config.sample.direction = direction
  line = told(sample, config, workdir, output=tmp_path / 'out')
  assert direction in line and 'audio or video' in line


def test_sound_and_picture_are_made_together_of_words(run, tmp_path):
  config, workdir = run('av')
  (tmp_path / 'said.txt').write_text('a ball\nrain\n')
  config.sample.vocoder = 'griffin_lim'  # what is next to silence would not outlive AAC
  ids = sample(config, workdir, prompt=str(tmp_path / 'said.txt'), output=tmp_path / 'out')
  assert ids == ['000_a_ball', '001_rain']
  for (name, row), said in zip(manifest(tmp_path / 'out').items(), ('a ball', 'rain'), strict=True):
    assert row['made'] == ['audio', 'video'] and row['files'].keys() == {'audio', 'video'}
    assert row['prompt'] == said and row['prompts'] == {'audio': said, 'video': said}
    frames, sound = picture_and_sound(tmp_path / 'out' / f'{name}.mp4')
    wave, rate = soundfile.read(tmp_path / 'out' / f'{name}.wav', dtype='float32')
    assert rate == RATE and len(wave) == SECONDS * RATE
    assert len(frames) == SECONDS * FPS and frames.std() > 5
    assert likeness(sound, wave, lag=100) > 0.5  # it is close to noise, of which AAC keeps little


def test_both_are_made_for_a_data_sets_captions_and_scored(run, tmp_path):
  config, _ = run('av')
  models, task = build(config)
  built = frozen_parts.load(config, models, task.frozen_parts)
  log = Log(tmp_path, 1, 0)
  params = jax.tree.map(np.asarray, quick_jit(task.init)(jax.random.key(0), built))
  scores = TrainingSamples(task, built, tmp_path).export(params, {}, 1, log)
  log.close()
  folder = tmp_path / 'samples' / 'step_1'
  assert {'onset_f1', 'av_align', 'event_f1'} <= scores.keys()
  for name, row in manifest(folder).items():
    assert row['prompts'].keys() == {'audio', 'video'} and row['events'] is not None
    assert (folder / f'{name}.wav').exists() and (folder / 'reference' / f'{name}.mp4').exists()
