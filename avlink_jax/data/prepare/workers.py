"""The processes that make shards of records.

They are spawned, so what they call must not stand in `__main__`, which they do not import.
"""

import argparse
import concurrent.futures
import functools
import multiprocessing
import os
import threading
from pathlib import Path

from avlink_jax.data.prepare.job import Job
from avlink_jax.data.sources import records, shards
from avlink_jax.errors import UserError
from avlink_jax.storage.console import Progress, say


def make_shard(job, split, shard, count, done) -> str:
  """Makes one shard, from where its journal ends; calls `done()` after every clip."""
  folder, name = Path(job.flags.output), records.shard_name(split, shard, count['shards'])
  if shards.is_finished(folder, name):
    return name
  source, converter = source_and_converter(tuple(vars(job.flags).items()), split)
  journal = shards.Journal(folder, name)
  try:
    for i in range(shard, count['clips'], count['shards']):
      if i in journal.done:
        continue
      if journal.begin(i):
        journal.put(i, *converter(source, i))
      else:
        journal.put(i, [], {'ids': [], 'captions': [], 'seconds': 0.0, 'left': 0.0,
                            'skipped': [(source.name(i), shards.DEADLY)], 'silent': 0})
      done()
    journal.finish()
  finally:
    journal.close()
  return name


@functools.lru_cache(maxsize=1)
def source_and_converter(flags, split):
  """Source and converter of a split, cached for the next shard."""
  job = Job(argparse.Namespace(**dict(flags)))
  return job.source(split), job.converter(split)


_counter = None  # of clips done, shared by the processes


def _init_worker(counter):
  global _counter
  _counter = counter
  if parent := multiprocessing.parent_process():
    # However the command ends, its processes end too: they hold their shards' journals.
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _work(job, split, shard, count):
  def done():
    with _counter.get_lock():
      _counter.value += 1
  return make_shard(job, split, shard, count, done)


def make_shards(job, about):
  """Makes all shards of this host that are not there yet, in several processes."""
  g, work = job.flags, []
  for split in about['clips']:
    count = {'clips': about['clips'][split], 'shards': about['shards'][split]}
    work += [(split, shard, count) for shard in range(count['shards'])]
  own = [each for n, each in enumerate(work) if n % g.hosts == g.host]
  unfinished = [each for each in own if not shards.is_finished(
      g.output, records.shard_name(each[0], each[1], each[2]['shards']))]
  clips = sum(len(range(shard, count['clips'], count['shards'])) for _, shard, count in unfinished)
  if len(unfinished) < len(own):
    say(f'prepare: {len(own) - len(unfinished)} of {len(own)} shards are there already: kept')
  progress = Progress('prepare:', clips)
  context = multiprocessing.get_context('spawn')  # JAX does not survive a fork
  _init_worker(context.Value('q', 0))
  if g.processes == 1:
    def done():
      _counter.value += 1
      progress.at(_counter.value)
    for each in unfinished:
      make_shard(job, *each, done)
    return progress.at(_counter.value, last=True)
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # many processes do not fit on one accelerator
  with concurrent.futures.ProcessPoolExecutor(
      min(g.processes, max(1, len(unfinished))), context, _init_worker, (_counter,)) as pool:
    futures = [pool.submit(_work, job, *each) for each in unfinished]
    try:
      while not all(future.done() for future in futures):
        failed = concurrent.futures.wait(futures, 1.0, concurrent.futures.FIRST_EXCEPTION).done
        for future in failed:
          future.result()
        progress.at(_counter.value)
      for future in futures:
        future.result()
    except concurrent.futures.process.BrokenProcessPool:
      raise UserError('a process was killed, perhaps for want of memory: run the same command '
                      'again, with fewer --processes; what is done is kept') from None
    finally:
      pool.shutdown(cancel_futures=True)
  progress.at(_counter.value, last=True)
