"""The scale `public`: published models as towers, so that only Fusion Blocks are trained.

Wan2.1-T2V-1.3B makes video and MOSS-SoundEffect v2 makes audio: transformers of 30 equal blocks
each, trained by flow matching, both Apache-2.0. Sizes of towers, codecs and text encoders are those
of the models' own files, so other models of the same classes go through the same config:
`--config.frozen.video=FOLDER --config.frozen.audio=FOLDER`. PUBLIC.md tells how to train with it.
"""

import math

from avlink_jax.configs import common

VIDEO = 'Wan-AI/Wan2.1-T2V-1.3B-Diffusers'
AUDIO = 'OpenMOSS-Team/MOSS-SoundEffect-v2.0'
SHIFT = dict(audio=5.0, video=3.0)  # of the noise schedules that the models are sampled with
GUIDANCE = dict(audio=4.0, video=5.0)  # that they are sampled with


def use(c):
  """Puts the published models into a task's config, last of all its changes."""
  c.data.update(
      fps=16.0,  # Wan's
      seconds=81 / 16,  # 81 frames, Wan's own length: 21 latents, the first of one frame
      height=240, width=416)  # a quarter of Wan's 480×832 tokens' cost or less; 480, 832 works too
  common.add_texts(c, audio='qwen3', video='umt5')
  c.frozen.update(audio=AUDIO, video=VIDEO, codec='', video_codec='')
  c.towers.audio.update(kind='wan', codec='dac')
  c.towers.video.update(kind='wan', codec='wan_vae')
  # Shift s of a schedule is −ln s in logit t (flow.time_grid). Training looks where sampling steps.
  shift = {name: -math.log(s) for name, s in SHIFT.items()}
  c.sample.shift.update(shift)
  c.flow.location.update(shift)
  # The lower one where both are generated: too much guidance is heard before it is seen.
  c.sample.guidance = min(GUIDANCE[name] for name in c.generate[0].split('+'))
  c.sample.steps = 50  # Wan's
  c.sample.batch_size = 4
  c.sample.count = 8
  c.sample.upsample = False  # frames are as large as the video tower makes them
  # A few thousand steps on 1,350 to 4,700 clips linked such towers in BridgeDiT (arXiv 2510.03117).
  c.train.update(steps=5_000, decay_steps=1_000, warmup_steps=500, batch_size=32,
                 learning_rate=1e-4, ema_decay=0.999, sample_every=1_000)
  c.checkpoint.every = 500
  c.remat = 'block'
  if 'fusion' in c:
    # Between 1536-wide towers: 10 blocks, one after every third block of either.
    c.fusion.update(blocks=10, width=768, heads=12, mlp=3072)
