"""The text-to-video base model: a DiT on 36×64 frames at 6 a second; at nano on their latents."""

from avlink_jax.configs import common, public, t2v_pixels


def get_config(scale='paper'):
  c = t2v_pixels.get_config(scale)
  c.name = 't2v'
  if scale == 'nano':
    # A patch is 48 numbers for a token's 96, and the autoencoder's decoder leaves no seams.
    c.towers.video.update(codec='video_vae', patch=(1, 3, 4), width=96, depth=6, heads=3, mlp=384,
                          prediction='preconditioned', hidden=0, detail=0.0, refine=32)
    # Muon's loss was 4 to 24 % below AdamW's at steps 100 to 160, on the same examples.
    common.early(c, 'video', location=-0.6, scale=1.3, guidance=4.0)
    c.train.optimizer, c.train.learning_rate = 'muon', 4e-3
    c.train.steps, c.train.decay_steps, c.train.ema_decay = 6_000, 2_000, 0.99
  common.freeze_video_codec(c, 'base_vae')
  if scale == common.PUBLIC:
    public.use(c)
  return c
