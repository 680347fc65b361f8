"""Reading prepared records: batches a second against what training at paper scale asks for, and
whether memory stays as it is.

    python -m tests.benchmarks.reading [--examples=512] [--batches=10000]

The records are made up, at the paper's sizes: 31 pictures of 36 × 64, 129 latents of 64 channels,
captions of 24 T5 tokens of 1024 numbers, padded to 128. What training asks for is computed, not
measured: floating-point operations of an example over what a chip does.
"""

import argparse
import json
import pathlib
import resource
import tempfile
import time

import numpy as np
from ml_collections import ConfigDict

from avlink_jax.codecs import codec as codecs
from avlink_jax.codecs import pretrained_text
from avlink_jax.data import pipeline
from avlink_jax.data.batch import Layout
from avlink_jax.data.clip import Clip
from avlink_jax.data.prepare import embeddings
from avlink_jax.data.sources import records
from configs import v2a

# DESIGN's count of one V2A pass, TFLOP: 64 of them are 3750. A training step goes forward, back
# through activations (frozen weights have no gradient) and, with remat, forward again; the Fusion
# Blocks' own weights take one share more, 8 × 1.8.
FUSION_TFLOP = 3 * 3750 / 64 + 8 * 1.8
AUDIO_TFLOP = 8 * 576e6 * 129 / 1e12  # a base audio example: 8 a parameter and token, with remat
CHIP_TFLOPS, MFU = 459, 0.45  # v5p in bf16, and the share of it that is hoped for
RUNS = {'V2A, batch 256': (256, FUSION_TFLOP, ('audio', 'video')),
        'base audio, batch 1024': (1024, AUDIO_TFLOP, ('audio',))}
TOKENS, WIDTH, SAID = 128, 1024, 24


class Encoder:
  """Stands in for T5: noise of the right size."""

  def rows(self, captions):
    rng = np.random.default_rng(len(captions))
    return {text: rng.standard_normal((SAID, WIDTH)).astype(np.float16) for text in captions}


def make(folder, count, layout, latents, tokens=True):
  """A folder of `count` made-up records; pictures that compress about as real ones do."""
  rng, captions = np.random.default_rng(0), [f'caption {i}' for i in range(count)]

  def blobs():
    for i, text in enumerate(captions):
      small = rng.integers(0, 255, (layout.frames, 9, 16, 3)).astype(np.uint8)
      frames = small.repeat(4, 1).repeat(4, 2)[:, :layout.height, :layout.width]
      frames = frames + rng.integers(0, 24, frames.shape).astype(np.uint8)  # 4.6 bits of a byte
      z = None if latents is None else rng.standard_normal(latents).astype(np.float32)
      wave = rng.standard_normal(layout.samples if z is None else 0).astype(np.float32)
      yield records.of_clip(Clip(
          f'c{i}', layout.seconds, frames, np.zeros(0), wave, 16_000, text, text,
          latents={} if z is None else {'audio': z}))

  path = folder / 'train-00000-of-00001.array_record'
  records.write_shard(path, blobs())
  files = embeddings.captions_by_file(captions)
  for n, part in enumerate(files if tokens else ()):
    embeddings.write(folder, n, len(files), part, Encoder())
  (folder / records.ABOUT).write_text(json.dumps({
      'version': records.VERSION, 'layout': records.layout_of(layout), 'audio': True,
      'video': True, 'high': None, 'codec': latents and {'rate': 25.0, 'fingerprint': ''},
      'text': tokens and {'files': len(files), 'fingerprint': '', 'max_tokens': TOKENS,
                          'width': WIDTH},
      'counts': {'train': {path.stem: {'clips': count, 'records': count,
                                       'bytes': path.stat().st_size}}}}))
  return path.stat().st_size / count


def readers(reads):
  """The paper's codecs of those modalities."""
  config = v2a.get_config('paper')
  return [codecs.make(config.towers[name].codec, name, config, codecs.Context(np.float32))
          for name in reads]


def batches(folder, layout, reads, size, last, prepare, threads=1):
  """Batches of a folder with no example kept in memory."""
  data = ConfigDict(dict(cache_bytes=0, min_seconds=0.5, max_broken=0.5, drop_silent=False))
  source = pipeline.Records(folder, 'train', layout, reads)
  return pipeline.train_batches(
      pipeline.make_examples(source, layout, readers(reads), data),
      dict.fromkeys(('audio', 'video'), prepare), seed=0, batch_size=size,
      first_step=0, last_step=last, threads=threads)


def text_of(folder):
  """A text encoder to which every caption is known."""
  table = embeddings.Embeddings(folder, records.read_about(folder)['text'])
  return pretrained_text.Pretrained('', WIDTH, TOKENS, prepared=table)


def speed(folder, layout, reads, size=32, seconds=15):
  """Examples a second of the processor, all threads together."""
  every = batches(folder, layout, reads, size, 10 ** 6, text_of(folder).prepare)
  next(every)
  began, until, count = time.process_time(), time.monotonic() + seconds, 0
  while time.monotonic() < until:
    next(every)
    count += size
  return count / (time.process_time() - began)


def resident():
  """MiB of this process that lie in memory."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * resource.getpagesize() / 2 ** 20


def memory(folder, layout, steps):
  """Prints resident memory while so many batches are read."""
  seen = []
  for step, _ in enumerate(batches(folder, layout, ('audio', 'video'), 4, steps,
                                   lambda said: np.zeros(len(said)), threads=2)):
    if step % max(1, steps // 10) == 0:
      seen.append(resident())
  seen.append(resident())
  print(f'memory over {steps} batches of 4, MiB: ' + ' '.join(f'{mib:.0f}' for mib in seen)
        + f'; highest {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}')


if __name__ == '__main__':
  parser = argparse.ArgumentParser()
  parser.add_argument('--examples', type=int, default=512)
  parser.add_argument('--batches', type=int, default=10_000)
  given = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    folder, layout = pathlib.Path(folder), Layout(5.16, 6.0, 36, 64)
    size = make(folder, given.examples, layout, (129, 64))
    print(f'{given.examples} records of {size / 1024:.0f} KiB')
    print(f'assumed: {CHIP_TFLOPS} TFLOP/s a chip (v5p, bf16) of which {MFU:.0%} are used; an '
          f'example takes {FUSION_TFLOP:.0f} TFLOP (V2A), {AUDIO_TFLOP:.2f} (base audio)')
    for run, (batch, tflop, reads) in RUNS.items():
      rate = speed(folder, layout, reads)
      print(f'{run}: {rate:.0f} examples, {rate / batch:.2f} batches a second of a core')
      for chips in (16, 256):
        need = chips * CHIP_TFLOPS * MFU / tflop
        print(f'  {chips} chips: {batch / need:.3f} s a step, {need:.0f} examples a second: '
              f'{need / rate:.2f} cores of all hosts together')
  with tempfile.TemporaryDirectory() as folder:
    folder, layout = pathlib.Path(folder), Layout(1.0, 6.0, 8, 16)
    make(folder, 64, layout, None, tokens=False)
    memory(folder, layout, given.batches)
