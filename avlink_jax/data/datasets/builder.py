"""Builds array_record shards from a data set's rows and the user's files.

tfds' own writer for generators keeps a gigabyte and then sorts through TensorFlow's file system;
its writer for shards needs neither. Rows keep the order of their list, and readers shuffle.
"""

import abc
import dataclasses
import itertools
import json
import os
import pathlib

import tensorflow_datasets as tfds

from avlink_jax.data.datasets import schema
from avlink_jax.data.datasets.check import Candidate, Needs, examiner
from avlink_jax.data.datasets.files import Files
from avlink_jax.data.datasets.report import Report
from avlink_jax.data.datasets.rows import Malformed
from avlink_jax.data.sources.captions import LONGEST_CAPTION
from avlink_jax.errors import UserError
from avlink_jax.storage.console import Progress

SHARD_BYTES = 128 << 20  # of media; tfds keeps one shard's in memory while it is written


@dataclasses.dataclass(frozen=True)
class Options:
  """Settings of a build.

  Attributes:
    caption: template of captions made of labels, with {label}; '' is the data set's own.
    min_seconds: shorter clips are left out.
    check: whether each clip's audio is decoded (which detects silence, damage and the true length)
      or only its header read.
    processes: that check files; 0 for this one.
  """
  caption: str = ''
  min_seconds: float = 1.0
  check: bool = True
  processes: int = 0


class MediaDataset(tfds.core.ShardBasedBuilder, skip_registration=True):
  """Base of all data sets. Each defines its `rows`, its TEMPLATE and whether it NEEDS_VIDEO.

  Raises UserError while building: lists or media are missing, or nothing can be used.
  """
  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First.'}
  NEEDS_VIDEO, NEEDS_AUDIO = False, True
  TEMPLATE = '{label}'  # of captions, where the data set has labels alone
  HOMEPAGE = ''
  # Where tfds looks for checksums of downloads: there are none (and its own search for the place
  # needs importlib_resources, which it installs on old Pythons only).
  code_path = None

  def __init__(self, *, options: Options = Options(), **kwargs):  # noqa: B008 (it is frozen)
    kwargs.setdefault('file_format', 'array_record')
    super().__init__(**kwargs)
    self.options = options
    self.report = None

  @abc.abstractmethod
  def rows(self, folder: pathlib.Path):
    """Yields the Row (or Malformed) of each line of the official lists in `folder`.

    Raises UserError: a list is not there, or has other columns.
    """

  def caption(self, labels) -> str:
    """Caption made of labels, for a clip without one; '' without labels."""
    template = self.options.caption or self.TEMPLATE
    return template.replace('{label}', ', '.join(labels)) if labels else ''

  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=schema.features(),
                                 description=type(self).__doc__, homepage=self.HOMEPAGE)

  def _shard_iterators_per_split(self, dl_manager):
    folder = _manual_dir(dl_manager)
    files = Files(folder, self.NEEDS_VIDEO)
    self.report = Report(self.data_path)
    self._examiner = examiner(self.options.processes)
    plan = self._plan(folder, files)
    self._progress = Progress('checked', sum(map(len, itertools.chain(*plan.values()))), 'files')
    return {split: [lambda shard=shard: self._examples(shard) for shard in shards]
            for split, shards in plan.items()}

  def _plan(self, folder, files) -> dict:
    """Rows that have a file, in shards by the files' sizes: {split: [[(Row, Candidate)]]}."""
    needs = Needs(self.NEEDS_VIDEO, self.NEEDS_AUDIO, self.options.min_seconds, self.options.check)
    plan, filled, seen = {}, {}, set()
    for row in self.rows(folder):
      split = '' if isinstance(row, Malformed) else row.split
      self.report.listed[split or 'unknown'] += 1
      if isinstance(row, Malformed):
        self.report.leave_out(row.id, '', 'malformed', row.reason)
        continue
      if row.id in seen:
        self.report.leave_out(row.id, split, 'duplicate', 'the first row of this id is used')
        continue
      seen.add(row.id)
      cut = files.find(row.cut)
      path = cut or files.find(row.whole)
      if path is None:
        self.report.leave_out(row.id, split, 'missing', f'looked for {(row.cut + row.whole)[0]}.*')
        continue
      shards = plan.setdefault(split, [[]])
      size = os.path.getsize(path)
      if shards[-1] and filled[split] + size > SHARD_BYTES:
        shards.append([])
      filled[split] = size + (filled[split] if shards[-1] else 0)
      shards[-1].append((row, Candidate(path, cut is not None, row.start, row.end, needs)))
    if not plan:
      raise UserError(f'{folder}: none of its media files belongs to a row of the list '
                      f'({self.report})')
    return plan

  def _examples(self, shard):
    """Yields (key, example) of the rows of a shard that can be used."""
    verdicts = self._examiner([candidate for _, candidate in shard])
    for (row, candidate), verdict in zip(shard, verdicts, strict=True):
      self._progress.add()
      if verdict.kind:
        self.report.leave_out(row.id, row.split, verdict.kind, verdict.reason, candidate.path)
        continue
      self.report.built[row.split] += 1
      path = pathlib.Path(candidate.path)
      captions = row.audio_caption, row.video_caption
      if max(map(len, captions)) > LONGEST_CAPTION:
        self.report.shortened.append(row.id)
      audio_caption, video_caption = (caption[:LONGEST_CAPTION] for caption in captions)
      yield row.id, {
        'id': row.id, 'media': path.read_bytes(), 'suffix': path.suffix.lower(),
        'start': verdict.start, 'end': verdict.end, 'audio_caption': audio_caption,
        'video_caption': video_caption, 'labels': list(row.labels), 'licence': row.licence,
        'metadata': json.dumps(row.metadata, ensure_ascii=False)}

  def _download_and_prepare(self, dl_manager, download_config=None):
    """Builds into a folder that takes its final name when complete, with the report in it."""
    try:
      super()._download_and_prepare(dl_manager, download_config)
      if not sum(self.report.built.values()):
        raise UserError(f'{_manual_dir(dl_manager)}: nothing could be built ({self.report})')
    except RuntimeError as error:
      if 'write() failed: ' not in str(error):  # ArrayRecord's words, which has no error of its own
        raise
      reason = str(error).partition('write() failed: ')[2].partition(';')[0]
      raise UserError(f'{self.data_path.parent}: cannot be written ({reason})') from None
    finally:
      if self.report is not None:
        self._examiner.close()
        self.report.close(dataset=self.info.full_name, options=dataclasses.asdict(self.options))


def _manual_dir(dl_manager) -> pathlib.Path:
  try:
    return pathlib.Path(dl_manager.manual_dir)
  except AssertionError as error:  # tfds': missing or empty; its first line says which
    raise UserError(str(error).splitlines()[0]) from None
