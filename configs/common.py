"""What all tasks share, at each scale. A task's own file says what is different about it.

paper: the numbers of AV-Link. small: one GPU for an hour. nano: two CPU cores, minutes.
"""

import math

from ml_collections import ConfigDict, config_dict

SILENCE = math.log(1e-5)  # of a log-mel (codecs/mel.py)
SCALES = ('paper', 'small', 'nano')
TOWER = {
    'paper': dict(width=1024, depth=24, heads=16, mlp=4096, rope_base=10_000.0),
    'small': dict(width=384, depth=12, heads=6, mlp=1536, rope_base=1_000.0),
    'nano': dict(width=64, depth=4, heads=2, mlp=256, rope_base=100.0),
}
PATCH = {  # of (time,) and (time, height, width)
    'paper': dict(audio=(1,), video=(1, 2, 2)),
    'small': dict(audio=(1,), video=(1, 6, 8)),
    'nano': dict(audio=(2,), video=(1, 18, 16)),
}
FUSION = {
    'paper': dict(blocks=8, rank=16, rope_base=10_000.0, nearness=0.0, contrast=0.0),
    'small': dict(blocks=4, rank=16, rope_base=100.0, nearness=1.0, contrast=0.0),
    'nano': dict(blocks=2, rank=16, rope_base=10.0, nearness=1.5, contrast=6.0),
}


def base(task, scale):
  """Config of `task` before its own file's changes."""
  if scale not in SCALES:
    raise ValueError(f'unknown scale {scale!r}: use one of {", ".join(SCALES)}')
  by_scale = lambda paper, small, nano: dict(paper=paper, small=small, nano=nano)[scale]  # noqa: E731
  c = ConfigDict()
  c.task, c.scale, c.seed = task, scale, 0
  c.attention = 'auto'  # auto, reference, tiled, cudnn, splash (model/attention.py)
  # none, block (each block, the least memory), segment (each Fusion Block with what it feeds)
  c.remat = by_scale('block', 'none', 'none')
  c.compile_cache = '~/.cache/avlink_jax'  # for accelerators' programs; a bucket too, '': none
  # What is made, a direction each: 'audio', 'video', 'audio+video' (both at once). With a link
  # the others condition; of several directions each example is drawn one.
  c.generate = ()

  c.data = ConfigDict(dict(
      # impacts, a folder of clips or a list of them, prepared records, tfds:NAME, or a mixture:
      # SOURCE*WEIGHT,SOURCE*WEIGHT (data/sources/mixture.py)
      source=by_scale('', 'impacts', 'impacts'),
      tfds_dir='',  # where tfds keeps its data sets; '': ~/tensorflow_datasets
      seed=0, impacts_clips=by_scale(1_000_000, 1_000_000, 4096),
      seconds=5.16, fps=6.0, height=36, width=64, max_fps=30.0, min_seconds=0.5,
      decode_seconds=120.0,  # after which a clip is given up
      max_broken=0.5,  # share of the clips tried above which a run stops
      cache_bytes=2 << 30, threads=by_scale(16, 8, 2)))

  c.codec = ConfigDict(dict(  # the 1D-VAE
      width=by_scale(512, 128, 32), multipliers=(1, 2, 4), blocks=by_scale(3, 2, 1),
      latent_channels=by_scale(64, 32, 16), kl_weight=by_scale(1e-2, 1e-2, 1e-3), std_decay=0.99,
      # How mels go in: minus `centre` (at the larger scales the value of silence), over `scale`;
      # and whether a matrix goes around the convolutions (codecs/mel_vae.py).
      centre=by_scale(SILENCE, SILENCE, -8.0), scale=by_scale(1.0, 1.0, 2.0),
      linear=by_scale(False, False, True)))
  c.text = ConfigDict(dict(
      encoder=by_scale('t5', 't5', 'words'),  # t5: pretrained; words: trained with its tower
      width=by_scale(1024, 768, 64),
      t5=by_scale('google/flan-t5-large', 'google/flan-t5-base', ''),  # a folder, or a hub's name
      max_tokens=by_scale(128, 64, 32),
      cache='',  # a folder that keeps T5's embeddings
      # of 'words'
      depth=by_scale(4, 2, 1), heads=by_scale(16, 12, 4), buckets=by_scale(8192, 4096, 512)))
  c.towers = ConfigDict({
      name: dict(TOWER[scale], patch=PATCH[scale][name], kind='dit',
                 codec=dict(audio='mel_vae', video='pixels')[name],  # codecs/codec.py
                 features=0,  # above 0: no tower, but vectors of so many numbers from outside
                 # A patch wider than the tower needs a network that names the data, and a way past
                 # the tower for what the tower cannot carry (model/dit.py).
                 **(dict(prediction='data', hidden=192, detail=0.04)
                    if (name, scale) == ('video', 'nano')
                    else dict(prediction='velocity', hidden=0, detail=0.0)))
      for name in ('audio', 'video')})

  c.flow = ConfigDict(dict(
      # Logit-normal law of t (App. D.1), of what is generated.
      location=dict(audio=0.0, video=0.0), scale=1.0,
      loss_weight=dict(audio=1.0, video=1.0),  # of each generated modality's error
      condition_law='fixed',  # t of what conditions, in training: fixed, or uniform (Sec. 4.4)
      drop_generated=0.1, drop_condition=0.1,  # how often a prompt is replaced by the null one
      condition_time=dict(video=0.96, audio=0.8)))
  c.train = ConfigDict(dict(
      steps=1, batch_size=by_scale(256, 64, 16),
      accumulate=1,  # parts of a batch that are gone through one after another, to save memory
      learning_rate=by_scale(3e-4, 5e-4, 2e-3), warmup_steps=by_scale(10_000, 500, 100),
      decay_steps=0, beta1=0.9, beta2=0.99, epsilon=1e-8, weight_decay=0.01,
      init_from='',  # a workdir or file of weights to begin with, as far as they fit
      max_bad_steps=10,  # in a row, of losses or gradients that are not finite
      watchdog_seconds=by_scale(1_800, 600, 600),  # without a step's end: a hang; 0: never
      clip_norm=1.0, ema_decay=by_scale(0.9999, 0.999, 0.99),
      log_every=by_scale(50, 50, 20), sample_every=by_scale(5_000, 2_000, 0)))
  c.checkpoint = ConfigDict(dict(
      every=by_scale(1_000, 500, 500), keep=3,  # the newest
      keep_every=0))  # and for good those of every so many steps; 0: none
  c.sample = ConfigDict(dict(
      steps=64, guidance=5.0,
      shift=dict(audio=0.0, video=0.0),  # where Euler steps lie (flow.time_grid); 0: evenly
      # griffin_lim, bundled, a workdir or a file (codecs/vocoder.py)
      vocoder=by_scale('griffin_lim', 'griffin_lim', 'bundled'),
      vocoder_rounds=by_scale(0, 0, 16),  # of fitting a neural vocoder's wave to its mel
      direction='',  # of a joint task: what to generate; '': what its config names first
      count=by_scale(16, 16, 8), batch_size=by_scale(8, 32, 32),
      overlap=1.16))  # seconds that the windows of a long clip share
  c.hosts = ConfigDict(dict(  # several processes (training/hosts.py)
      join_seconds=300,  # after which those that did not come are named
      heartbeat_seconds=100,  # without a sign of life from a host: it is gone
      patience_seconds=6 * 3600))  # while the first process samples
  c.profile = ConfigDict(dict(steps=''))  # 10:13: a trace of steps 10 to 12 (training/profile.py)
  # Examples are split over data × fsdp (-1: all devices that are left), parameters over fsdp, the
  # tokens of the picture over sequence.
  c.mesh = ConfigDict(dict(data=-1, fsdp=1, sequence=1))
  return c


def add_fusion(c):
  """Fusion Blocks between the frozen towers, and where the frozen weights come from."""
  tower, nano = TOWER[c.scale], c.scale == 'nano'
  c.fusion = ConfigDict(dict(
      FUSION[c.scale], width=tower['width'], heads=tower['heads'], mlp=tower['mlp'],
      injection='fusion',  # fusion, cross, text, add (Table 2)
      placement='interleaved',  # or after:K
      reinject=True,  # False: the conditioning tower runs by itself, once a sample
      finetune=False))  # True: the generated tower is trained along
  c.flow.location = dict(audio=-2.5 if nano else -1.0, video=-1.5 if nano else -1.0)
  if nano:
    # Where the condition decides about timing depends on the data: the nano codec's latents show
    # most onsets by themselves from t = 0.2 on (tests/benchmarks/timing_in_noise.py), so examples
    # and Euler steps lie below. Paper scale keeps the paper's law and even steps.
    c.sample.shift = ConfigDict(c.flow.location)  # a copy: each can be set by itself
    if set('+'.join(c.generate).split('+')) == {'audio', 'video'}:
      # A picture's error is a small thing in a wide patch: by itself A2V's gradient is 0.002 long
      # and V2A's 0.5, and blocks that hear both learned nothing of A2V in 4,000 steps.
      c.flow.loss_weight.video = 100.0
  c.flow.drop_generated, c.flow.drop_condition = 0.5, 0.2
  c.frozen = frozen(c.scale, 'codec', 'audio', 'video')


def add_video_codec(c):
  """The video autoencoder, 4×8×8, for tasks that make or use its latents."""
  by_scale = lambda paper, small, nano: dict(paper=paper, small=small, nano=nano)[c.scale]  # noqa: E731
  c.towers.video.codec = 'video_vae'
  c.video_codec = ConfigDict(dict(
      width=by_scale(128, 64, 32), multipliers=by_scale((1, 2, 2, 4), (1, 2, 4), (1, 1)),
      time_halvings=by_scale(2, 2, 1),  # how many of the halvings halve time as well
      # Residual blocks a level, and besides at the coarsest.
      blocks=by_scale(4, 2, 1), decoder_blocks=by_scale(4, 2, 2), middle=by_scale(4, 1, 0),
      latent_channels=by_scale(16, 16, 8),
      # Instants, rows, columns of pixels that make a cell first, so that no convolution runs over
      # single pixels; kernels of the convolutions next to them, and of those that go up a level.
      patch=by_scale((1, 1, 1), (1, 2, 2), (2, 4, 4)),
      ends=by_scale((3, 3, 3), (3, 3, 3), (1, 3, 3)),
      up_kernel=by_scale((3, 3, 3), (3, 3, 3), (1, 1, 1)),
      linear=by_scale(False, False, True),  # whether a matrix goes around the convolutions
      quantise='none',  # or lfq: latents of -1 and 1, tokens (codecs/lfq.py)
      kl_weight=by_scale(1e-6, 1e-6, 1e-4), std_decay=0.99,
      entropy_weight=0.1, commitment_weight=0.25))  # of lfq, in the KL's place


def high_resolution(c, seconds, crop=(0, 0)):
  """512×288 at 24 frames a second. An example is `seconds` of a clip and shows of its pictures
  `crop` (height, width), at a place of its own; 0: all."""
  c.data.fps, c.data.height, c.data.width, c.data.seconds = 24.0, 288, 512, seconds
  c.data.crop_height, c.data.crop_width = crop
  # Of the clips that examples are cut from (impacts, records), and that are looked at whole.
  c.data.clip_seconds = 5.16


def add_upsampler(c):
  """What makes 512×288 at 24 frames a second of the pictures, once they are sampled."""
  # True, False, or None: where there are weights (`frozen.upsampler`).
  c.sample.upsample = config_dict.placeholder(bool)
  with c.unlocked():
    c.frozen = ConfigDict({**c.get('frozen', {}), **frozen(c.scale, 'upsampler')})


def early(c, name, location, guidance):
  """Nano base models learn, and are sampled, near noise, and for longer.

  An average over a whole clip shows its background, its layout, its timbre from t = 0.01 on: what
  a prompt says is there to be seen, and only before that do words matter. Trained on the paper's
  law, which has hardly an example there, nano models did not listen to their prompts at all.
  """
  if c.scale == 'nano':
    c.flow.location[name] = c.sample.shift[name] = location
    c.flow.scale = 2.0
    c.sample.guidance = guidance
    c.train.steps, c.train.decay_steps, c.train.ema_decay = 12_000, 4_000, 0.998


def frozen(scale, *parts):
  """Where each frozen part is read from: 'bundled', a workdir or a .safetensors file."""
  return ConfigDict({part: 'bundled' if scale == 'nano' else '' for part in parts})
