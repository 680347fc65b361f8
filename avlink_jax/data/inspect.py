"""python -m avlink_jax.data.inspect SOURCE [--output=FOLDER] [--count=16] [--split=train] ...

Writes a page that shows what a model will be given: random examples of a source (frames, audio,
spectrogram, caption, span), and histograms of clips' lengths, rates, captions and loudness.
"""

import argparse
import collections
import html
import sys

import numpy as np

from avlink_jax import build as model_builder
from avlink_jax.cli import config_files
from avlink_jax.cli.arguments import Parser
from avlink_jax.data import batch as batches
from avlink_jax.data import pipeline
from avlink_jax.data.clip import samples_of
from avlink_jax.data.prepare import convert
from avlink_jax.data.sources.records import LATENTS
from avlink_jax.errors import MISTAKE, MediaError, UserError
from avlink_jax.samples.folder import make_folder, write_sample
from avlink_jax.samples.gallery import write_gallery

BARS = 24  # of a histogram
MOST_CLIPS = 256  # that are decoded for the histograms
HISTOGRAMS = (('duration', 'clip, s'), ('start', 'begins at, s of its source'),
         ('source_fps', 'source, frames a second'), ('source_rate', 'source, Hz'),
         ('caption', 'caption, characters'), ('loudness', 'loudness, dB of full scale'))


def parser():
  p = Parser(prog='python -m avlink_jax.data.inspect', description=__doc__,
             formatter_class=argparse.RawDescriptionHelpFormatter)
  p.add_argument('source', help='as data.source: a folder, a list, records, tfds:NAME, impacts, '
                                'or a mixture')
  p.add_argument('--output', default='inspected', help='folder of the page')
  p.add_argument('--count', type=int, default=16, help='examples to show')
  p.add_argument('--split', default='train')
  p.add_argument('--seed', type=int, default=0, help='of which ones')
  p.add_argument('--config', default='configs/v2a.py:nano', help='what the model is given')
  p.add_argument('--reads', default='audio,video', help='audio, video or audio,video')
  for flag, *_ in LATENTS.values():
    p.add_argument(f'--{flag}', default='', help='for records of latents: the codec that made them '
                                                 '(default: where records.json says it was)')
  return p


def inspect(argv=None):
  """Writes the page; returns its path. Raises UserError."""
  flags = parser().parse_args(argv)
  if flags.count < 1:
    raise UserError(f'--count={flags.count}: at least one example is shown')
  config, reads = config_files.load(flags.config), tuple(filter(None, flags.reads.split(',')))
  config.data.source = flags.source
  models = model_builder.build(config)
  layout = models.layout
  source = pipeline.open_source(config, layout, flags.split, reads)
  pipeline.tell(source)
  codecs = {name: latent_codec(getattr(flags, flag), source, name, layout)
            for name, (flag, *_) in LATENTS.items()}
  normalise = models.modalities['audio'].codec.normalise
  folder = make_folder(flags.output)
  rng = np.random.default_rng(flags.seed)
  order = rng.permutation(len(source)) if len(source) < 10 ** 7 else rng.integers(
      len(source), size=10 * MOST_CLIPS)
  clips, broken, written = [], [], 0
  for i in map(int, order[:max(MOST_CLIPS, flags.count)]):
    try:
      clip = source.load(i)
      clips.append(properties(clip))
      if written < flags.count:
        write_example(folder, clip, layout, reads, rng, codecs, normalise)
        written += 1
    except MediaError as error:
      broken.append((source.name(i), error.reason))
  if not clips:
    raise UserError(f'{flags.source}: none of {len(broken)} clips can be used: {broken[0][0]}: '
                    f'{broken[0][1]}')
  return write_gallery(folder, heading='As the model will see it',
                       overview=overview(flags, len(source), clips, broken))


def latent_codec(path, source, name, layout):
  """Codec that decodes a source's latents of a modality to media, None where it has none. Raises
  UserError where the codec that made them cannot be loaded."""
  parts = getattr(source, 'sources', [source])
  held = (pipeline.codec_of(part, name) for part in parts)
  codec_path = path or next((codec['given'] for codec in held if codec), '')
  if not codec_path:
    return None
  flag, medium, *_ = LATENTS[name]
  try:
    codec = convert.load_codec(codec_path, name, layout.fps)
  except UserError as error:
    raise UserError(f'{error}; its {medium} are latents: give their codec as --{flag}') from None
  pipeline.check_codec(source, codec.codec, codec.weights)
  return codec


def properties(clip) -> dict:
  """Properties of a clip for the overview; None where unknown."""
  caption = clip.audio_caption or clip.video_caption
  loudness = 20 * np.log10(np.sqrt(np.mean(clip.audio ** 2)) + 1e-5) if len(clip.audio) else None
  return {'duration': clip.duration, 'start': clip.start or None,
          'source_fps': clip.source_fps or None, 'source_rate': clip.source_rate or None,
          'caption': len(caption), 'loudness': loudness,
          'sound': len(clip.audio) > 0 or 'audio' in clip.latents,
          'picture': len(clip.frames) > 0 or 'video' in clip.latents, 'latents': bool(clip.latents),
          'licence': clip.licence}


def write_example(folder, clip, layout, reads, rng, codecs, normalise):
  """Writes one example as the model will see it, cropped at random as in training."""
  slack = clip.duration - layout.seconds
  start = rng.uniform(0, slack) if slack > 1 / layout.fps else 0.0
  length = min(layout.seconds, clip.duration - start)
  frames = audio = None
  if 'video' in reads and len(clip.frames):
    frames, real = batches.video(clip, start, layout)
    frames = frames[real]
  elif 'video' in reads and 'video' in clip.latents:
    frames = codecs['video'].decode(clip.latents['video'], length, layout)
  if 'audio' in reads and len(clip.audio):
    audio = normalise(clip.audio[samples_of(clip.sample_rate, start, length)])
  elif 'audio' in reads and 'audio' in clip.latents:
    audio = codecs['audio'].decode(clip.latents['audio'], length, layout)
  if frames is None and audio is None:
    return
  begin = clip.start + start
  span = f'{clip.source}, {begin:.2f} to {begin + length:.2f} s'
  prompt = ' / '.join(dict.fromkeys(filter(None, (clip.audio_caption, clip.video_caption))))
  write_sample(folder, clip.id, frames=frames, fps=layout.fps, audio=audio,
               sample_rate=layout.sample_rate,
               generated=('audio', 'video') if frames is not None else ('audio',),
               record=dict(source=span, prompt=prompt or None, events=None if clip.events is None
                           else clip.events[(clip.events >= start)] - start))


def overview(flags, size, clips, broken) -> str:
  """HTML of the counts, the histograms, and the clips that could not be read."""
  count = lambda name: sum(bool(clip[name]) for clip in clips)  # noqa: E731
  rows = [('clips in this split', size), ('looked at', len(clips) + len(broken)),
          ('unusable', len(broken)), ('with a picture', count('picture')),
          ('with sound', count('sound')), ('as latents', count('latents')),
          ('with a caption', count('caption'))]
  rows += [(f'licence {licence}', n) for licence, n in collections.Counter(
      clip['licence'] for clip in clips if clip['licence']).most_common(5)]
  rows += [(f'unusable: {reason}', n) for reason, n in collections.Counter(
      reason for _, reason in broken).most_common(8)]
  table = ''.join(f'<tr><th>{html.escape(str(name))}</th><td>{n:,}</td></tr>' for name, n in rows)
  plots = ''.join(histogram([clip[name] for clip in clips if clip[name] is not None], title)
                  for name, title in HISTOGRAMS)
  return (f'<h2>{html.escape(flags.source)}, {html.escape(flags.split)}</h2>'
          f'<div class="scores"><table>{table}</table></div>'
          f'<div style="display:flex;flex-wrap:wrap;gap:18px">{plots}</div>')


def histogram(values, title) -> str:
  """Histogram as SVG; '' without values, one bar where all are equal."""
  if not values:
    return ''
  counts, edges = np.histogram(values, bins=BARS if np.ptp(values) > 0 else 1)
  width, height, bar = 300, 90, 300 / len(counts)
  bars = ''.join(
      f'<rect x="{n * bar:.1f}" y="{height - height * c / counts.max():.1f}" '
      f'width="{bar - 1:.1f}" height="{height * c / counts.max():.1f}" fill="#9f2f7f">'
      f'<title>{edges[n]:.4g} to {edges[n + 1]:.4g}: {c}</title></rect>'
      for n, c in enumerate(counts))
  low, middle, high = np.min(values), np.median(values), np.max(values)
  return (f'<figure style="margin:8px 0"><svg width="{width}" height="{height}" role="img" '
          f'aria-label="{title}">{bars}</svg><figcaption><small>{title}: {low:.4g} to {high:.4g}, '
          f'half below {middle:.4g}</small></figcaption></figure>')


def main(argv=None):
  """Runs the command; exit status 0, or 2 for a user's mistake, reported in one line."""
  try:
    print(inspect(argv))
  except (UserError, MediaError) as error:
    print(f'avlink_jax: {error}', file=sys.stderr)
    return MISTAKE
  return 0


if __name__ == '__main__':
  sys.exit(main())
