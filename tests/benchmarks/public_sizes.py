"""Sizes of the public models of scale `public`, as their config.json files have them: no weights.

`use(config, folder)` points a config at folders with these files alone.
"""

import json

from tests.benchmarks.published import CONFIG

# Of the autoencoder of Wan2.1: means and deviations of latents are left at 0 and 1.
WAN_VAE = {'_class_name': 'AutoencoderKLWan', 'base_dim': 96, 'dim_mult': [1, 2, 4, 4],
           'num_res_blocks': 2, 'z_dim': 16, 'temperal_downsample': [False, True, True],
           'latents_mean': [0.0] * 16, 'latents_std': [1.0] * 16}
MOSS = {'dim': 1536, 'num_heads': 12, 'num_layers': 30, 'ffn_dim': 8960, 'in_dim': 128,
        'out_dim': 128, 'text_dim': 2048, 'freq_dim': 256, 'eps': 1e-6, 'patch_size': [1],
        'has_image_input': False, 'vae_type': 'dac'}
DAC = {'encoder_dim': 128, 'encoder_rates': [2, 3, 4, 5, 8], 'latent_dim': 128,
       'decoder_dim': 2048, 'decoder_rates': [8, 5, 4, 3, 2], 'sample_rate': 48_000,
       'continuous': True}
FULL = {'video': {'transformer': CONFIG, 'vae': WAN_VAE},
        'audio': {'transformer': MOSS, 'vae': DAC}}
TINY = {'video': {'transformer': CONFIG | {
            'num_attention_heads': 2, 'attention_head_dim': 12, 'num_layers': 10, 'ffn_dim': 40,
            'text_dim': 32}, 'vae': WAN_VAE | {'base_dim': 6, 'num_res_blocks': 1}},
        'audio': {'transformer': MOSS | {
            'dim': 24, 'num_heads': 2, 'num_layers': 10, 'ffn_dim': 40, 'text_dim': 24},
            'vae': DAC | {'encoder_dim': 2, 'decoder_dim': 64}}}


def use(config, folder, tiny=False):
  """Writes the files into `folder` and sets a config of scale public to them."""
  for name, parts in (TINY if tiny else FULL).items():
    for part, sizes in parts.items():
      (folder / name / part).mkdir(parents=True, exist_ok=True)
      (folder / name / part / 'config.json').write_text(json.dumps(sizes))
    config.frozen[name] = str(folder / name)
    config.texts[name].width = parts['transformer']['text_dim']
  if tiny:
    config.data.update(height=32, width=48, seconds=33 / 16)
    config.fusion.update(width=16, heads=2, mlp=32)
    config.sample.steps = 2
