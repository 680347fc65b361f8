"""Defaults of all tasks, at each scale; a task's own file changes them.

paper: the numbers of AV-Link. small: one GPU for an hour. nano: two CPU cores, minutes. public:
published models in the towers' place (public.py), and else the paper's numbers.

A task's config has every key that its code may read. Sections for parts that only some tasks have
(`fusion`, `video_codec`, `codec_loss`, `vocoder`, `texts`) are added by their files, as are keys
that a single task reads; everything else is here. A new key also needs a line in
avlink_jax/storage/config_versions.py, so that older configs still work. `--help --config=…` shows
the comment beside a key.
"""

import math

from ml_collections import ConfigDict, config_dict

from avlink_jax.storage.config_versions import VERSION

SILENCE = math.log(1e-5)  # of a log-mel (codecs/mel.py)
SCALES = ('paper', 'small', 'nano')
PUBLIC = 'public'
PUBLIC_TASKS = ('v2a', 'a2v', 'joint', 'av', 't2a', 't2v')  # that have it


def at_scale(scale):
  """Function (paper, small, nano) -> the value for `scale`; for public the paper's."""
  if scale not in (*SCALES, PUBLIC):
    raise ValueError(f'unknown scale {scale!r}: use one of {", ".join(SCALES)}, {PUBLIC}')
  return lambda *values: values[SCALES.index(scale) if scale in SCALES else 0]


def base(task, scale):
  """Config of `task` before its own file's changes."""
  by_scale = at_scale(scale)
  if scale == PUBLIC and task not in PUBLIC_TASKS:
    raise ValueError(f'{task} has no scale public, which is of {", ".join(PUBLIC_TASKS)}')
  c = ConfigDict()
  c.version = VERSION  # of the config's keys (storage/config_versions.py); not to be set
  c.task = task  # what is trained; not to be set
  c.scale = scale  # paper, small, nano or public; not to be set
  c.name = task  # the run's: its task's, or its ablation's (configs/ablations.py)
  c.seed = 0  # of the first weights, the order of examples, the noise in training
  c.attention = 'auto'  # kernel: auto, reference, tiled, cudnn, splash (model/attention.py)
  # what is computed again in the backward pass, to save memory: none, attention (each block without
  # its attention), block (each block, the least memory), segment (each Fusion Block with what it
  # feeds)
  c.remat = by_scale('attention', 'none', 'none')
  c.compile_cache = '~/.cache/avlink_jax'  # keeps accelerators' programs; a bucket too; '': none
  # what is generated, a direction each: audio, video, audio+video (both at once); with Fusion
  # Blocks the others condition; of several directions each example is drawn one
  c.generate = ()

  c.data = ConfigDict(dict(  # clips, and examples cut from them
      # impacts, a folder of clips or a list of them, prepared records, tfds:NAME, or a mixture:
      # SOURCE*WEIGHT,SOURCE*WEIGHT (data/sources/mixture.py)
      source=by_scale('', 'impacts', 'impacts'),
      tfds_dir='',  # where tfds keeps its data sets; '': ~/tensorflow_datasets
      seed=0,  # which scenes impacts shows
      impacts_clips=by_scale(1_000_000, 1_000_000, 4096),  # how many scenes impacts trains on
      seconds=5.16,  # length of a training example, and of a window that is sampled
      fps=6.0,  # frames a second
      height=36,  # rows of a frame, pixels
      width=64,  # columns of a frame, pixels
      crop_height=0,  # height of an example's random crop, pixels; 0: all
      crop_width=0,  # width of an example's random crop, pixels; 0: all
      # seconds of the clips that examples are cut from (impacts, records), and of clips that are
      # sampled or tested; 0: as data.seconds
      clip_seconds=0.0,
      max_fps=30.0,  # frames a second that are kept of a file, at most
      min_seconds=0.5,  # of a clip; shorter ones are left out
      decode_seconds=120.0,  # time limit for decoding a clip
      max_broken=0.5,  # fraction of broken clips above which a run stops
      # whether clips of silence (peak below -60 dBFS), or with sound in less than a tenth of them,
      # are left out; else they are counted
      drop_silent=False,
      cache_bytes=2 << 30,  # memory for decoded clips
      threads=by_scale(16, 8, 2)))  # threads that read and decode clips

  c.codec = ConfigDict(dict(  # the 1D-VAE of log-mels (codecs/mel_vae.py)
      width=by_scale(512, 128, 32),  # channels of its first level
      multipliers=(1, 2, 4),  # times the width: channels of each level
      blocks=by_scale(3, 2, 1),  # residual blocks a level
      latent_channels=by_scale(64, 32, 16),  # numbers of a latent
      kl_weight=by_scale(1e-2, 1e-2, 1e-3),  # weight of the KL divergence in the loss
      std_decay=0.99,  # decay of the moving average of the latents' deviation
      centre=by_scale(SILENCE, SILENCE, -8.0),  # subtracted from mels; silence at larger scales
      scale=by_scale(1.0, 1.0, 2.0),  # divisor of mels after that
      linear=by_scale(False, False, True)))  # whether a matrix runs parallel to the convolutions
  c.text = ConfigDict(dict(  # encoder of prompts
      encoder=by_scale('t5', 't5', 'words'),  # t5: pretrained; words: trained with its tower
      width=by_scale(1024, 768, 64),  # numbers of a token's embedding
      t5=by_scale('google/flan-t5-large', 'google/flan-t5-base', ''),  # folder or hub name
      max_tokens=by_scale(128, 64, 32),  # of a prompt, at most
      cache='',  # folder that keeps T5's embeddings; '': none
      depth=by_scale(4, 2, 1),  # of encoder words: blocks
      heads=by_scale(16, 12, 4),  # of encoder words: attention heads
      buckets=by_scale(8192, 4096, 512)))  # of encoder words: rows that words are hashed into

  c.towers = ConfigDict()  # diffusion transformers, one a modality
  for name, codec, patch in (('audio', 'mel_vae', by_scale((1,), (1,), (2,))),
                             ('video', 'pixels', by_scale((1, 2, 2), (1, 6, 8), (1, 18, 16)))):
    # A patch with more values than the tower's width needs data prediction, and a bypass for detail
    # that the tower cannot represent.
    wide = (name, scale) == ('video', 'nano')
    c.towers[name] = ConfigDict(dict(
        kind='dit',  # which model the tower is; dit: the paper's (model/dit.py), wan (model/wan.py)
        # codec of its data: mel_vae, dac (published); pixels, video_vae, wan_vae (published)
        codec=codec,
        width=by_scale(1024, 384, 64),  # numbers of a token
        depth=by_scale(24, 12, 4),  # how many blocks
        heads=by_scale(16, 6, 2),  # attention heads
        mlp=by_scale(4096, 1536, 256),  # hidden width of the MLPs
        rope_base=by_scale(10_000.0, 1_000.0, 100.0),  # base of the rotary frequencies (Eq. 4)
        patch=patch,  # latents of a token: in time, of video also rows and columns
        features=0,  # above 0: no tower, but so long vectors from files (model/features.py)
        # what the network predicts: velocity; data; preconditioned, data from noise and noise from
        # data; residual, of a tower with a guide
        prediction='data' if wide else 'velocity',
        hidden=192 if wide else 0,  # width of the network around a wide patch; 0: none
        # channels of the finest level of a U-Net behind the head (model/refine.py); 0: none
        refine=0,
        refine_cell=2,  # rows and columns of data that are one of its places
        refine_levels=2,  # how many it has, each with places of 2 × 2 of the one before
        detail=0.04 if wide else 0.0,  # deviation of the detail that bypasses the tower
        guide=0,  # channels of the low-resolution input video (upsampler); 0: none
        local=0))  # width of the head that uses neighbouring pixels (upsampler); 0: none

  add_video_codec(c)

  c.flow = ConfigDict(dict(  # flow matching in training (Sec. 3.1)
      # location of the logit-normal law of the generated modality's t, in training (App. D.1)
      location=dict(audio=0.0, video=0.0),
      scale=1.0,  # scale of that law
      loss_weight=dict(audio=1.0, video=1.0),  # of each generated modality's error
      condition_law='fixed',  # law of the conditions' t, in training: fixed, uniform (Sec. 4.4)
      drop_generated=0.1,  # share of null prompts of the generated modality, in training
      drop_condition=0.1,  # share of null prompts of the conditioning one, in training
      condition_time=dict(video=0.96, audio=0.8)))  # t of the conditions (Sec. 3.3)
  c.train = ConfigDict(dict(  # the training loop and its optimiser
      steps=1,  # length of the run
      batch_size=by_scale(256, 64, 16),  # examples a step, on all devices together
      optimizer='adamw',  # adamw (App. C.1); muon, of weight matrices (training/step.py)
      accumulate=1,  # parts of a batch, processed one after another to save memory
      learning_rate=by_scale(3e-4, 5e-4, 2e-3),  # the optimiser's (App. C.1)
      warmup_steps=by_scale(10_000, 500, 100),  # first steps, in which the learning rate rises
      decay_steps=0,  # last steps, in which the learning rate falls to 0; 0: it stays
      beta1=0.9,  # Adam's decay of the mean gradient
      beta2=0.99,  # Adam's decay of the mean squared gradient
      epsilon=1e-8,  # Adam's, beside the root of the squared gradient
      weight_decay=0.01,  # AdamW's
      init_from='',  # workdir or file of initial weights, as far as they fit
      only='',  # regular expression in the names of the parameters that are trained; '': all are
      max_bad_steps=10,  # skipped steps in a row, not being finite, that stop the run
      # transfers between host and devices that nobody asked for, in a step: disallow, log, allow
      transfer_guard='disallow',
      watchdog_seconds=by_scale(1_800, 600, 600),  # a step that takes longer is a hang; 0: never
      clip_norm=1.0,  # gradients' norm, at most
      ema_decay=by_scale(0.9999, 0.999, 0.99),  # decay of the averaged weights, which are exported
      log_every=by_scale(50, 50, 20),  # steps between lines of the log
      sample_every=by_scale(5_000, 2_000, 0)))  # steps between samples; 0: at the end alone
  c.validation = ConfigDict(dict(  # loss on clips that are not trained on (training/validation.py)
      every=by_scale(1_000, 500, 0),  # steps between validations; 0: none
      count=by_scale(256, 64, 64),  # how many clips, of the validation split
      levels=8))  # how many flow times t, which divide the law of t into equal shares
  c.log = ConfigDict(dict(  # where figures go besides metrics.jsonl and TensorBoard
      wandb=''))  # project of Weights & Biases (pip install wandb); '': none
  c.checkpoint = ConfigDict(dict(  # kept in the workdir
      every=by_scale(1_000, 500, 500),  # steps between checkpoints
      keep=3,  # how many of the newest stay
      keep_every=0))  # those of every so many steps stay for good; 0: none
  c.sample = ConfigDict(dict(  # sampling, in mode sample and of a run that trains
      # paper: as the keys below say; fast: as the section `fast` changes them, where a key is not
      # given itself
      preset='paper',
      fast=ConfigDict(),  # what the preset fast changes
      steps=64,  # from noise to data (App. C.2)
      solver='euler',  # of a step: euler; midpoint or heun, two velocities each (flow.py)
      # steps that share one computation of the conditioning stream, which is most of V2A's work; 1:
      # none do
      refresh=1,
      guidance=5.0,  # w of classifier-free guidance (App. C.2); 1: none, half the work
      guidance_from=0.0,  # flow time t from which on there is guidance; before: half the work
      guidance_to=1.0,  # t up to which there is guidance
      shift=dict(audio=0.0, video=0.0),  # where steps lie (flow.time_grid); 0: evenly
      # vocoder: a workdir or a file, bundled, griffin_lim; '': samples of training are of
      # Griffin-Lim, and others are refused (codecs/vocoder.py)
      vocoder=by_scale('', '', 'bundled'),
      vocoder_rounds=by_scale(0, 0, 16),  # rounds of fitting a neural vocoder's wave to its mel
      # of generated audio: as_made (scaled down only above full scale), peak (at -1 dBFS), or a
      # loudness such as -16LUFS (samples/level.py)
      level='as_made',
      # what becomes of a given video's own sound under generated audio: drop, mix, second_track
      original_sound='drop',
      direction='',  # of a joint task: audio or video; '': what `generate` names first
      # whether generated video is upsampled to 512×288 at 24 fps: True; False; None: where there
      # are weights for it (frozen.upsampler)
      upsample=config_dict.placeholder(bool),
      count=by_scale(16, 16, 8),  # how many clips of the data source are sampled for
      batch_size=by_scale(8, 32, 32),  # windows sampled at a time
      overlap=1.16))  # seconds that neighbouring windows of a long clip share
  c.frozen = ConfigDict(dict(  # weights: bundled, a workdir or a .safetensors file; '': none
      # of the 1D-VAE (configs/mel_vae.py); of dac a published model, its folder or hub name, '':
      # that of the audio tower
      codec='',
      # of the audio tower (configs/t2a.py); of kind wan also a published model, its folder or hub
      # name, whose sizes the tower then has
      audio='',
      video='',  # of the video tower (configs/t2v.py), as of the audio's
      # of the video autoencoder (configs/video_vae.py); of wan_vae as of dac
      video_codec='',
      upsampler=''))  # of the upsampler (configs/upsampler.py)
  c.hosts = ConfigDict(dict(  # several processes (training/hosts.py)
      join_seconds=300,  # time limit for all to join; missing ones are named
      heartbeat_seconds=100,  # silence after which a host counts as lost
      patience_seconds=6 * 3600))  # time limit of others while the first process writes samples
  c.profile = ConfigDict(dict(  # where a step's time goes
      steps=''))  # to trace, such as 10:13 for steps 10 to 12 (training/profile.py); '': none
  c.mesh = ConfigDict(dict(  # axes of the mesh of devices (training/sharding.py)
      data=-1,  # shards of the batch; -1: as many as devices are left
      fsdp=1,  # shards of the parameters, and further ones of the batch
      sequence=1))  # shards of the video's tokens
  return c


def freeze(c, *parts):
  """Sets the sources of frozen parts: bundled weights at scale nano."""
  c.frozen.update(dict.fromkeys(parts, 'bundled' if c.scale == 'nano' else ''))


def freeze_video_codec(c, name):
  """Sets the source of the video autoencoder that configs/NAME.py trains, if latents are used."""
  if c.scale == 'nano' and c.towers.video.codec == 'video_vae':
    c.frozen.video_codec = f'bundled:{name}'


def add_fusion(c):
  """Adds Fusion Blocks between the frozen towers, and the sources of the frozen weights."""
  by_scale, nano, tower = at_scale(c.scale), c.scale == 'nano', c.towers.audio
  c.fusion = ConfigDict(dict(  # Fusion Blocks (Sec. 3.3, model/fusion.py)
      blocks=by_scale(8, 4, 2),  # how many Fusion Blocks
      width=tower.width,  # numbers of a token of either modality in them
      heads=tower.heads,  # attention heads
      mlp=tower.mlp,  # hidden width of the MLPs
      rank=16,  # of the modulation by both flow times (adaLN-Zero)
      rope_base=by_scale(10_000.0, 100.0, 10.0),  # base of the rotary frequencies (Eq. 4)
      nearness=by_scale(0.0, 1.0, 1.5),  # initial preference of attention for what is near in time
      contrast=by_scale(0.0, 0.0, 6.0),  # amplification of what changes in time
      injection='fusion',  # how the condition is injected: fusion, cross, text, add (Table 2)
      # where they are in the towers: interleaved; spread, from the first block to the last;
      # after:K, all of them after block K
      placement='interleaved',
      reinject=True,  # False: the conditioning tower gets nothing back, and runs once a sample
      finetune=False))  # True: the generated tower is trained too
  c.flow.location = dict(audio=-2.5 if nano else -1.0, video=-1.5 if nano else -1.0)
  if nano:
    # The nano codec's noisy latents show most onsets by themselves from t = 0.2 on
    # (tests/benchmarks/timing_in_noise.py), so the condition only matters below, and examples and
    # Euler steps are concentrated there. Paper scale has the paper's law and even steps.
    c.sample.shift = ConfigDict(c.flow.location)  # a copy: each can be set by itself
    if set('+'.join(c.generate).split('+')) == {'audio', 'video'}:
      # The video's error is small with a wide patch: without a weight A2V's gradient norm is 0.002
      # and V2A's 0.5, and shared blocks learned nothing about A2V in 4,000 steps.
      c.flow.loss_weight.video = 100.0
  c.flow.drop_generated, c.flow.drop_condition = 0.5, 0.2
  freeze(c, 'codec', 'audio', 'video')
  if nano:
    c.frozen.video = 'bundled:t2v_pixels'
  freeze_video_codec(c, 'base_vae')


def add_video_codec(c):
  """Adds the video autoencoder of the base size: frames one by one, a quarter as high and wide."""
  by_scale = at_scale(c.scale)
  c.video_codec = ConfigDict(dict(  # the video autoencoder (codecs/video_vae.py) of video_vae
      width=by_scale(128, 64, 32),  # channels of its first level
      multipliers=by_scale((1, 2, 4), (1, 2, 4), (1, 2)),  # times the width, of each level
      time_halvings=0,  # how many of the halvings of space halve time as well
      blocks=by_scale(2, 2, 0),  # residual blocks a level, in the encoder
      decoder_blocks=by_scale(2, 2, 1),  # residual blocks a level, in the decoder
      middle=by_scale(2, 1, 0),  # residual blocks besides at the coarsest level
      latent_channels=by_scale(8, 8, 4),  # numbers of a latent
      # frames, rows, columns of pixels that form a cell, so that no convolution runs over single
      # pixels
      patch=by_scale((1, 1, 1), (1, 1, 1), (1, 2, 2)),
      kernel=(1, 3, 3),  # of the residual blocks, and of convolutions that go down a level
      ends=(1, 3, 3),  # kernels of the convolutions next to cells
      up_kernel=(1, 3, 3),  # of convolutions that go up a level
      linear=by_scale(False, False, True),  # whether a matrix runs parallel to the convolutions
      quantise='none',  # none; lfq: latents of -1 and 1, tokens (codecs/lfq.py)
      kl_weight=by_scale(1e-6, 1e-6, 1e-3),  # weight of the KL divergence in the loss
      std_decay=0.99,  # decay of the moving average of the latents' deviation
      entropy_weight=0.1,  # of lfq: weight of its entropy loss, instead of the KL's
      commitment_weight=0.25))  # of lfq: weight of its commitment loss


def large_video_codec(c):
  """Sets the video autoencoder of 512×288, 4×8×8."""
  by_scale = at_scale(c.scale)
  c.towers.video.codec = 'video_vae'
  c.video_codec.update(
      multipliers=by_scale((1, 2, 2, 4), (1, 2, 4), (1, 1)), time_halvings=by_scale(2, 2, 1),
      blocks=by_scale(4, 2, 1), decoder_blocks=by_scale(4, 2, 2), middle=by_scale(4, 1, 0),
      latent_channels=by_scale(16, 16, 8), patch=by_scale((1, 1, 1), (1, 2, 2), (2, 4, 4)),
      kernel=(3, 3, 3), ends=by_scale((3, 3, 3), (3, 3, 3), (1, 3, 3)),
      up_kernel=by_scale((3, 3, 3), (3, 3, 3), (1, 1, 1)), kl_weight=by_scale(1e-6, 1e-6, 1e-4))


def fast(c, **changes):
  """Sets what the preset `fast` changes, which is the default from then on, but at paper scale."""
  c.sample.fast.update(changes)
  if c.scale in ('nano', PUBLIC):
    c.sample.preset = 'fast'


def add_texts(c, **encoders):
  """Gives each tower a pretrained text encoder of its own, {name: kind}, in the place of `text`."""
  del c.text
  c.texts = ConfigDict()  # encoders of prompts, one a modality
  for name, encoder in encoders.items():
    c.texts[name] = ConfigDict(dict(
        encoder=encoder,  # umt5 (of Wan), qwen3 (of MOSS-SoundEffect) or t5
        folder='',  # published folder or hub name; '': the tower's (frozen.NAME)
        width=0,  # numbers of a token's embedding; 0: as in the folder
        max_tokens=512,  # of a prompt, at most
        # of matrix products: float32, bfloat16; '': as of prepared embeddings, else as the towers'
        dtype='',
        cache=''))  # folder that keeps embeddings; '': none


def high_resolution(c, seconds, crop=(0, 0)):
  """Sets 512×288 at 24 frames a second. An example is `seconds` of a clip, with a random `crop`
  (height, width) of its frames; 0: all."""
  c.data.fps, c.data.height, c.data.width, c.data.seconds = 24.0, 288, 512, seconds
  c.data.crop_height, c.data.crop_width = crop
  c.data.clip_seconds = 5.16


def early(c, name, location, scale, guidance):
  """Sets nano base models' training and sampling nearer to noise, and a longer training.

  An average over a clip shows background, layout and timbre from t = 0.01 on, so that a prompt only
  matters below. The paper's law has hardly any examples there, and nano models trained with it
  ignored their prompts.
  """
  if c.scale == 'nano':
    c.flow.location[name] = c.sample.shift[name] = location
    c.flow.scale = scale
    c.sample.guidance = guidance
    c.train.steps, c.train.decay_steps, c.train.ema_decay = 12_000, 4_000, 0.998
