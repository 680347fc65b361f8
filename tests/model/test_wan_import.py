"""Published Wan and MOSS transformers: diffusers' numbers from its own files, and nothing else."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import public_folders
import pytest
import runs
import safetensors.numpy
from micro import plain_jit

from avlink_jax.errors import UserError
from avlink_jax.model import wan_import
from avlink_jax.model.attention import Kernel
from avlink_jax.model.tower import EvenSeconds
from avlink_jax.model.wan import Wan

# What the two published models' config.json say.
WAN = {'_class_name': 'WanTransformer3DModel', '_diffusers_version': '0.33.0.dev0',
       'added_kv_proj_dim': None, 'attention_head_dim': 128, 'cross_attn_norm': True, 'eps': 1e-6,
       'ffn_dim': 8960, 'freq_dim': 256, 'image_dim': None, 'in_channels': 16,
       'num_attention_heads': 12, 'num_layers': 30, 'out_channels': 16, 'patch_size': [1, 2, 2],
       'qk_norm': 'rms_norm_across_heads', 'rope_max_seq_len': 1024, 'text_dim': 4096}
MOSS = {'dim': 1536, 'in_dim': 128, 'out_dim': 128, 'text_dim': 2048, 'freq_dim': 256, 'eps': 1e-6,
        'patch_size': [1], 'has_image_input': False, 'vae_type': 'dac', 'ffn_dim': 8960,
        'num_heads': 12, 'num_layers': 30}


def tower_of(folder):
  """The tower whose sizes a folder's config says."""
  return Wan(**dataclasses.asdict(wan_import.read_sizes(folder)), seconds=EvenSeconds(50.0),
             attention=Kernel('reference'))


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """{'wan': transformer/, 'moss': …} with models in them, {name: torch module}."""
  pytest.importorskip('diffusers')
  out = tmp_path_factory.mktemp('public')
  modules = {'wan': public_folders.write_wan(out / 'wan'),
             'moss': public_folders.write_moss(out / 'moss')}
  return {name: out / name / 'transformer' for name in modules}, modules


# Parity

def assert_same(module, folder, shape):
  tower = tower_of(folder)
  given = public_folders.inputs(shape, tower)
  v = plain_jit(tower.velocity)(wan_import.read(folder, tower), given)
  said = public_folders.said(module, given)
  assert np.abs(v + said).max() <= 1e-4 * np.abs(said).max()


@pytest.mark.parametrize('name, shape', [('wan', (3, 10, 14)), ('moss', (17,))])
def test_the_velocity_is_minus_what_the_published_class_says(folders, name, shape):
  assert_same(folders[1][name], folders[0][name], shape)


def test_a_folder_is_read_back_by_the_class_that_wrote_it(folders):
  for name, folder in folders[0].items():
    back = public_folders.read(folder.parent).state_dict()
    for key, tensor in folders[1][name].state_dict().items():
      np.testing.assert_array_equal(back[key], tensor)


def test_heads_as_wide_as_the_published_ones_turn_alike(folders, tmp_path):
  """64 pairs in 22, 21 and 21, or all for time."""
  sizes = dict(heads=1, head=128, depth=1)
  wan = public_folders.transformer(4, (1, 2, 2), **sizes)
  assert_same(public_folders.write_wan(tmp_path / 'wan', wan), tmp_path / 'wan/transformer',
              (6, 4, 6))
  moss = public_folders.transformer(4, (1, 1, 1), **sizes)
  assert_same(public_folders.write_moss(tmp_path / 'moss', moss), tmp_path / 'moss/transformer',
              (40,))


# Files

def flat(tree):
  return jax.tree_util.tree_leaves_with_path(tree)


def copied(folder, to, change):
  """A copy of a folder with `change` done to its {name: tensor}."""
  shutil.copytree(folder, to)
  path = to / 'diffusion_pytorch_model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  change(tensors)
  safetensors.numpy.save_file(tensors, path)
  return to


def test_every_name_of_the_published_files_is_asked_for_once():
  """27 in a block and 15 besides: 825."""
  tower = Wan(**dataclasses.asdict(sizes_of(WAN)), seconds=EvenSeconds(4.0))
  shapes = jax.eval_shape(tower.init, jax.random.key(0))
  names = ['/'.join(part.key for part in path) for path, _ in flat(shapes)]
  asked = [wan_import.their_name(ours).format(block) for ours in names
           for block in range(30 if ours.startswith('blocks/') else 1)]
  assert len(asked) == len(set(asked)) == 825


@pytest.mark.parametrize('change, words', [
    (lambda t: t.update({'blocks.0.attn2.add_k_proj.weight': np.zeros(3, np.float32)}),
     r'blocks.0.attn2.add_k_proj.weight: \(3,\) in the file, absent in the model'),
    (lambda t: t.pop('blocks.1.norm2.bias'),
     r'blocks.1.norm2.bias: missing in the file, \(24,\) in the model'),
    (lambda t: t.update({'proj_out.bias': np.zeros(5, np.float32)}), r'proj_out.bias: \(5,\)'),
    (lambda t: t.update({'proj_out.bias': np.zeros(128, np.int8)}), 'proj_out.bias is int8')])
def test_a_tensor_more_or_less_or_of_another_shape_is_told(folders, tmp_path, change, words):
  folder = copied(folders[0]['moss'], tmp_path / 'copy', change)
  with pytest.raises(UserError, match=words) as error:
    wan_import.read(folder, tower_of(folder))
  assert '\n' not in str(error.value)


def test_shards_say_what_one_file_says_and_a_missing_one_is_told(folders, tmp_path):
  modules = folders[1]
  public_folders.write_wan(tmp_path, modules['wan'], max_shard_size='20KB')
  folder = tmp_path / 'transformer'
  shards = sorted(folder.glob('*.safetensors'))
  assert len(shards) > 2
  jax.tree.map(np.testing.assert_array_equal, wan_import.read(folder, tower_of(folder)),
               wan_import.read(folders[0]['wan'], tower_of(folder)))
  shards[1].unlink()
  with pytest.raises(UserError, match=f'{shards[1].name}: no such file'):
    wan_import.read(folder, tower_of(folder))


def test_in_bfloat16_where_it_is_asked_for_also_from_files_that_are(folders, tmp_path):
  folder = folders[0]['wan']
  full = wan_import.read(folder, tower_of(folder))
  half = wan_import.read(folder, tower_of(folder), jnp.bfloat16)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(ml_dtypes.bfloat16)),
               half, full)

  def halve(tensors):
    tensors.update({name: x.astype(ml_dtypes.bfloat16) for name, x in tensors.items()})

  stored = wan_import.read(copied(folder, tmp_path / 'half', halve), tower_of(folder), jnp.bfloat16)
  jax.tree.map(np.testing.assert_array_equal, stored, half)


EIGHT = '''
import functools, pathlib, sys
import jax, numpy as np
from avlink_jax.model import wan_import
from avlink_jax.training import sharding
from test_wan_import import tower_of

folder = pathlib.Path(sys.argv[1])
tower, whole = tower_of(folder), wan_import.read(folder, tower_of(folder))
for shape in ((2, 4, 1), (8, 1, 1)):
  mesh = sharding.make_mesh(*shape)
  tree = wan_import.read(folder, tower, place=functools.partial(sharding.shardings, mesh=mesh))
  jax.tree.map(np.testing.assert_array_equal, tree, whole)
  wanted = sharding.shardings(whole, mesh)
  assert all(jax.tree.leaves(jax.tree.map(lambda x, s: x.sharding == s, tree, wanted)))
  kernel = tree['blocks']['mlp']['Dense_0']['kernel']
  print(kernel.addressable_shards[0].data.shape)
'''


@pytest.mark.slow
def test_eight_devices_each_get_their_part(folders):
  done = subprocess.run(
      [sys.executable, '-c', EIGHT, str(folders[0]['wan'])], cwd=runs.ROOT, capture_output=True,
      text=True, timeout=300, env=os.environ | {
          'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': runs.xla_flags(8),
          'PYTHONPATH': os.pathsep.join(
              [*(str(runs.ROOT / name) for name in ('', 'tests', 'tests/model')),
               os.environ.get('PYTHONPATH', '')])})
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == ['(2, 6, 40)', '(2, 24, 40)']


# Configs

def sizes_of(config):
  """What is read of a config.json with this content."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(wan_import.published, 'read_config', lambda folder: config)
    return wan_import.read_sizes(runs.ROOT)


def test_the_published_configs_are_read():
  wan = wan_import.Sizes(width=1536, depth=30, heads=12, mlp=8960, channels=16, text_width=4096,
                         patch=(1, 2, 2))
  assert sizes_of(WAN) == wan
  assert sizes_of(MOSS) == dataclasses.replace(wan, channels=128, text_width=2048, patch=(1,))
  assert sizes_of(MOSS | {'patch_size': 1}) == sizes_of(MOSS)


@pytest.mark.parametrize('config, words', [
    (WAN | {'image_dim': 1280}, 'image_dim=1280: of Wan only models with image_dim=None'),
    (WAN | {'added_kv_proj_dim': 1536}, 'added_kv_proj_dim=1536'),
    (WAN | {'qk_norm': 'rms_norm'}, "qk_norm='rms_norm': of Wan only .*'rms_norm_across_heads'"),
    (WAN | {'cross_attn_norm': False}, 'cross_attn_norm=False'),
    (WAN | {'_class_name': 'WanVACETransformer3DModel'}, 'WanVACETransformer3DModel'),
    (WAN | {'in_channels': 36}, 'in_channels=36 and out_channels=16: .* more than noisy data'),
    (WAN | {'num_layers': '30'}, "num_layers='30': no Wan is made like that"),
    ({k: v for k, v in WAN.items() if k != 'ffn_dim'}, "ffn_dim='missing'"),
    (WAN | {'patch_size': [2, 2]}, r'patch_size=\[2, 2\]'),
    (WAN | {'attention_head_dim': 127}, '1524 channels are not 12 heads of an even number'),
    (MOSS | {'has_image_input': True}, 'has_image_input=True: of MOSS-SoundEffect only'),
    (MOSS | {'vae_type': 'oobleck'}, "vae_type='oobleck': of MOSS-SoundEffect only .*'dac'"),
    (MOSS | {'freq_dim': 128}, 'freq_dim=128'),
    (WAN | {'_class_name': 'FluxTransformer2DModel'}, 'FluxTransformer2DModel'),
    ({'_class_name': 'StableAudioDiTModel'}, 'neither Wan nor MOSS.*StableAudioDiTModel'),
    ({}, 'neither Wan nor MOSS')])
def test_a_config_that_the_tower_does_not_cover_is_refused_by_name(config, words):
  with pytest.raises(UserError, match=words) as error:
    sizes_of(config)
  assert '\n' not in str(error.value) and 'config.json' in str(error.value)


@pytest.mark.parametrize('text, words', [
    (None, 'config.json: No such file'), ('{', 'config.json: not JSON'), ('[]', 'not a JSON obj')])
def test_a_config_that_cannot_be_read_is_told(tmp_path, text, words):
  if text is not None:
    (tmp_path / 'config.json').write_text(text)
  with pytest.raises(UserError, match=words):
    wan_import.read_sizes(tmp_path)


def test_a_folder_without_weights_is_told(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps(MOSS))
  with pytest.raises(UserError, match='neither diffusion_pytorch_model.safetensors nor'):
    wan_import.read(tmp_path, tower_of(tmp_path))
