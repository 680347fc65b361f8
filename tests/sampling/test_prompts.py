"""What is said of prompts: of what is generated, of what conditions, and of what is not wanted."""

import json

import numpy as np
import pytest
import runs
from micro import batch_of, build, frozen_of, micro_config, random_like, sampling
from runs import config_of, finished, manifest, parts

from avlink_jax.data.batch import Layout
from avlink_jax.data.clip import Clip
from avlink_jax.errors import UserError
from avlink_jax.evaluate import evaluate
from avlink_jax.sample import sample
from avlink_jax.sampling.inputs import Inputs, Prompts, blank_clips, find_clips, repeated
from tests.benchmarks import negative

CLIP = Clip(id='a', duration=1.0, frames=np.zeros((0, 8, 16, 3), np.uint8), frame_times=np.zeros(0),
            audio=np.zeros(0, np.float32), sample_rate=16_000, audio_caption='clang',
            video_caption='a drum', source='a.mp4')


@pytest.mark.parametrize('given, audio, video', [
    (Prompts(), 'clang', 'a drum'), (Prompts('rain'), 'rain', 'a drum'),
    (Prompts('rain', 'a roof'), 'rain', 'a roof'), (Prompts(None, ''), 'clang', ''),
    (Prompts('', ''), '', '')])
def test_each_modality_has_its_own_prompt(given, audio, video):
  said = Inputs([CLIP], given=given).prompts(CLIP, ('audio',))
  assert said == {'audio': audio, 'video': video}


def test_a_negative_prompt_is_of_what_is_generated():
  inputs = Inputs([CLIP], given=Prompts(negative='hiss'))
  assert inputs.prompts(CLIP, ('audio',)).get('audio_negative') == 'hiss'
  assert 'video_negative' not in inputs.prompts(CLIP, ('audio',))
  assert inputs.prompts(CLIP, ('audio', 'video')).get('video_negative') == 'hiss'


def test_noise_is_drawn_from_the_prompt_not_from_its_line():
  layout = Layout(1.0, 6.0, 8, 16)
  clips = blank_clips(['rain', 'a ball', 'rain'], layout)
  assert [clip.id for clip in clips] == ['000_rain', '001_a_ball', '002_rain']
  assert clips[1].noise == blank_clips(['a ball'], layout)[0].noise
  assert len({clip.noise for clip in clips}) == 3
  takes = repeated(clips[:1], 2) + repeated([CLIP], 2)
  assert [(take.id, take.noise) for take in takes] == [
      ('000_rain_1', 'rain 1 1'), ('000_rain_2', 'rain 1 2'), ('a_1', ''), ('a_2', '')]


@pytest.fixture(scope='module')
def linked():
  config = micro_config('v2a', **{'data.seconds': 2.0, 'data.impacts_clips': 2, 'sample.count': 1})
  return config, build(config)[1]


@pytest.mark.parametrize('flags, wanted', [
    ({'prompt': ''}, Prompts('', '')), ({'prompt': 'rain'}, Prompts('rain')),
    ({'prompt': '', 'condition_prompt': 'a  drum'}, Prompts('', 'a drum')),
    ({'negative_prompt': ''}, Prompts(negative='')), ({}, Prompts())])
def test_no_prompt_is_none_for_what_conditions_either(linked, flags, wanted):
  config, task = linked
  assert find_clips(task, config, **flags).given == wanted


def test_prompts_that_cannot_be_used_are_told(linked):
  config, task = linked
  for flag in ('condition_prompt', 'negative_prompt'):
    with pytest.raises(UserError, match=f'--{flag} has control characters'):
      find_clips(task, config, **{flag: 'a\x00'})
  alone = micro_config('t2a')
  with pytest.raises(UserError, match='t2a is conditioned on words alone: leave --cond'):
    find_clips(build(alone)[1], alone, prompt='rain', condition_prompt='a roof')
  alone.sample.guidance = 1
  with pytest.raises(UserError, match='--negative_prompt acts through guidance'):
    find_clips(build(alone)[1], alone, prompt='rain', negative_prompt='hiss')


def test_the_negative_prompt_stands_in_the_unconditional_pass():
  """v = v_negative + w·(v − v_negative): the prompt itself takes guidance away, and the empty one
  is what stands there without any."""
  config = micro_config('t2a')
  models, task = build(config)
  frozen = frozen_of(models)
  params = random_like(frozen['towers']['audio'], 1)
  batch, sampled = batch_of(models, 2), sampling(task, 2)
  plain = sampled(params, frozen, batch)['audio']
  prepare = models.modalities['audio'].text.prepare
  empty, other = (sampled(params, frozen, batch | {'audio_negative_text': prepare([text] * 2)})[
      'audio'] for text in ('', 'hiss'))
  np.testing.assert_allclose(empty, plain, atol=1e-5)
  assert np.abs(np.asarray(other) - plain).max() > 1e-2
  same = sampled(params, frozen, batch | {'audio_negative_text': batch['audio_text']})['audio']
  unguided = sampled(params, frozen, batch, guidance=None)['audio']
  np.testing.assert_allclose(same, unguided, atol=1e-4)


@pytest.mark.slow
def test_a_negative_prompt_keeps_away_what_it_names():
  """With the bundled weights; tests/benchmarks/README.md has figures of more clips."""
  found = negative.shares('t2a', 24, steps=8)
  assert found['own - plain'][2] < 0 and found['own - other'][0] < 0


def test_a_run_tells_what_each_modality_was_told(tmp_path):
  with runs.quickly_compiled():
    config = config_of('v2a', parts(tmp_path))
    workdir = finished(config, tmp_path / 'run')
    out = tmp_path / 'out'
    sample(config, workdir, prompt='', negative_prompt='hiss', output=out)
    rows = manifest(out).values()
    assert all(row['prompts'] == {'audio': '', 'video': ''} for row in rows)
    assert {row['negative_prompt'] for row in rows} == {'hiss'}
    kept = {row['id']: row['made_of'] for row in rows}
    sample(config, workdir, prompt='', condition_prompt='a drum', output=out)
    rows = manifest(out).values()
    assert all(row['prompts'] == {'audio': '', 'video': 'a drum'} and 'negative_prompt' not in row
               and row['made_of'] != kept[row['id']] for row in rows)
  protocol = evaluate(str(out), str(out / 'reference'))['protocol']
  assert (protocol['prompts'], protocol['condition_prompts']) == ('without', 'with')
  assert protocol['negative_prompts'] == [] and json.dumps(protocol)


def test_takes_are_of_one_clip_and_compared(tmp_path):
  with runs.quickly_compiled():
    config = config_of('v2a', parts(tmp_path))
    out = tmp_path / 'out'
    ids = sample(config, finished(config, tmp_path / 'run'), output=out, takes=2)
  assert [name.rpartition('_')[2] for name in ids] == ['1', '2', '1', '2']
  rows = manifest(out)
  assert [(row['clip'], row['take']) for row in rows.values()] == [
      (name.rpartition('_')[0], int(name[-1])) for name in ids]
  assert all(0 <= row['av_align'] <= 1 for row in rows.values() if row['av_align'] is not None)
  assert rows.keys() == manifest(out / 'reference').keys()
  assert (out / 'index.html').read_text().count('<article ') == 2
