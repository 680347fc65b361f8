"""Towers over published autoencoders: trained, sampled and exported by the real loop."""

import json

import numpy as np
import pytest
import runs
import soundfile
from micro import micro_config
from runs import config_of, manifest

pytest.importorskip('diffusers')
pytest.importorskip('torch')
import public_vaes  # noqa: E402

from avlink_jax import build as model_builder  # noqa: E402
from avlink_jax.codecs import published_vae  # noqa: E402
from avlink_jax.data.media.decode import decode  # noqa: E402
from avlink_jax.errors import UserError  # noqa: E402
from avlink_jax.tasks import frozen as frozen_parts  # noqa: E402
from avlink_jax.train import train  # noqa: E402

SECONDS = 3.0  # of clips; examples have 2
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


@pytest.mark.slow
@pytest.mark.parametrize('task', ['t2a', 't2v'])
def test_a_base_model_trains_on_latents_of_a_published_codec(published, tmp_path, task):
  """Two steps; then samples of a clip that takes two windows: sound at 48 kHz, pictures at the
  config's rate, as long as the clip, beside the reference."""
  config = config_of(task, published, **{**TOWERS, 'sample.count': 1, 'data.clip_seconds': SECONDS})
  with runs.quickly_compiled():
    train(config, tmp_path)
  rows = map(json.loads, (tmp_path / 'metrics.jsonl').read_text().splitlines())
  losses = [row['loss'] for row in rows if 'loss' in row]
  assert len(losses) == 2 and np.isfinite(losses).all() and min(losses) > 0
  folder = tmp_path / 'samples' / 'step_2'
  (id, row), = manifest(folder).items()
  assert row['duration'] == SECONDS
  clip = decode(folder / f'{id}.mp4', sample_rate=48_000, need_audio=False)
  assert clip.duration == pytest.approx(SECONDS, abs=0.1)
  reference, rate = soundfile.read(folder / 'reference' / f'{id}.wav')
  assert (rate, reference.shape) == (48_000, (round(SECONDS * 48_000),))
  if task == 't2v':
    assert len(clip.frames) == 18 and clip.frames.std() > 1
  else:
    wave, rate = soundfile.read(folder / f'{id}.wav')
    assert (rate, wave.shape) == (48_000, reference.shape) and wave.std() > 1e-4


def test_a_towers_own_folder_is_enough(published):
  config = micro_config('v2a', **TOWERS, **{
      'frozen.video': published['video_codec'], 'frozen.audio': published['codec'],
      'frozen.codec': '', 'frozen.video_codec': ''})
  models = model_builder.build(config)
  assert models.layout.sample_rate == 48_000
  assert [modality.codec.channels for modality in models.modalities.values()] == [8, 16]
  assert published_vae.of_part(config, 'codec')[1].name == public_vaes.PICKLED
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
