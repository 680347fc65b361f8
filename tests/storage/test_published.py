"""Published models by folder and by hub name: found, told apart, and refused in one line."""

import sys
import types

import numpy as np
import pytest
import safetensors.numpy
from micro import micro_config

from avlink_jax.errors import UserError
from avlink_jax.model import pretrained
from avlink_jax.storage import published


def write(folder, number=0.0):
  """A folder of which nothing but the names is a published model's."""
  part = folder / 'transformer'
  part.mkdir(parents=True)
  (part / 'config.json').write_text('{}')
  safetensors.numpy.save_file({'x': np.full(50_000, number, np.float32)},
                              part / 'diffusion_pytorch_model.safetensors')
  return folder


@pytest.fixture(autouse=True)
def forgetful():
  published._fetched.cache_clear()


@pytest.mark.parametrize('name, can_be', [
    ('Wan-AI/Wan2.1-T2V-1.3B-Diffusers', True), ('OpenMOSS-Team/MOSS-SoundEffect-v2.0', True),
    ('', False), ('bundled', False), ('runs/t2a.safetensors', False), ('/a/b', False),
    ('a/b/c', False), ('../b', False)])
def test_hub_names_are_owner_and_name(name, can_be):
  assert published.is_hub_name(name) == can_be


def test_what_is_here_is_no_hub_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'runs/t2a').mkdir(parents=True)
  assert not published.is_hub_name('runs/t2a')


@pytest.fixture
def hub(monkeypatch):
  """Function that puts `download` in the place of the hub's."""
  return lambda download: monkeypatch.setitem(
      sys.modules, 'huggingface_hub', types.SimpleNamespace(snapshot_download=download))


def test_of_a_hub_name_only_the_files_wanted_are_fetched_and_once(tmp_path, hub):
  asked = []

  def download(name, allow_patterns):
    asked.append((name, allow_patterns))
    return str(write(tmp_path / 'snapshot') if len(asked) == 1 else tmp_path / 'snapshot')

  hub(download)
  for _ in range(2):
    folder = published.locate('owner/model', 'transformer', 'config.json')
  assert folder == tmp_path / 'snapshot/transformer'
  assert asked == [('owner/model', ['transformer/config.json'])]
  with pytest.raises(UserError, match='owner/model: no vae/ in it'):
    published.locate('owner/model', 'vae', 'config.json')


def test_a_hub_name_without_a_network_is_one_clear_line(hub):
  def download(name, allow_patterns):
    raise ConnectionError('no route\nto host')

  hub(download)
  with pytest.raises(UserError, match=r'^owner/model: no such folder, nor to be had from the hub '
                                      r'\(no route to host\): give a folder') as error:
    published.locate('owner/model', 'transformer', 'config.json')
  assert '\n' not in str(error.value)


def test_models_are_told_apart_by_a_sample_of_their_numbers(tmp_path):
  one, same, other = (published.fingerprint(write(tmp_path / name, number) / 'transformer')
                      for name, number in (('one', 1.0), ('same', 1.0), ('other', 2.0)))
  assert one == same != other
  (tmp_path / 'same/transformer/config.json').write_text('{"eps": 1e-6}')
  assert published.fingerprint(tmp_path / 'same/transformer') != one


# What frozen.NAME means

def test_a_published_folder_is_for_towers_of_its_kind(tmp_path):
  config = micro_config('v2a', **{'frozen.video': str(write(tmp_path / 'wan'))})
  with pytest.raises(UserError, match=r'frozen.video=.*wan is a published model, and '
                                      r'towers.video.kind=dit: set it to wan'):
    pretrained.source(config, 'video')
  config.towers.video.kind = 'wan'
  assert pretrained.source(config, 'video') == config.frozen.video


@pytest.mark.parametrize('value, kind, found', [
    ('owner/model', 'wan', True), ('owner/model', 'dit', False), ('', 'wan', False),
    ('bundled', 'wan', False), ('mine.safetensors', 'wan', False)])
def test_only_kinds_that_are_published_look_at_the_hub(value, kind, found):
  config = micro_config('v2a', **{'frozen.audio': value, 'towers.audio.kind': kind})
  assert bool(pretrained.source(config, 'audio')) == found
