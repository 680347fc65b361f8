"""From a source of clips to batches: shuffled, cropped, stacked, prefetched by Grain.

Batch k is a pure function of (source, seed, k): a run that starts at step k reads what the run
left alone would have read, and so does each host, which loads only its own rows.
"""

import grain
import numpy as np

from avlink_jax.data import batch as batches
from avlink_jax.data.examples import Examples, MixedExamples
from avlink_jax.data.impacts import Impacts
from avlink_jax.data.sources import mixture
from avlink_jax.data.sources.folder import Folder
from avlink_jax.data.sources.records import LATENTS, Records, is_records
from avlink_jax.errors import NoSplit, UserError
from avlink_jax.storage.console import say

TFDS = 'tfds:'
INSTEAD = {'validation': ('test', 'train')}  # splits that serve where one is missing


def open_source(config, layout, split, reads=('audio', 'video')):
  """The source that `config.data` names: impacts, a folder of clips or a list of them, prepared
  records, tfds:NAME, or a mixture of such; of which `reads` is needed (names as in data/batch.py).

  Without a split for validation another one serves, which `tell_instead` names. Raises UserError
  for a source that is not there or of which nothing can be read, NoSplit where it lacks the split.
  """
  given = mixture.parse(config.data.source)
  parts = [_open_split(source, config, layout, split, reads) for source, _ in given]
  if len(parts) == 1:
    return parts[0]
  _check_alike(parts, given)
  mixed = mixture.Mixture(parts, mixture.labels([source for source, _ in given]),
                          [weight for _, weight in given])
  return mixed if split == 'train' else mixture.Interleaved(mixed)


def _open_split(source, config, layout, split, reads):
  """One source's split, or that which serves instead; then its `instead` says so."""
  missing = None
  for other in (split, *INSTEAD.get(split, ())):
    try:
      opened = _open_one(source, config, layout, other, reads)
    except NoSplit as error:
      missing = missing or error
      continue
    if missing is not None:
      trained = ', on which is trained,' if other == 'train' else ''
      opened.instead = f'{missing}: clips of {other}{trained} serve for {split}'
    return opened
  raise missing


def _open_one(source, config, layout, split, reads):
  features, needs_audio = config.towers.video.features, bool({'audio', 'mel', 'wave'} & set(reads))
  if source == 'impacts':
    if features:
      raise UserError('data.source=impacts has no features from outside: set it to a folder of '
                      'clips with an .npz beside each')
    size = config.data.impacts_clips if split == 'train' else None
    # What is not trained on is exported with its sound, read or not.
    return Impacts(split, seed=config.data.seed, size=size, duration=layout.clip.seconds,
                   height=layout.height, width=layout.width, fps=layout.fps,
                   sample_rate=layout.sample_rate,
                   need_audio=needs_audio or split != 'train')
  if not source:
    raise UserError('no data given: set --config.data.source to impacts, to a folder of clips or '
                    'to prepared records')
  if is_records(source):
    return Records(source, split, layout, reads)
  needs = dict(height=layout.height, width=layout.width, sample_rate=layout.sample_rate,
               max_fps=config.data.max_fps, need_video='video' in reads,
               need_audio=needs_audio,
               decode_seconds=config.data.decode_seconds)
  if source.startswith(TFDS):
    if features:
      raise UserError(f'data.source={source} has no features from outside: set it to a folder of '
                      'clips with an .npz beside each')
    from avlink_jax.data.sources.tfds import TfdsSource  # tfds takes a while to import
    opened = TfdsSource(source.removeprefix(TFDS), split, config.data.tfds_dir or None, **needs)
  else:
    opened = Folder(source, split=split, features=features, features_rate=layout.fps,
                    part_fps=layout.fps, for_sampling=split != 'train', **needs)
  return opened


def tell(source, write=True):
  """Prints what is odd but not wrong about a source's files, and how many of them have captions.
  `write` is False on all but a run's first process."""
  for part in getattr(source, 'sources', [source]):
    for note in getattr(part, 'notes', ()):
      say(note, write)
    if hasattr(part, 'coverage'):
      say(part.coverage, write)


def tell_instead(source, write=True):
  """Prints which split serves for one that is missing; `write` as in `tell`."""
  for part in getattr(source, 'sources', [source]):
    if hasattr(part, 'instead'):
      say(part.instead, write)


def _check_alike(parts, given):
  """Raises UserError where some sources of a mixture give latents and others media."""
  for name, stored in LATENTS.items():
    latents = [source for part, (source, _) in zip(parts, given, strict=True)
               if codec_of(part, name)]
    if latents and len(latents) < len(parts):
      raise UserError(f'data.source: {latents[0]} holds latents and other sources '
                      f'{stored.medium}, which do not fit into one batch: prepare all of them with '
                      f'--{stored.codec}, or none')


def codec_of(source, name='audio'):
  """What records.json says of the codec whose latents of a modality a source holds; None where it
  holds the media."""
  return source.codec(name) if isinstance(source, Records) else None


def check_codec(source, codec, frozen):
  """Raises UserError where a source holds latents of another codec than this one, whose weights
  {'params', 'std'} are `frozen`; None: it has none, or they are being trained."""
  parts = source.sources if isinstance(source, mixture.Mixture) else [source]
  held = [(part, codec_of(part, codec.name)) for part in parts if codec_of(part, codec.name)]
  if not held:
    return
  stored = LATENTS[codec.name]
  if frozen is None:
    raise UserError(f'{held[0][0].folder} holds latents and no {stored.medium}, which this run '
                    f'reads: set --config.towers.{codec.name}.codec to the kind of codec that made '
                    f'them, or prepare without --{stored.codec}')
  ours = codec.fingerprint(frozen)
  for part, told in held:
    if told['fingerprint'] != ours:
      raise UserError(
          f'{part.folder} holds latents of another codec ({told["given"]}, '
          f'{told["fingerprint"][:8]}) than this run\'s ({ours[:8]}): set --config.frozen.'
          f'{stored.codec} to that one, or prepare anew')


def make_examples(source, layout, readers, data):
  """`Examples` of a source, or of each part of a mixture; `data` is config.data."""
  if not isinstance(source, mixture.Mixture):
    return Examples(source, layout, readers, data.cache_bytes, data.min_seconds,
                    data.max_broken, data.drop_silent)
  parts = [Examples(part, layout, readers, data.cache_bytes // len(source.sources),
                    data.min_seconds, data.max_broken, data.drop_silent)
           for part in source.sources]
  return MixedExamples(source, parts)


def train_batches(examples, prepare, *, seed, batch_size, first_step, last_step, rows=None,
                  threads=2):
  """Iterates over (batch, Meta) of steps first_step … last_step − 1: of each batch the `rows` that
  this process needs (default: all), and nothing else is decoded.

  Every clip is seen once an epoch (of its source), in an order drawn from (seed, epoch).
  """
  rows = np.arange(batch_size) if rows is None else rows
  order = order_of(examples.source, seed)

  def load(step):
    drawn = [order(int(slot)) for slot in step * batch_size + rows]
    return collate([examples(index, crop) for index, crop in drawn], prepare)

  dataset = grain.MapDataset.range(first_step, last_step).map(load)
  return iter(dataset.to_iter_dataset(
      grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


def order_of(source, seed):
  """Place in the run -> (index of a clip, seed of its crop), a pure function of (seed, place)."""
  if isinstance(source, mixture.Mixture):
    schedule = mixture.Schedule(source.weights, seed)
    orders = [_shuffled(len(part), seed + 1 + i) for i, part in enumerate(source.sources)]

    def mixed(place):
      part, served = schedule(place)
      local, crop = orders[part][served]
      return source.index(part, local), crop

    return mixed
  return _shuffled(len(source), seed).__getitem__


def _shuffled(size, seed):
  """Every index once an epoch, shuffled anew in each, without end."""
  return (grain.MapDataset.range(size).seed(seed).shuffle().repeat()
          .random_map(lambda index, rng: (int(index), int(rng.integers(2**62)))))


def shares(source, seed, examples):
  """{'share_NAME': part of the first so many `examples` of a run} of a mixture's sources; {} of
  any other source."""
  if not isinstance(source, mixture.Mixture):
    return {}
  seen = mixture.Schedule(source.weights, seed).served_before(examples)
  return {f'share_{label}': float(count) / examples
          for label, count in zip(source.labels, seen, strict=True)}


def collate(loaded, prepare):
  """[(example, id, events, skipped, silent)] -> (batch, Meta)."""
  made, ids, events, skipped, silent = zip(*loaded, strict=True)
  odd = [row for row in zip(range(len(made)), skipped, silent, strict=True) if row[1] or row[2]]
  return batches.stack(made, prepare), batches.Meta(list(ids), list(events), odd)


def first_batch(examples, prepare, count):
  """The first `count` clips from their beginnings: what evaluation and export look at."""
  count = min(count, len(examples.source))
  return collate([examples(i) for i in range(count)], prepare)
