"""Prepared latents of published codecs: training reads them and touches no codec."""

import json

import numpy as np
import pytest
from micro import build, micro_config, quick_jit
from runs import quickly_compiled

pytest.importorskip('diffusers')
pytest.importorskip('torch')
import public_vaes  # noqa: E402

from avlink_jax.data import inspect as inspect_page  # noqa: E402
from avlink_jax.data import pipeline  # noqa: E402
from avlink_jax.data.prepare import command as prepare  # noqa: E402
from avlink_jax.data.prepare import convert  # noqa: E402
from avlink_jax.data.sources import records  # noqa: E402
from avlink_jax.errors import UserError  # noqa: E402

SIZE = ('--seconds=2', '--height=8', '--width=16', '--processes=1')  # the micro models'
TOWERS = {'towers.audio.codec': 'dac', 'towers.video.codec': 'wan_vae', 'data.seconds': 2.0,
          'towers.video.hidden': 0, 'towers.video.prediction': 'velocity',
          'towers.video.detail': 0.0}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """(config of towers over published codecs, folder of records of their latents)."""
  root = tmp_path_factory.mktemp('latents')
  public_vaes.save_wan_vae(root / 'wan', base_dim=4)
  public_vaes.save_dac(root / 'moss', decoder_dim=32, latent_dim=8)
  with quickly_compiled():
    prepare.prepare(['--source=impacts', f'--output={root / "r"}', '--limit=2', *SIZE,
                     '--splits=train,test', f'--codec={root / "moss"}',
                     f'--video_codec={root / "wan"}'])
  config = micro_config('v2a', **TOWERS, **{
      'frozen.codec': str(root / 'moss'), 'frozen.video_codec': str(root / 'wan')})
  return config, root / 'r'


def opened(config, source, models, task, split='train'):
  config.data.update(source=str(source), impacts_clips=2)
  return pipeline.open_source(config, models.layout, split, task.reads)


def test_a_batch_has_the_latents_that_the_step_would_make(made):
  """Sound at 48 kHz; of audio to float16, of video to bfloat16; masks bit for bit."""
  config, folder = made
  models, task = build(config)
  batch = {}
  for source in ('impacts', folder):
    examples = pipeline.make_examples(
        opened(config, source, models, task), models.layout, task.readers, config.data)
    batch[str(source)], _ = pipeline.first_batch(examples, task.prepare, 2)
  raw, prepared = batch.values()
  assert raw.keys() - prepared.keys() == {'audio_wave', 'video'}
  assert prepared.keys() - raw.keys() == {'audio_latents', 'video_latents'}
  for (name, modality), tolerance in zip(models.modalities.items(), (2e-3, 1e-2), strict=True):
    codec = modality.codec
    loaded = convert.load_codec(config.frozen[codec.part], name, config.data.fps)
    clean = quick_jit(lambda batch, codec=codec, loaded=loaded: codec.encode(loaded.weights, batch))
    ours, theirs = clean(prepared), clean(raw)
    assert ours.dtype == np.float32 and ours.shape[1:] == codec.shape(models.layout)
    np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())
    np.testing.assert_array_equal(codec.mask(prepared), codec.mask(raw))
    pipeline.check_codec(examples.source, codec, loaded.weights)


def test_media_are_kept_where_samples_are_compared_with_them(made):
  config, folder = made
  models, task = build(config)
  train, test = (opened(config, folder, models, task, split).load(0) for split in ('train', 'test'))
  assert not train.media and train.latents.keys() == {'audio', 'video'}
  assert test.media == ('audio', 'video') and test.sample_rate == 48_000
  assert len(test.audio) == 2 * 48_000 and test.frames.shape == (12, 8, 16, 3)


def test_video_latents_are_two_bytes_a_number(made):
  _, folder = made
  shard = records.open_shard(next(folder.glob('train-*.array_record')))
  _, arrays = records.decode(shard.read([0])[0])
  assert arrays['video_latents'].dtype.itemsize == 2
  assert arrays['video_latents'].shape == (4, 1, 2, 16) and 'frames' not in arrays
  about = json.loads((folder / 'records.json').read_text())
  assert about['video_codec'].keys() == about['codec'].keys()
  assert (about['layout']['sample_rate'], about['codec']['rate']) == (48_000, 50.0)


def test_latents_of_another_codec_are_refused_in_one_line(made):
  config, folder = made
  models, task = build(config)
  source, video = opened(config, folder, models, task), models.modalities['video'].codec
  loaded = convert.load_codec(config.frozen.video_codec, 'video', 6.0)
  other = {**loaded.weights, 'std': np.float32(1.01)}
  with pytest.raises(UserError, match='latents of another codec .*frozen.video_codec to that'):
    pipeline.check_codec(source, video, other)
  with pytest.raises(UserError, match='latents and no pictures, which this run.*--video_codec$'):
    pipeline.check_codec(source, video, None)


def test_records_of_another_rate_are_refused(made):
  _, folder = made
  models, task = build(micro_config('v2a', **{'data.seconds': 2.0}))
  with pytest.raises(UserError, match='sample_rate 48000 .the config says 16000'):
    opened(micro_config('v2a', **{'data.seconds': 2.0}), folder, models, task)


def test_a_page_shows_what_latents_decode_to(made, tmp_path):
  """With a config of the same layout, from a file of one's own."""
  config, folder = made
  (tmp_path / 'own.py').write_text(
      'from avlink_jax.configs import v2a\n\n\ndef get_config(scale="nano"):\n'
      '  c = v2a.get_config(scale)\n'
      '  c.data.seconds, c.data.height, c.data.width = 2.0, 8, 16\n'
      '  c.towers.audio.codec, c.towers.video.codec = "dac", "wan_vae"\n'
      '  c.towers.video.hidden, c.towers.video.detail = 0, 0.0\n'
      '  c.towers.video.prediction = "velocity"\n'
      f'  c.frozen.codec, c.frozen.video_codec = {config.frozen.codec!r}, '
      f'{config.frozen.video_codec!r}\n  return c\n')
  with quickly_compiled():
    page = inspect_page.inspect([str(folder), f'--output={tmp_path / "page"}', '--count=1',
                                 f'--config={tmp_path / "own.py"}'])
  assert page.exists() and list((tmp_path / 'page').glob('*.mp4'))
  assert list((tmp_path / 'page').glob('*.wav'))


@pytest.mark.parametrize('more, said', [
    (('--video_codec=nowhere.safetensors',), 'nowhere.safetensors: .*'),
    (('--reads=audio', '--video_codec=x.safetensors'),
     '--video_codec makes latents of pictures, and --reads leaves pictures out'),
    (('--sample_rate=44100', '--codec=bundled'), '=44100: the codec reads sound at 16000 Hz')])
def test_flags_that_do_not_fit_are_told(tmp_path, more, said):
  with pytest.raises(UserError, match=said):
    prepare.prepare(['--source=impacts', f'--output={tmp_path}', *SIZE, *more])


def test_sound_can_be_prepared_at_any_rate(tmp_path):
  prepare.prepare(['--source=impacts', f'--output={tmp_path / "r"}', '--limit=1', *SIZE,
                   '--splits=test', '--sample_rate=48000'])
  about = records.read_about(tmp_path / 'r')
  assert about['layout']['sample_rate'] == 48_000 and about['video_codec'] is None
