"""Prepared records: what goes in comes out, and what is not as it should be is told."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
from micro import build, frozen_of, micro_config, quick_jit

from avlink_jax.codecs.pixels import Pixels
from avlink_jax.data import batch as batches
from avlink_jax.data import pipeline
from avlink_jax.data.clip import Clip
from avlink_jax.data.prepare import command as prepare
from avlink_jax.data.prepare import convert
from avlink_jax.data.sources import records
from avlink_jax.errors import MediaError, UserError
from avlink_jax.storage import weights

SIZE = ('--seconds=2', '--height=8', '--width=16')  # of the micro models' examples


def made(folder, *more, source='impacts', limit=6):
  """A small folder of records of impacts."""
  prepare.prepare([f'--source={source}', f'--output={folder}', f'--limit={limit}', *SIZE,
                   '--processes=1', '--shard_clips=3', *more])
  return folder


@pytest.fixture(scope='module')
def codec(tmp_path_factory):
  """A file of random weights of the micro models' codec, as a run of configs/mel_vae.py leaves."""
  path = tmp_path_factory.mktemp('codec') / 'weights.safetensors'
  config = config_of()
  models, _ = build(config)
  weights.save(path, {'params': frozen_of(models)['codec']['params'],
                      'stats': {'std': np.float32(0.7)}}, {'config': config.to_json()})
  return str(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return made(tmp_path_factory.mktemp('records') / 'r')


def config_of(task='v2a', source='impacts', **changes):
  return micro_config(task, **{'data.seconds': 2.0, 'data.impacts_clips': 6,
                               'data.source': str(source), **changes})


def opened(source, split='train', reads=('audio', 'video'), **changes):
  config = config_of(source=source, **changes)
  models, _ = build(config)
  return pipeline.open_source(config, models.layout, split, reads), models.layout


def test_records_give_the_examples_of_their_source(folder):
  """Pictures bit for bit, sound to 16 bits, in the order of their shards."""
  prepared, layout = opened(folder)
  raw, _ = opened('impacts')
  assert len(prepared) == len(raw) == 6
  readers = build(config_of())[1].readers
  by_id = {raw.load(i).id: raw.load(i) for i in range(6)}
  for i in range(6):
    clip = prepared.load(i)
    truth = by_id[clip.id]
    assert prepared.name(i) == clip.id
    assert (clip.audio_caption, clip.video_caption) == (truth.audio_caption, truth.video_caption)
    np.testing.assert_array_equal(clip.events, truth.events)
    ours, theirs = (batches.example(c, 0.0, layout, readers) for c in (clip, truth))
    np.testing.assert_array_equal(ours['video'], theirs['video'])
    np.testing.assert_array_equal(ours['video_mask'], theirs['video_mask'])
    np.testing.assert_array_equal(ours['audio_mask'], theirs['audio_mask'])
    np.testing.assert_allclose(clip.audio, truth.audio, atol=np.abs(truth.audio).max() * 2e-5)


def test_the_step_sees_one_layout_either_way_and_the_same_latents(tmp_path, codec):
  """Latents made beforehand are those that the step would have made of the sound."""
  config = config_of('v2a')
  models, task = build(config)
  tree = convert.load_codec(codec).weights
  made(tmp_path / 'r', f'--codec={codec}', '--splits=train,test', limit=2)
  batch = {}
  for source in ('impacts', str(tmp_path / 'r')):
    config.data.update(source=source, impacts_clips=2)
    opened = pipeline.open_source(config, models.layout, 'train', task.reads)
    pipeline.check_codec(opened, models.modalities['audio'].codec, tree)
    examples = pipeline.make_examples(opened, models.layout, task.readers, config.data)
    batch[source], _ = pipeline.first_batch(examples, task.prepare, 2)
  raw, prepared = batch.values()
  assert raw.keys() - {'mel'} == prepared.keys() - {'audio_latents'}
  clean = quick_jit(lambda batch: task.clean({'codec': tree}, batch, 'audio'))
  ours, theirs = clean(prepared), clean(raw)
  assert ours.dtype == np.float32 and np.std(theirs) > 0.1
  np.testing.assert_allclose(ours, theirs, atol=2e-3 * np.abs(theirs).max())
  np.testing.assert_array_equal(task.mask(prepared, 'audio'), task.mask(raw, 'audio'))
  assert not len(opened.load(0).audio)
  assert len(pipeline.open_source(config, models.layout, 'test', task.reads).load(0).audio)


def test_training_on_latents_of_another_codec_is_refused_in_one_line(tmp_path, codec):
  made(tmp_path / 'r', f'--codec={codec}', '--splits=train', limit=2)
  source, layout = opened(tmp_path / 'r')
  codec = convert.load_codec(codec)
  pipeline.check_codec(source, codec.codec, codec.weights)
  other = {**codec.weights, 'std': codec.weights['std'] * 1.001}
  with pytest.raises(UserError, match='of another codec .*safetensors, [0-9a-f]{8}.*prepare'):
    pipeline.check_codec(source, codec.codec, other)
  with pytest.raises(UserError, match='latents of another codec'):
    vae = dataclasses.replace(codec.codec.vae, centre=-7.0)
    pipeline.check_codec(source, dataclasses.replace(codec.codec, vae=vae), codec.weights)


def test_what_needs_sound_does_not_take_latents(tmp_path, codec):
  made(tmp_path / 'r', f'--codec={codec}', '--reads=audio', limit=2)
  for reads in ('mel',), ('wave',):
    with pytest.raises(UserError, match='hold latents and no sound.*without --codec'):
      opened(tmp_path / 'r', reads=reads)
    opened(tmp_path / 'r', 'test', reads=reads)
  with pytest.raises(UserError, match='records of sound alone; this task needs pictures'):
    opened(tmp_path / 'r')


def test_sound_keeps_sixteen_bits_of_its_own_loudness():
  for level in (1.0, 1e-3, 0.0):
    audio = (level * np.sin(np.arange(2000) * 0.1)).astype(np.float32)
    clip = Clip('a', 0.125, np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0), audio, 16000)
    about = {'layout': {'fps': 6.0, 'height': 8, 'width': 16, 'sample_rate': 16000},
             'video': False, 'codec': None}
    back = records.to_clip(records.of_clip(clip), about)
    np.testing.assert_allclose(back.audio, audio, atol=level / 32767)


# -- the format

def test_a_record_is_plain_arrays_and_states_its_version():
  blob = records.encode({'id': 'a'}, {'frames': np.zeros((1, 2, 2, 3), np.uint8)})
  arrays = safetensors.numpy.load(blob)  # others read it too
  assert json.loads(arrays['about'].tobytes()) == {'version': records.VERSION, 'id': 'a'}
  about, back = records.decode(blob)
  assert about['id'] == 'a' and back['frames'].shape == (1, 2, 2, 3)


@pytest.mark.parametrize('blob', [
    b'', b'\x80\x04cos\nsystem\n', b'\0' * 100, records.encode({'version': 99}, {}),
    safetensors.numpy.save({'frames': np.zeros(3)}),
    safetensors.numpy.save({'about': np.frombuffer(b'[' * 9999, np.uint8)})])
def test_what_is_no_record_of_this_version_is_told(blob):
  with pytest.raises(ValueError, match='not a record|of version 99|Expecting value'):
    records.decode(blob)


# -- what is wrong with a folder

def copy(folder, to):
  to.mkdir()
  for path in folder.iterdir():
    (to / path.name).write_bytes(path.read_bytes())
  return to


def test_another_layout_is_told_with_both_values(folder):
  with pytest.raises(UserError, match=r'seconds 2 \(the config says 1\).*change --config.data'):
    opened(folder, **{'data.seconds': 1.0})
  with pytest.raises(UserError, match=r'height 8 \(the config says 36\)'):
    opened(folder, **{'data.height': 36})


def test_a_shard_cut_short_or_lost_is_told_and_made_again(folder, tmp_path):
  there = copy(folder, tmp_path / 'r')
  shard = there / 'train-00001-of-00002.array_record'
  whole = shard.read_bytes()
  shard.write_bytes(whole[:-1000])
  with pytest.raises(UserError, match='train-00001-of-00002.array_record is cut short: remove it'):
    opened(there)
  shard.unlink()
  with pytest.raises(UserError, match='train-00001-of-00002.array_record is missing'):
    opened(there)
  made(there)
  assert len(shard.read_bytes()) == len(whole) and len(opened(there)[0]) == 6


def test_a_damaged_record_is_replaced_and_counted(folder, tmp_path):
  there = copy(folder, tmp_path / 'r')
  shard = there / 'train-00000-of-00002.array_record'
  content = bytearray(shard.read_bytes())
  content[3000] ^= 255
  shard.write_bytes(content)
  source, layout = opened(there)
  with pytest.raises(MediaError, match='damaged record'):
    source.load(0)
  examples = pipeline.make_examples(source, layout, (Pixels('video', 6.0),), config_of().data)
  _, id, _, skipped, _ = examples(0)
  assert id in [source.name(i) for i in range(1, len(source))]
  assert len(skipped) == 1 and 'damaged' in skipped[0][1]


def test_unfinished_foreign_or_newer_folders_are_told(folder, tmp_path):
  there = copy(folder, tmp_path / 'r')
  about = json.loads((there / 'records.json').read_text())
  unfinished = {name: told for name, told in about.items() if name != 'counts'}
  for new, said in ((unfinished, 'not finished'), ({**about, 'version': 99}, 'version 99')):
    (there / 'records.json').write_text(json.dumps(new))
    with pytest.raises(UserError, match=said):
      opened(there)
  (there / 'records.json').write_text('{')
  with pytest.raises(UserError, match='cannot be read as the records'):
    opened(there)
  (there / 'records.json').write_text(json.dumps({**about, 'counts': {}}))
  with pytest.raises(UserError, match='no records of the split test'):
    opened(there, 'test')


def test_features_from_outside_are_not_in_records(folder):
  with pytest.raises(UserError, match='no features from outside'):
    opened(folder, reads=('audio', 'video_features'))


def test_more_shards_than_may_be_open(folder, monkeypatch):
  monkeypatch.setattr(records, 'OPEN_SHARDS', 1)
  source, _ = opened(folder)
  ids = [source.load(i).id for i in (0, 5, 1, 4, 2, 3)]
  assert len(set(ids)) == 6 and len(source._readers) == 1
