"""Towers over published autoencoders: trained, sampled and exported by the real loop."""

import json

import numpy as np
import pytest
import runs
import soundfile
from micro import build, frozen_of, micro_config
from runs import config_of, manifest

pytest.importorskip('diffusers')
pytest.importorskip('torch')
import public_vaes  # noqa: E402

from avlink_jax import build as model_builder  # noqa: E402
from avlink_jax.data.media.decode import decode  # noqa: E402
from avlink_jax.errors import UserError  # noqa: E402
from avlink_jax.sample import sample  # noqa: E402
from avlink_jax.storage import weights  # noqa: E402
from avlink_jax.tasks import frozen as frozen_parts  # noqa: E402
from avlink_jax.train import train  # noqa: E402

SECONDS = 2.0
TOWERS = {  # micro towers of these codecs' latents
    'towers.audio.codec': 'dac', 'towers.video.codec': 'wan_vae', 'towers.video.patch': (1, 1, 2),
    'towers.video.hidden': 0, 'towers.video.prediction': 'velocity', 'towers.video.detail': 0.0}


@pytest.fixture(scope='module')
def published(tmp_path_factory):
  """{'video_codec': folder, 'codec': folder} of published models."""
  root = tmp_path_factory.mktemp('published')
  public_vaes.save_wan_vae(root / 'wan', base_dim=4)
  public_vaes.save_dac(root / 'moss', decoder_dim=32, latent_dim=8)
  return {'video_codec': str(root / 'wan'), 'codec': str(root / 'moss')}


def losses(workdir):
  rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return [row['loss'] for row in rows if 'loss' in row]


@pytest.mark.slow
@pytest.mark.parametrize('task', ['t2a', 't2v'])
def test_a_base_model_trains_on_latents_of_a_published_codec(published, tmp_path, task):
  """Two steps; then samples: sound at 48 kHz, pictures at the config's rate, as long as asked."""
  config = config_of(task, published, **{**TOWERS, 'sample.count': 1})
  with runs.quickly_compiled():
    train(config, tmp_path / 'run')
    id, = sample(config, tmp_path / 'run', prompt='a ball', output=tmp_path / 'out', explicit=True)
  assert len(losses(tmp_path / 'run')) == 2 and np.isfinite(losses(tmp_path / 'run')).all()
  assert manifest(tmp_path / 'out')[id]['duration'] == SECONDS
  clip = decode(tmp_path / 'out' / f'{id}.mp4', sample_rate=48_000, need_audio=False)
  assert clip.duration == pytest.approx(SECONDS, abs=0.05)
  if task == 't2a':
    wave, rate = soundfile.read(tmp_path / 'out' / f'{id}.wav')
    assert (rate, wave.shape) == (48_000, (round(SECONDS * 48_000),)) and wave.std() > 1e-4
  else:
    assert len(clip.frames) == 12 and clip.frames.std() > 1


@pytest.mark.slow
def test_v2a_between_towers_of_published_codecs(published, tmp_path):
  """From pictures that go through one codec to sound at the other's rate, long clips in windows."""
  config = config_of('v2a', published, **{
      **TOWERS, 'sample.count': 1, 'data.clip_seconds': 3.0, 'fusion.contrast': 0.0})
  for name, tower in frozen_of(build(config)[0])['towers'].items():
    config.frozen[name] = str(tmp_path / f'{name}.safetensors')
    weights.save(config.frozen[name], {'params': tower}, {})
  with runs.quickly_compiled():
    scores = train(config, tmp_path / 'run')
  assert np.isfinite(losses(tmp_path / 'run')).all() and scores['clips'] == 1
  folder = tmp_path / 'run' / 'samples' / 'step_2'
  for place in folder, folder / 'reference':
    wave, rate = soundfile.read(next(place.glob('*.wav')))
    assert (rate, len(wave)) == (48_000, 3 * 48_000)


def test_a_towers_own_folder_is_enough(published):
  config = micro_config('v2a', **TOWERS, **{
      'frozen.video': published['video_codec'], 'frozen.audio': published['codec'],
      'frozen.codec': '', 'frozen.video_codec': ''})
  models = model_builder.build(config)
  assert models.layout.sample_rate == 48_000
  assert [modality.codec.channels for modality in models.modalities.values()] == [8, 16]
  assert frozen_parts.path_of(config, 'codec').name == public_vaes.PICKLED
  loaded = frozen_parts.load(config, models, ('codec', 'video_codec'))
  shapes = frozen_parts.shapes(models, ('codec', 'video_codec'))
  assert {part: sorted(tree['params']) for part, tree in loaded.items() if part != 'towers'} == {
      part: sorted(tree['params']) for part, tree in shapes.items() if part != 'towers'}
  assert frozen_parts.digests(config, ('codec',)).keys() == {'codec'}


@pytest.mark.parametrize('named, said', [
    ('', '^towers.audio.codec=dac is the autoencoder of a published model: set '
         '--config.frozen.codec to its folder or hub name$'),
    ('weights.safetensors', '^weights.safetensors: no folder with vae/, and no name on the hub: '
                            'towers.audio.codec=dac')])
def test_a_codec_without_its_folder_is_told(named, said):
  config = micro_config('t2a', **{'towers.audio.codec': 'dac', 'frozen.codec': named,
                                  'frozen.audio': ''})
  with pytest.raises(UserError, match=said):
    model_builder.build(config)
