"""One call of the prepare command: what is read and kept, and whether a folder fits it."""

import argparse
import dataclasses
import hashlib
import json
import math

import jax.numpy as jnp

from avlink_jax.codecs import pretrained_text
from avlink_jax.data.batch import Layout
from avlink_jax.data.impacts import Impacts
from avlink_jax.data.prepare import convert
from avlink_jax.data.sources import records
from avlink_jax.data.sources.folder import SPLITS, Folder
from avlink_jax.data.sources.tfds import TfdsSource
from avlink_jax.errors import UserError
from avlink_jax.hardware import precision
from avlink_jax.storage.atomic import write_text
from avlink_jax.storage.console import say

T5_TOKENS = 128  # places of a caption for T5; of other encoders their pipelines' own (512)


@dataclasses.dataclass(frozen=True)
class Job:
  """The command's flags, checked, and what they stand for. Raises UserError."""
  flags: argparse.Namespace

  def __post_init__(self):
    g = self.flags
    if not set(self.reads) <= {'audio', 'video'} or not self.reads:
      raise UserError(f'--reads={g.reads}: audio, video or audio,video')
    if not set(self.splits) <= set(SPLITS):
      raise UserError(f'--splits={g.splits}: some of {",".join(SPLITS)}')
    if not 0 <= g.host < g.hosts:
      raise UserError(f'--host={g.host} --hosts={g.hosts}: hosts count from 0')
    if min(g.processes, g.shard_clips, g.height, g.width) < 1 or min(g.seconds, g.fps) <= 0:
      raise UserError('--processes, --shard_clips, --height, --width, --seconds and --fps must be '
                      'above 0')
    for name, (flag, medium, *_) in records.LATENTS.items():
      if getattr(g, flag) and name not in self.reads:
        raise UserError(f'--{flag} makes latents of {medium}, and --reads leaves {medium} out')
    if g.codec and g.sample_rate and g.sample_rate != self.layout.sample_rate:
      raise UserError(f'--sample_rate={g.sample_rate}: the codec reads sound at '
                      f'{self.layout.sample_rate} Hz: leave it out')
    if g.t5 and (g.audio_text or g.video_text):
      raise UserError('--t5 embeds captions of both audio and video: give it, or --audio_text and '
                      '--video_text')
    if self.high:
      convert.check_high(self.high, self.layout)

  @property
  def splits(self):
    return tuple(self.flags.splits.split(',')) if self.flags.splits else SPLITS

  def sources(self):
    """Mapping {split: source} of --splits, by default of all that exist."""
    sources, missing = {}, []
    for split in self.splits:
      try:
        sources[split] = self.source(split)
      except UserError as error:
        if self.flags.splits:
          raise
        missing.append(error)
    if not sources:
      raise missing[0]
    for error in missing:
      say(f'prepare: {error}: left out')
    return sources

  @property
  def reads(self):
    return tuple(sorted(filter(None, self.flags.reads.split(','))))

  @property
  def layout(self):
    g = self.flags
    rate = self.codecs['audio'].codec.sample_rate if g.codec else g.sample_rate or 16_000
    return Layout(g.seconds, g.fps, g.height, g.width, rate)

  @property
  def codecs(self):
    """Mapping {modality: convert.Codec} of those whose latents are stored."""
    g = self.flags
    return {name: convert.load_codec(getattr(g, flag), name, g.fps)
            for name, (flag, *_) in records.LATENTS.items() if getattr(g, flag)}

  @property
  def high(self):
    return convert.High() if self.flags.high else None

  def source(self, split):
    """Opens one split of the source. Raises UserError: missing, or no such split."""
    g, layout, large = self.flags, self.layout, self.high or self.layout
    size = dict(height=large.height, width=large.width)
    if g.source == 'impacts':
      return Impacts(split, size=g.limit or None, duration=layout.seconds, fps=large.fps,
                     sample_rate=layout.sample_rate, **size)
    needs = dict(sample_rate=layout.sample_rate, max_fps=large.fps,
                 need_video='video' in self.reads, need_audio='audio' in self.reads, **size)
    if g.source.startswith('tfds:'):
      return TfdsSource(g.source.removeprefix('tfds:'), split, g.data_dir or None, **needs)
    return Folder(g.source, split=split, captions=g.captions, template=g.template, **needs)

  def converter(self, split):
    """Converter of a split's clips. Beside latents, the media are kept in validation and test,
    where samples are compared with them."""
    g = self.flags
    return convert.Converter(self.layout, self.reads, self.codecs, split != 'train', self.high,
                             g.shots, g.shortest, g.drop_silent)

  @property
  def text_sources(self):
    """Mapping {table of embeddings: folder or hub name of its text encoder} (embeddings.tables)."""
    g = self.flags
    given = {'text': g.t5, 'text_audio': g.audio_text, 'text_video': g.video_text}
    return {table: source for table, source in given.items() if source}

  def text_encoder(self, table):
    """Loads the encoder of a table. On accelerators it computes in bfloat16, as the published
    pipelines do, but T5 in float32. Raises UserError."""
    g, shared = self.flags, table == 'text'
    dtype = 'float32' if shared else jnp.dtype(precision.of().compute).name
    return pretrained_text.load(
        self.text_sources[table], max_tokens=g.max_tokens or (T5_TOKENS if shared else None),
        dtype=dtype, kind='t5' if shared else None, seconds=g.seconds)


def describe(job, sources) -> dict:
  """Content of records.json before there are counts: all that the records depend on."""
  g, layout = job.flags, job.layout
  codecs = {flag: job.codecs.get(name) for name, (flag, *_) in records.LATENTS.items()}
  clips = {split: min(len(source), g.limit or len(source)) for split, source in sources.items()}
  return {
      'version': records.VERSION, 'source': g.source, 'layout': records.layout_of(layout),
      'audio': 'audio' in job.reads, 'video': 'video' in job.reads,
      'high': dataclasses.asdict(job.high) if job.high else None,
      **{flag: codec and {'given': getattr(g, flag), 'fingerprint': codec.fingerprint,
                          'rate': codec.codec.rate, 'channels': codec.codec.channels}
         for flag, codec in codecs.items()},
      'text': describe_texts(job),
      'shots': g.shots, 'shortest': g.shortest, 'clips': clips,
      'drop_silent': g.drop_silent or None,  # earlier versions say nothing
      'listing': {split: listing_hash(source) for split, source in sources.items()},
      'shards': {split: shard_count(count, g.shard_clips) for split, count in clips.items()}}


def describe_texts(job):
  """Part `text` of records.json: None; what is to be known of the T5; or that of the encoders of
  audio and of video."""
  tables = {table.removeprefix('text_'): describe_text(job, table) for table in job.text_sources}
  return tables.get('text', tables or None)


def describe_text(job, table):
  """What records.json says of one text encoder, which is loaded for that and let go."""
  encoder = job.text_encoder(table)
  about = {'given': job.text_sources[table], 'fingerprint': encoder.fingerprint,
           'max_tokens': encoder.max_tokens, 'width': encoder.width}
  return about if table == 'text' else about | {
      'kind': encoder.kind, 'dtype': encoder.dtype, 'seconds': job.flags.seconds}


def shard_count(clips, most) -> int:
  """Number of shards of at most `most` clips; of a small source more, smaller ones, so that many
  processes have work. Depends on nothing that differs between hosts."""
  return max(1, min(64, clips // 16), math.ceil(clips / most))


def listing_hash(source) -> str:
  """Hash of a source's clip names and captions; of a source that is slow to list, its length."""
  entries = ['\t'.join([source.name(i), *dict.fromkeys(
      source.caption(i, medium) for medium in ('audio', 'video'))]) for i in range(len(source))
  ] if isinstance(source, Folder) else [str(len(source))]
  return hashlib.sha256('\n'.join(entries).encode(errors='surrogateescape')).hexdigest()[:16]


def begin(folder, about):
  """Writes records.json, or checks that the one there is of the same job. Raises UserError."""
  if not records.is_records(folder):
    write_text(folder / records.ABOUT, json.dumps(about, indent=1))
    return
  there = records.read_about(folder)
  differing = [name for name in about if json.loads(json.dumps(about[name])) != without_files(
      there.get(name))]
  if differing:
    raise UserError(f'{folder} was begun with another {" and ".join(differing)}: give what was '
                    'given then, or another --output')


def without_files(part):
  """A part of records.json without what is added to it once captions are embedded."""
  if not isinstance(part, dict):
    return part
  return {k: without_files(v) for k, v in part.items() if k != 'files'}
