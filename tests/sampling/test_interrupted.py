"""Sampling and evaluation that are interrupted go on: what is whole is kept, nothing is half."""

import functools
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import runs
from micro import build, micro_config
from runs import config_of, finished, manifest, parts
from timed_clips import TIMES, clicks, write_sounds

from avlink_jax.data.clip import Clip
from avlink_jax.errors import UserError
from avlink_jax.evaluate import evaluate
from avlink_jax.evaluation import journal as observed
from avlink_jax.evaluation import pairs as clips_on_disk
from avlink_jax.sample import sample
from avlink_jax.samples.folder import complete, read_manifest, write_sample
from avlink_jax.sampling import export, resume
from avlink_jax.sampling.reconstruction import Reconstruction
from avlink_jax.sampling.sampler import Sampler
from avlink_jax.storage import atomic
from avlink_jax.tasks import frozen as frozen_parts

BLACK = np.zeros((6, 36, 64, 3), np.uint8)


# -- files

def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path):
  path = tmp_path / 'file'
  writes = ('import sys\nfrom avlink_jax.storage.atomic import write_bytes\nprint(flush=True)\n'
            'while True:\n  for c in b"ab":\n'
            '    write_bytes(sys.argv[1], bytes([c]) * 3_000_000)\n')
  for turn in range(4):
    writer = subprocess.Popen([sys.executable, '-c', writes, str(path)], stdout=subprocess.PIPE)
    writer.stdout.readline()
    time.sleep(0.2 + 0.0137 * turn)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    content = path.read_bytes()
    assert len(content) == 3_000_000 and set(content) in ({ord('a')}, {ord('b')})
  atomic.sweep(tmp_path)
  assert list(tmp_path.iterdir()) == [path]


def test_a_body_that_fails_leaves_no_file(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    with atomic.replacing(tmp_path / 'file') as temporary:
      temporary.write_text('half')
      raise KeyboardInterrupt
  assert not list(tmp_path.iterdir())
  (tmp_path / 'taken').write_text('')
  with pytest.raises(UserError, match='cannot be written'):
    atomic.write_text(tmp_path / 'taken' / 'file', '')


def test_a_sample_made_anew_is_never_half_the_old_one(tmp_path, monkeypatch):
  """Killed between its sound and its picture: the old picture is gone, and its row says nothing."""
  made = functools.partial(write_sample, tmp_path, 'one', frames=BLACK, fps=6, sample_rate=16000)
  made(audio=np.zeros(16000, np.float32))
  made(frames=BLACK, audio=np.zeros(16000, np.float32))
  assert complete(tmp_path).keys() == {'one'}

  def killed(*args, **options):
    raise KeyboardInterrupt

  monkeypatch.setattr('avlink_jax.data.media.mux.write_mp4', killed)
  with pytest.raises(KeyboardInterrupt):
    made(audio=np.ones(16000, np.float32))
  assert complete(tmp_path) == {} and not (tmp_path / 'one.mp4').exists()
  assert [row['files'] for row in read_manifest(tmp_path)] == [{}]


# -- sampling

@pytest.fixture(scope='module')
def run(tmp_path_factory):
  root = tmp_path_factory.mktemp('run')
  config = config_of('t2v', parts(root))
  config.sample.batch_size = 1  # a batch a clip: interrupted or not, they are the same
  return config, finished(config, root / 't2v')


@pytest.fixture
def counted(monkeypatch):
  """Ids of the clips that were really made, in order."""
  made = []
  for kind in (Sampler, Reconstruction):
    call = kind.__call__

    def counting(self, trained, clips, *rest, call=call):
      made.extend(clip.id for clip in clips)
      return call(self, trained, clips, *rest)

    monkeypatch.setattr(kind, '__call__', counting)
  return made


def interrupted_after(monkeypatch, count):
  """Interrupts sampling when `count` clips are written."""
  left = [count]

  def writing(*args, **kwargs):
    if not left[0]:
      raise KeyboardInterrupt
    left[0] -= 1
    return write_sample(*args, **kwargs)

  monkeypatch.setattr(export, 'write_sample', writing)


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with runs.quickly_compiled():
    yield


def test_interrupted_sampling_goes_on_and_ends_as_if_left_alone(
    run, tmp_path, counted, monkeypatch, capsys):
  config, workdir = run
  (tmp_path / 'said.txt').write_text('a ball\nrain\ntin\n')
  start = functools.partial(sample, config, workdir, prompt=str(tmp_path / 'said.txt'), seed=3)
  with monkeypatch.context() as patch:
    interrupted_after(patch, 2)
    with pytest.raises(KeyboardInterrupt):
      start(output=tmp_path / 'out')
  assert manifest(tmp_path / 'out').keys() == {'000_a_ball', '001_rain'}
  (tmp_path / 'out' / '.left.part').write_text('by a kill')
  kept = {path: path.stat().st_mtime_ns for path in (tmp_path / 'out').glob('*.mp4')}
  counted.clear()
  ids = start(output=tmp_path / 'out')
  assert counted == ['002_tin'] and ids == ['000_a_ball', '001_rain', '002_tin']
  assert '2 of 3 clips are in' in capsys.readouterr().err
  assert {path: path.stat().st_mtime_ns for path in kept} == kept
  assert not [path for path in (tmp_path / 'out').iterdir() if path.name.startswith('.')]

  start(output=tmp_path / 'alone')
  for name, row in manifest(tmp_path / 'alone').items():
    assert manifest(tmp_path / 'out')[name] == row
    assert (tmp_path / 'out' / f'{name}.mp4').read_bytes() == (
        tmp_path / 'alone' / f'{name}.mp4').read_bytes()

  # All there: nothing to do. One lost: that one. Another seed, another prompt: those anew.
  counted.clear()
  start(output=tmp_path / 'out')
  assert counted == []
  (tmp_path / 'out' / '001_rain.mp4').unlink()
  start(output=tmp_path / 'out')
  assert counted == ['001_rain']
  counted.clear()
  (tmp_path / 'said.txt').write_text('a ball\nRain\ntin\n')
  start(output=tmp_path / 'out')
  assert counted == ['001_rain'] and manifest(tmp_path / 'out')['001_rain']['prompt'] == 'Rain'
  counted.clear()
  start(output=tmp_path / 'out', seed=4)
  assert counted == ids and {row['seed'] for row in manifest(tmp_path / 'out').values()} == {4}


def test_a_data_sets_clips_are_kept_with_their_references(run, tmp_path, counted):
  config, workdir = run
  ids = sample(config, workdir, output=tmp_path / 'out')
  assert counted == ids and complete(tmp_path / 'out' / 'reference').keys() == set(ids)
  counted.clear()
  sample(config, workdir, output=tmp_path / 'out')
  assert counted == []
  next((tmp_path / 'out' / 'reference').glob('*.mp4')).unlink()
  sample(config, workdir, output=tmp_path / 'out')
  assert len(counted) == 1


def test_another_checkpoint_makes_samples_anew_and_a_copy_of_the_same_does_not(
    run, tmp_path, counted):
  config, workdir = run
  shutil.copytree(workdir, tmp_path / 'run')
  start = functools.partial(sample, config, prompt='a ball', output=tmp_path / 'out')
  start(workdir)
  start(tmp_path / 'run')
  assert len(counted) == 1
  finished(config, tmp_path / 'run', step=2)
  start(tmp_path / 'run')
  assert len(counted) == 2


def test_a_frozen_part_is_told_by_what_its_file_holds(tmp_path):
  for name, content in (('a', b'1'), ('b', b'1'), ('c', b'2')):
    (tmp_path / f'{name}.safetensors').write_bytes(content)
  one, copied, other = (frozen_parts.digests(micro_config('v2a', **{
      'frozen.audio': str(tmp_path / f'{name}.safetensors')}), ('audio',)) for name in 'abc')
  assert one == copied != other
  (tmp_path / 'frozen').mkdir()
  shutil.copy(tmp_path / 'c.safetensors', tmp_path / 'frozen' / 'audio.safetensors')
  config = micro_config('v2a', **{'frozen.audio': str(tmp_path / 'a.safetensors')})
  assert frozen_parts.digests(config, ('audio',), tmp_path) == other  # a run's own copy counts


CLIP = Clip('one', 1.0, BLACK, np.arange(6) / 6, np.zeros(16000, np.float32), 16000)
SAID = {'audio': 'a ball', 'video': 'a ball'}


def mark(clip=CLIP, said=SAID, seed=0, weights=('step 1', {'audio': 'a3'}), own=True, **changes):
  """What says of a sample what it is made of; `weights` are the names of those."""
  task = build(micro_config('v2a', **changes))[1]
  run = resume.of_run(task, weights, seed)
  return resume.of_sample(run, task, clip, said, own)


@pytest.mark.parametrize('changes', [
    {'sample.steps': 65}, {'sample.guidance': 5.1}, {'sample.shift.audio': 0.5},
    {'sample.refresh': 2}, {'sample.solver': 'heun'}, {'sample.guidance_to': 0.5},
    {'sample.vocoder': 'griffin_lim'}, {'sample.vocoder_rounds': 3}, {'sample.overlap': 0.5},
    {'flow.condition_time.video': 0.9}, {'fusion.nearness': 1.0}, {'data.seconds': 2.0},
    {'seed': 1}, {'own': False},
    {'weights': ('step 2', {'audio': 'a3'})}, {'weights': ('step 1', {'audio': 'a4'})},
    {'said': {**SAID, 'video': 'a Ball'}}, {'clip': 'pictures'}, {'clip': 'sound'}])
def test_what_a_sample_is_made_of_changes_its_mark(changes):
  of_mark = ('seed', 'weights', 'own', 'said')
  arguments = {name: changes.pop(name) for name in of_mark if name in changes}
  if 'clip' in changes:
    changed = {'pictures': {'frames': BLACK + 1}, 'sound': {'audio': CLIP.audio + 1e-7}}
    arguments['clip'] = Clip(**{**vars(CLIP), **changed[changes.pop('clip')]})
  assert mark(**arguments, **changes) != mark()


def test_what_changes_nothing_in_a_sample_leaves_its_mark():
  indifferent = {'sample.count': 3, 'sample.batch_size': 3, 'train.steps': 7, 'data.threads': 9,
                 'train.learning_rate': 1.0, 'data.cache_bytes': 5, 'checkpoint.keep': 1}
  assert mark(**indifferent) == mark()


# -- evaluation

@pytest.fixture
def folders(tmp_path):
  theirs = write_sounds(tmp_path / 'r', {name: clicks(times) for name, times in TIMES.items()},
                        [{'id': name, 'events': times} for name, times in TIMES.items()])
  ours = write_sounds(tmp_path / 'g', {name: clicks(times, late=0.05)
                                       for name, times in TIMES.items()})
  for folder in (ours, theirs):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 255, (18, 36, 64, 3), np.uint8)
    write_sample(folder / 'clips', 'a', frames=frames, fps=6)
    (folder / 'clips' / 'a.mp4').rename(folder / 'a.mp4')
  return str(ours), str(theirs)


@pytest.fixture
def observations(monkeypatch):
  """Names of the pairs that were really decoded, and after how many comes an interruption."""
  seen, stop, observe = [], [None], clips_on_disk._measure

  def observing(stem, *rest):
    if len(seen) == stop[0]:
      raise KeyboardInterrupt
    seen.append(stem)
    return observe(stem, *rest)

  monkeypatch.setattr(clips_on_disk, '_measure', observing)
  monkeypatch.setattr(clips_on_disk, 'WORKERS', 1)
  return seen, stop


def test_interrupted_evaluation_goes_on_and_scores_as_if_left_alone(
    folders, tmp_path, observations, capsys):
  seen, stop = observations
  alone = evaluate(*folders, str(tmp_path / 'alone.json'))
  seen.clear()
  output, journal = tmp_path / 'scores.json', tmp_path / 'scores.json.observed.jsonl'
  stop[0] = 2
  with pytest.raises(KeyboardInterrupt):
    evaluate(*folders, str(output))
  assert not output.exists() and journal.exists()
  with journal.open('a') as file:
    file.write('\n{"key": "torn')
  stop[0] = None
  seen.clear()
  assert evaluate(*folders, str(output)) == alone
  assert seen == ['c', 'd'] and '2/4 clips are known' in capsys.readouterr().err
  assert output.read_bytes() == (tmp_path / 'alone.json').read_bytes() and not journal.exists()


def test_a_clip_that_changed_meanwhile_is_looked_at_again(folders, tmp_path, observations):
  seen, stop = observations
  stop[0] = 2
  with pytest.raises(KeyboardInterrupt):
    evaluate(*folders, str(tmp_path / 'scores.json'))
  stop[0] = None
  seen.clear()
  write_sounds(tmp_path / 'g', {'b': clicks([0.1, 2.0, 2.9])})
  changed = evaluate(*folders, str(tmp_path / 'scores.json'))
  assert seen == ['b', 'c', 'd'] and changed == evaluate(*folders)


def test_without_an_output_nothing_is_left_behind(folders, tmp_path, observations):
  before = sorted(tmp_path.rglob('*'))
  evaluate(*folders)
  assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize('found', ['7', '{}', '{"id": "a"}', '[]', 'null', '"x"', '[[[', '{"id"'])
def test_a_journal_of_nonsense_counts_as_none(folders, tmp_path, found):
  pair = ('a', clips_on_disk.find(folders[0], '')['a'], clips_on_disk.find(folders[1], '')['a'],
          np.array([0.5]))
  (tmp_path / 's.json.observed.jsonl').write_text(
      f'{{"key": {json.dumps(observed._key(pair))}, "found": {found}}}\n\0\n[]\n{{}}\n')
  journal = observed.Journal(str(tmp_path / 's.json'))
  assert journal.get(pair) is None
