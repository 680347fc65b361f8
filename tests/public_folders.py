"""Tiny random models in the layouts of published ones, written by their own torch classes.

    python -m tests.public_folders OUT

writes OUT/wan, as Wan2.1-T2V-1.3B is published, and OUT/moss, as MOSS-SoundEffect v2.0 is:
transformer/, vae/ (public_vaes.py), text_encoder/ and tokenizer/ (public_texts.py).
"""

import json
import pathlib
import sys

import numpy as np

HEADS, HEAD, DEPTH, MLP = 2, 12, 2, 40
PUBLIC_DEPTH = 10  # of OUT's, so that as many Fusion Blocks as scale public has fit between
VIDEO_CHANNELS, AUDIO_CHANNELS = 16, 128  # of the codecs
VIDEO_TEXT, AUDIO_TEXT = 32, 24  # widths of the text encoders


def randomise(module, seed=0):
  """Gives a torch module parameters of which none is at its start, and all keep activations near
  one: what training might have left. Returns the module, for evaluation."""
  import torch
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, x in module.named_parameters():
      noise = torch.randn(x.shape, generator=generator)
      matrix = x.ndim > 1 and 'table' not in name
      x.copy_(0.7 * noise * x[0].numel() ** -0.5 if matrix else
              0.2 * noise + (name.endswith('weight') and 'norm' in name))
  return module.eval()


def transformer(channels, patch, heads=HEADS, head=HEAD, depth=DEPTH, text=VIDEO_TEXT, mlp=MLP,
                seed=0):
  """Random diffusers.WanTransformer3DModel."""
  import diffusers
  return randomise(diffusers.WanTransformer3DModel(
      patch_size=patch, num_attention_heads=heads, attention_head_dim=head, in_channels=channels,
      out_channels=channels, text_dim=text, freq_dim=256, ffn_dim=mlp, num_layers=depth), seed)


def audio_rotary(module):
  """`module`, a transformer of patch (1, 1, 1), with MOSS's rotary table: all pairs turn with time.
  """
  from diffusers.models.embeddings import get_1d_rotary_pos_embed
  head = module.config.attention_head_dim

  def forward(x):
    return tuple(table[None, :, None] for table in get_1d_rotary_pos_embed(
        head, x.shape[2], 10_000.0, use_real=True, repeat_interleave_real=True))

  module.rope.forward = forward
  return module


def write_wan(folder, module=None, **saving):
  """Writes a model's `transformer` folder as Wan is published; gives the module."""
  module = transformer(VIDEO_CHANNELS, (1, 2, 2)) if module is None else module
  module.save_pretrained(pathlib.Path(folder, 'transformer'), **saving)
  return module


def write_moss(folder, module=None):
  """Writes a model's `transformer` folder as MOSS-SoundEffect is published; gives the module."""
  import safetensors.torch
  module = audio_rotary(transformer(AUDIO_CHANNELS, (1, 1, 1), text=AUDIO_TEXT, seed=1)
                        if module is None else module)
  c, part = module.config, pathlib.Path(folder, 'transformer')
  part.mkdir(parents=True)
  tensors = dict(module.state_dict())
  tensors['patch_embedding.weight'] = tensors['patch_embedding.weight'][..., 0, 0]  # of one axis
  safetensors.torch.save_file(tensors, part / 'diffusion_pytorch_model.safetensors')
  (part / 'config.json').write_text(json.dumps({
      'dim': c.num_attention_heads * c.attention_head_dim, 'in_dim': c.in_channels,
      'out_dim': c.out_channels, 'ffn_dim': c.ffn_dim, 'text_dim': c.text_dim,
      'freq_dim': c.freq_dim, 'eps': c.eps, 'patch_size': [1],
      'num_heads': c.num_attention_heads, 'num_layers': c.num_layers, 'has_image_input': False,
      'vae_type': 'dac'}))
  return module


def read(folder):
  """The torch module of a model's folder of either form, in float32."""
  import diffusers
  import safetensors.torch
  part = pathlib.Path(folder, 'transformer')
  c, tensors = json.loads((part / 'config.json').read_text()), {}
  for path in part.glob('*.safetensors'):
    tensors |= safetensors.torch.load_file(path)
  if 'vae_type' not in c:
    module = diffusers.WanTransformer3DModel.from_config(c)
  else:
    module = audio_rotary(transformer(
        c['in_dim'], (1, 1, 1), c['num_heads'], c['dim'] // c['num_heads'], c['num_layers'],
        c['text_dim'], c['ffn_dim']))
    tensors['patch_embedding.weight'] = tensors['patch_embedding.weight'][..., None, None]
  module.load_state_dict(tensors)
  return module.float().eval()


def pipeline(folder, shift, steps):
  """diffusers.WanPipeline of a folder that `write` wrote, whose Euler steps are even but for the
  shift, from 1 to 0 (the public scheduler's own end at the last of a thousand)."""
  import diffusers
  import transformers
  scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
  set_timesteps, even = scheduler.set_timesteps, np.linspace(1, 0, steps + 1)[:-1]
  scheduler.set_timesteps = lambda *_, **options: set_timesteps(sigmas=even)
  folder = pathlib.Path(folder)
  made = diffusers.WanPipeline(
      tokenizer=transformers.AutoTokenizer.from_pretrained(folder / 'tokenizer'),
      text_encoder=transformers.UMT5EncoderModel.from_pretrained(folder / 'text_encoder'),
      vae=diffusers.AutoencoderKLWan.from_pretrained(folder / 'vae'), transformer=read(folder),
      scheduler=scheduler)
  made.set_progress_bar_config(disable=True)
  return made


def inputs(shape, tower, places=9):
  """tower.Input of three examples of `shape`, at different t, with a full prompt, a short one and
  none."""
  from avlink_jax.model.tower import Input
  rng = np.random.default_rng(0)
  normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
  return Input(normal(3, *shape, tower.channels), np.array([0.02, 0.5, 0.96], np.float32),
               normal(3, places, tower.text_width),
               np.arange(places) < np.array([[places], [places // 2], [0]]),
               np.ones((3, shape[0]), bool))


def said(module, given):
  """What a torch module says, noise − data, of a tower.Input's data (B, T, [H, W,] C)."""
  import torch
  x = torch.from_numpy(given.x).movedim(-1, 1)
  text = torch.from_numpy(np.where(given.text_mask[..., None], given.text, np.float32(0)))
  with torch.no_grad():
    out = module(x.reshape(*x.shape, *[1] * (5 - x.ndim)), 1000 * (1 - torch.from_numpy(given.t)),
                 text).sample
  return out.reshape(x.shape).movedim(1, -1).numpy()


def write(out):
  """Writes both models into the folder `out`: {'wan': folder, 'moss': folder}."""
  import public_texts
  import public_vaes
  wan, moss = (pathlib.Path(out, name) for name in ('wan', 'moss'))
  write_wan(wan, transformer(VIDEO_CHANNELS, (1, 2, 2), depth=PUBLIC_DEPTH))
  public_vaes.save_wan_vae(wan)
  public_texts.save_umt5(wan, VIDEO_TEXT)
  write_moss(moss, transformer(AUDIO_CHANNELS, (1, 1, 1), depth=PUBLIC_DEPTH, text=AUDIO_TEXT,
                               seed=1))
  public_vaes.save_dac(moss)
  public_texts.save_qwen3(moss, AUDIO_TEXT)
  return {'wan': wan, 'moss': moss}


if __name__ == '__main__':
  sys.path.append(str(pathlib.Path(__file__).parent))  # where pytest finds these tests' files
  for folder in write(sys.argv[1]).values():
    print(folder)
