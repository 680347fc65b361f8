"""Values that a config's numbers may have, checked before anything is built of them."""

import fnmatch
import math
import re

from avlink_jax.errors import UserError

# Least value of the keys that a pattern matches; the first match applies. Any other number may be
# whatever is finite.
LEAST = (
    ('seed', 0), ('train.steps', 1), ('train.batch_size', 1), ('train.accumulate', 1),
    ('train.max_bad_steps', 1), ('train.log_every', 1), ('train.sample_every', 0),
    ('train.warmup_steps', 0), ('train.decay_steps', 0), ('train.watchdog_seconds', 0),
    ('train.learning_rate', 0), ('train.weight_decay', 0), ('train.ema_decay', 0),
    ('train.beta[12]', 0), ('train.clip_norm', 0), ('train.epsilon', 0),
    ('checkpoint.every', 1), ('checkpoint.keep', 1), ('checkpoint.keep_every', 0),
    ('validation.every', 0), ('validation.count', 1), ('validation.levels', 1),
    ('sample.steps', 1), ('sample.batch_size', 1), ('sample.count', 0), ('sample.overlap', 0),
    ('sample.vocoder_rounds', 0), ('sample.residual_noise', 0),
    ('data.seed', 0), ('data.crop_*', 0), ('data.clip_seconds', 0), ('data.min_seconds', 0),
    ('data.max_broken', 0), ('data.cache_bytes', 0), ('data.seconds', 1e-3), ('data.fps', 1e-3),
    ('data.height', 1), ('data.width', 1), ('data.threads', 1), ('data.impacts_clips', 1),
    ('data.max_fps', 1e-3), ('data.decode_seconds', 0),
    ('flow.scale', 0), ('flow.drop_*', 0), ('flow.condition_time.*', 0), ('flow.loss_weight.*', 0),
    ('hosts.*', 0),
    ('towers.*.patch', 1), ('towers.*.width', 1), ('towers.*.heads', 1), ('towers.*.mlp', 1),
    ('towers.*.rope_base', 1), ('towers.*.depth', 0), ('towers.*.features', 0),
    ('towers.*.hidden', 0), ('towers.*.detail', 0), ('towers.*.guide', 0), ('towers.*.local', 0),
    ('towers.*.refine', 0), ('towers.*.refine_*', 1),
    ('text.width', 1), ('text.max_tokens', 1), ('text.depth', 1), ('text.heads', 1),
    ('text.buckets', 1),
    ('fusion.blocks', 1), ('fusion.width', 1), ('fusion.heads', 1), ('fusion.mlp', 1),
    ('fusion.rank', 1), ('fusion.rope_base', 1), ('fusion.nearness', 0), ('fusion.contrast', 0),
    ('*codec.width', 1), ('*codec.multipliers', 1), ('*codec.latent_channels', 1),
    ('*codec.blocks', 0), ('codec.scale', 1e-6), ('video_codec.patch', 1),
    ('video_codec.kernel', 1), ('video_codec.ends', 1),
    ('video_codec.up_kernel', 1), ('video_codec.*', 0), ('codec_loss.*', 0),
    ('vocoder.*_weight', 0), ('vocoder.adversarial_after', 0), ('vocoder.*', 1),
)
MOST = (('seed', 2**31 - 1), ('data.seed', 2**31 - 1),
        ('data.seconds', 3600), ('data.clip_seconds', 3600), ('data.fps', 1000),
        ('data.height', 1 << 14), ('data.width', 1 << 14), ('data.threads', 4096),
        ('train.ema_decay', 1), ('train.beta[12]', 1), ('flow.drop_*', 1),
        ('flow.condition_time.*', 1))
# Keys whose values are tuples, and what of.
TUPLES = (('generate', str), ('towers.*.patch', int), ('*.multipliers', int),
          ('video_codec.patch', int), ('video_codec.kernel', int), ('video_codec.ends', int),
          ('video_codec.up_kernel', int),
          ('vocoder.periods', int), ('vocoder.period_widths', int), ('vocoder.rates', int),
          ('vocoder.*kernels', int), ('vocoder.dilations', tuple), ('vocoder.scale_layers', tuple))
ADDRESSES = ('compile_cache', 'data.tfds_dir')  # keys whose values may be in a bucket
NAMES = {str: 'names', int: 'whole numbers', tuple: 'tuples'}
HEADED = ('towers.*', 'fusion', 'text')  # sections whose `width` is that of all `heads` together
CHOICES = (('train.transfer_guard', ('disallow', 'log', 'allow')),
           ('train.optimizer', ('adamw', 'muon')), ('vocoder.block', (1, 2)))


def check(config):
  """Raises UserError for the first value of a ConfigDict that cannot be meant."""
  for key, value in leaves(config.to_dict()):
    for number in value if isinstance(value, tuple | list) else [value]:
      if isinstance(number, int | float) and not isinstance(number, bool):
        check_number(key, value, number)
    kind = first(TUPLES, key)
    if kind and not (isinstance(value, tuple | list) and (value or kind is str) and all(
        isinstance(one, kind | list if kind is tuple else kind) for one in value)):
      raise UserError(f'{key}={value!r}: give a tuple of {NAMES[kind]}, such as those that '
                      f'--help --config=configs/{config.task}.py:{config.scale} lists')
    if isinstance(value, str) and '://' in value and key not in ADDRESSES:
      lists = ', or a text file that lists clips by address' if key == 'data.source' else ''
      raise UserError(f'{key}={value}: mount the bucket (Cloud Storage FUSE, as launch/tpu_pod.sh '
                      f'does) and give its folder{lists}')
    if (choices := first(CHOICES, key)) and value not in choices:
      raise UserError(f'{key}={value!r}: use {", ".join(map(str, choices))}')
  for pattern in HEADED:
    check_heads(pattern, config)
  try:
    re.compile(config.train.only)
  except re.error as error:
    raise UserError(f'train.only={config.train.only!r} is no regular expression: {error}') from None


def check_heads(pattern, config):
  """Raises UserError: the width of a section that `pattern` names is not that of so many heads, of
  an even number of channels each, as rotary embedding turns them in pairs."""
  section, _, every = pattern.partition('.')
  found = config.get(section, {})
  for name, one in found.items() if every else [('', found)]:
    if one.get('features') or one.get('encoder', 'words') != 'words' or 'heads' not in one:
      continue  # has none
    if one.width % (2 * one.heads):
      fit = [str(n) for n in range(1, one.width + 1) if one.width % (2 * n) == 0][:8]
      where = '.'.join(filter(None, (section, name)))
      raise UserError(f'{where}.heads={one.heads} does not divide {where}.width={one.width} into '
                      'heads of an even number of channels: '
                      + (f'{", ".join(fit)} would' if fit else 'give an even width'))


def check_number(key, value, number):
  """Raises UserError: `number`, which is the `value` of a key or in it, is out of bounds."""
  least, most = first(LEAST, key), first(MOST, key)
  if not math.isfinite(number):
    raise UserError(f'{key}={value}: give a finite number')
  if least is not None and number < least:
    raise UserError(f'{key}={value}: give at least {least:g}')
  if most is not None and number > most:
    raise UserError(f'{key}={value}: give at most {most:g}')


def first(table, key):
  """Value of the first pattern in a table that matches a key, or None."""
  return next((value for pattern, value in table if fnmatch.fnmatch(key, pattern)), None)


def leaves(config, path=''):
  """Yields (key, value) of the values of a config (nested dicts), keys as in train.steps."""
  for key, value in config.items():
    if isinstance(value, dict):
      yield from leaves(value, f'{path}{key}.')
    else:
      yield f'{path}{key}', value
