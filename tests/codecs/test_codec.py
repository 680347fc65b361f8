"""A codec is a file and a line in a registry: a toy shows that nothing else has to know of it."""

import dataclasses
import json

import numpy as np
import pytest
import runs
import soundfile
from micro import build, frozen_of, micro_config
from runs import config_of, manifest, parts
from toy_tower import build_toy

from avlink_jax.codecs import codec as codecs
from avlink_jax.codecs.codec import Codec
from avlink_jax.errors import UserError
from avlink_jax.model import tower
from avlink_jax.sample import sample
from avlink_jax.storage import weights
from avlink_jax.train import train

RATE, HOP, SECONDS = 8000, 320, 2.0


@dataclasses.dataclass(frozen=True)
class Raw(Codec):
  """The wave at 8 kHz, of which 320 samples are a frame of as many channels; it says of its frames
  that they come ever more slowly, which no rate can say."""
  name: str
  medium = 'audio'
  channels = HOP
  sample_rate = RATE
  rate = RATE / HOP

  def seconds(self, count):
    return (np.arange(count) / self.rate) ** 1.1

  def shape(self, layout):
    return layout.samples // HOP, HOP

  def arrays(self, layout):
    shape = self.shape(layout)
    return {'raw': (np.float32, shape), self.mask_name: (np.bool_, shape[:1])}

  def read(self, media, mask, layout):
    frames = self.shape(layout)
    return {'raw': 4 * media[:frames[0] * HOP].reshape(frames),
            self.mask_name: mask[:frames[0] * HOP].reshape(frames).any(-1)}

  def blank(self, seconds, layout):
    return {self.mask_name: np.arange(self.shape(layout)[0]) < np.ceil(seconds * self.rate)}

  def encode(self, weights, batch):
    assert weights is None  # it has none
    return batch['raw']

  def finish(self, weights, decoded, seconds, layout):
    return decoded.reshape(-1)[:round(seconds * RATE)] / 4


@pytest.fixture(autouse=True)
def registered(monkeypatch):
  monkeypatch.setitem(codecs.KINDS, 'toy', lambda name, config, context: Raw(name))
  monkeypatch.setitem(tower.KINDS, 'toy', build_toy)


@pytest.fixture
def config(tmp_path):
  """V2A between towers of the toy's data and of pixels, both with random weights."""
  return with_weights(config_of('v2a', parts(tmp_path), **{
      'towers.audio.codec': 'toy', 'sample.count': 1}), tmp_path)


def with_weights(config, folder):
  """`config` with random weights for its audio tower, in `folder`; its codec has none."""
  config.frozen.codec, config.frozen.audio = '', str(folder / 'toy.safetensors')
  weights.save(config.frozen.audio, {'params': frozen_of(build(config)[0])['towers']['audio']}, {})
  return config


@pytest.mark.slow
def test_a_tower_of_another_kind_and_width_goes_with_it(config, tmp_path):
  """Uneven seconds, a token that nobody else sees, 20 channels beside our 16: trained and sampled
  by the real loop."""
  config.towers.audio.update(kind='toy', width=20)
  with runs.quickly_compiled():
    train(with_weights(config, tmp_path), tmp_path / 'run')
    id, = sample(config, tmp_path / 'run', output=tmp_path / 'out', seed=1, explicit=True)
  rows = map(json.loads, (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines())
  losses = [row['mse_audio'] for row in rows if 'mse_audio' in row]
  assert len(losses) == 2 and np.isfinite(losses).all()
  wave, rate = soundfile.read(tmp_path / 'out' / f'{id}.wav')
  assert (rate, wave.shape) == (RATE, (round(SECONDS * RATE),))


@pytest.mark.slow
def test_a_codec_of_ones_own_is_trained_and_sampled_with(config, tmp_path):
  """By the real loop, which asks it for its rate, shapes, mask, data and media."""
  with runs.quickly_compiled():
    scores = train(config, tmp_path / 'run')
    rows = map(json.loads, (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines())
    losses = [row['mse_audio'] for row in rows if 'mse_audio' in row]
    assert len(losses) == 2 and np.isfinite(losses).all() and min(losses) > 0
    assert scores['clips'] == 1
    kept = {path.stem for path in (tmp_path / 'run' / 'frozen').iterdir()}
    assert kept == {'audio', 'video'}  # a codec without weights is no part

    id, = sample(config, tmp_path / 'run', output=tmp_path / 'out', seed=1, explicit=True)
  wave, rate = soundfile.read(tmp_path / 'out' / f'{id}.wav')
  assert (rate, wave.shape) == (RATE, (round(SECONDS * RATE),)) and wave.std() > 1e-3
  reference, rate = soundfile.read(tmp_path / 'out' / 'reference' / f'{id}.wav')
  assert (rate, reference.shape) == (RATE, wave.shape)
  assert manifest(tmp_path / 'out')[id]['duration'] == SECONDS


def test_its_rates_and_shapes_are_the_models():
  models, task = build(micro_config('v2a', **{'towers.audio.codec': 'toy'}))
  assert models.layout.sample_rate == RATE and models.layout.samples == RATE
  assert models.modalities['audio'].codec.shape(models.layout) == (25, HOP)
  assert models.towers['audio'].channels == HOP
  assert task.frozen_parts == ('audio', 'video')


def test_a_kind_that_there_is_not_is_told_with_those_that_there_are():
  with pytest.raises(UserError) as error:
    build(micro_config('v2a', **{'towers.audio.codec': 'mp3'}))
  assert str(error.value) == ("towers.audio.codec='mp3': use one of mel_vae, pixels, video_vae, "
                              'wan_vae, dac, features, toy')
