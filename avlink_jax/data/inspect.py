"""python -m avlink_jax.data.inspect SOURCE [--output=FOLDER] [--count=16] [--split=train] ...

A page to look at what a model will be given: some examples of a source at random (pictures, sound,
its spectrogram, caption, span) and, of as many clips as are looked at, how long they are, at what
rates they came and how long their captions are.
"""

import argparse
import collections
import html
import sys

import numpy as np

from avlink_jax import build as model_builder
from avlink_jax.cli import config_files
from avlink_jax.codecs.griffin_lim import griffin_lim
from avlink_jax.codecs.mel import normalise
from avlink_jax.data import batch as batches
from avlink_jax.data import pipeline
from avlink_jax.data.prepare import convert
from avlink_jax.errors import MISTAKE, MediaError, UserError
from avlink_jax.samples.folder import make_folder, write_sample
from avlink_jax.samples.gallery import write_gallery
from avlink_jax.storage.atomic import write_text

PAGE = 'index.html'
BARS = 24  # of a plot
LOOKED_AT = 256  # clips, at most, for the plots: each is decoded
PLOTS = (('duration', 'clip, s'), ('start', 'begins at, s of its source'),
         ('source_fps', 'source, frames a second'), ('source_rate', 'source, Hz'),
         ('caption', 'caption, characters'), ('loudness', 'loudness, dB of full scale'))


def parser():
  p = argparse.ArgumentParser(prog='python -m avlink_jax.data.inspect', description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
  p.add_argument('source', help='as data.source: a folder, a list, records, tfds:NAME, impacts, '
                                'or a mixture')
  p.add_argument('--output', default='inspected', help='folder of the page')
  p.add_argument('--count', type=int, default=16, help='examples to show')
  p.add_argument('--split', default='train')
  p.add_argument('--seed', type=int, default=0, help='of which ones')
  p.add_argument('--config', default='configs/v2a.py:nano', help='what the model is given')
  p.add_argument('--reads', default='audio,video', help='audio, video or audio,video')
  p.add_argument('--codec', default='', help='for records of latents: the codec that made them '
                                             '(default: where records.json says it was)')
  return p


def inspect(argv=None):
  """Writes the page; returns its path."""
  given = parser().parse_args(argv)
  if given.count < 1:
    raise UserError(f'--count={given.count}: at least one example is shown')
  config, reads = config_files.load(given.config), tuple(filter(None, given.reads.split(',')))
  config.data.source = given.source
  layout = model_builder.build(config).layout
  source = pipeline.open_source(config, layout, given.split, reads)
  codec = codec_to_hear(given.codec, source, layout)
  folder = make_folder(given.output)
  rng = np.random.default_rng(given.seed)
  order = rng.permutation(len(source)) if len(source) < 10 ** 7 else rng.integers(
      len(source), size=10 * LOOKED_AT)
  facts, broken, shown = [], [], 0
  for i in map(int, order[:max(LOOKED_AT, given.count)]):
    try:
      clip = source.load(i)
      facts.append(facts_of(clip))
      if shown < given.count:
        show(folder, clip, layout, reads, rng, codec)
        shown += 1
    except MediaError as error:
      broken.append((source.name(i), error.reason))
  if not facts:
    raise UserError(f'{given.source}: none of {len(broken)} clips can be used: {broken[0][0]}: '
                    f'{broken[0][1]}')
  write_gallery(folder, heading='As the model will see it')
  page = folder / PAGE
  write_text(page, page.read_text(encoding='utf-8').replace(
      '<main>', overview(given, len(source), facts, broken) + '<main>', 1))
  return page


def codec_to_hear(given, source, layout):
  """The codec that turns a source's latents back into sound, None where it has none. Raises
  UserError where the codec that made them is not to be found."""
  parts = getattr(source, 'sources', [source])
  made = given or next((told['given'] for told in map(pipeline.codec_of, parts) if told), '')
  if not made:
    return None
  try:
    codec = convert.load_codec(made, layout)
  except UserError as error:
    raise UserError(f'{error}; its sound is latents: give their codec as --codec') from None
  pipeline.check_codec(source, codec.model, codec.tree)
  return codec


def facts_of(clip) -> dict:
  """The numbers of a clip that are plotted; None where they are unknown."""
  caption = clip.audio_caption or clip.video_caption
  loudness = 20 * np.log10(np.sqrt(np.mean(clip.audio ** 2)) + 1e-5) if len(clip.audio) else None
  return {'duration': clip.duration, 'start': clip.start or None,
          'source_fps': clip.source_fps or None, 'source_rate': clip.source_rate or None,
          'caption': len(caption), 'loudness': loudness,
          'sound': len(clip.audio) > 0 or clip.latents is not None,
          'picture': len(clip.frames) > 0, 'latents': clip.latents is not None,
          'licence': clip.licence}


def show(folder, clip, layout, reads, rng, codec):
  """One example as the model will see it, cut at random as in training."""
  slack = clip.duration - layout.seconds
  start = rng.uniform(0, slack) if slack > 1 / layout.fps else 0.0
  length = min(layout.seconds, clip.duration - start)
  frames = audio = None
  if 'video' in reads and len(clip.frames):
    frames, real = batches.picture(clip, start, layout)
    frames = frames[real]
  if 'audio' in reads and len(clip.audio):
    first = round(start * clip.sample_rate)
    audio = normalise(clip.audio[first:first + round(length * clip.sample_rate)])
  elif 'audio' in reads and clip.latents is not None and codec is not None:
    mel = np.asarray(codec.model.decode(codec.tree['params'], codec.tree['std'],
                                        clip.latents[None]))[0]
    audio = griffin_lim(mel, spec=layout.mel)[:round(length * layout.mel.sample_rate)]
  if frames is None and audio is None:
    return
  begin = clip.start + start
  told = f'{clip.source}, {begin:.2f} to {begin + length:.2f} s'
  prompt = ' / '.join(dict.fromkeys(filter(None, (clip.audio_caption, clip.video_caption))))
  write_sample(folder, clip.id, frames=frames, fps=layout.fps, audio=audio,
               sample_rate=layout.mel.sample_rate, made=('audio', 'video') if frames is not None
               else ('audio',),
               record=dict(source=told, prompt=prompt or None, events=None if clip.events is None
                           else clip.events[(clip.events >= start)] - start))


def overview(given, size, facts, broken) -> str:
  """HTML of the counts, the plots, and what could not be read."""
  count = lambda name: sum(bool(fact[name]) for fact in facts)  # noqa: E731
  rows = [('clips in this split', size), ('looked at', len(facts) + len(broken)),
          ('unusable', len(broken)), ('with a picture', count('picture')),
          ('with sound', count('sound')), ('as latents', count('latents')),
          ('with a caption', count('caption'))]
  rows += [(f'licence {licence}', n) for licence, n in collections.Counter(
      fact['licence'] for fact in facts if fact['licence']).most_common(5)]
  rows += [(f'unusable: {reason}', n) for reason, n in collections.Counter(
      reason for _, reason in broken).most_common(8)]
  table = ''.join(f'<tr><th>{html.escape(str(name))}</th><td>{n:,}</td></tr>' for name, n in rows)
  plots = ''.join(plot([fact[name] for fact in facts if fact[name] is not None], title)
                  for name, title in PLOTS)
  return (f'<h2>{html.escape(given.source)}, {html.escape(given.split)}</h2>'
          f'<div class="scores"><table>{table}</table></div>'
          f'<div style="display:flex;flex-wrap:wrap;gap:18px">{plots}</div>')


def plot(values, title) -> str:
  """A histogram as SVG; '' of nothing, one bar where all values are the same."""
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
  """Exit status 0, or 2 for a user's mistake, told in one line."""
  try:
    print(inspect(argv))
  except (UserError, MediaError) as error:
    print(f'avlink_jax: {error}', file=sys.stderr)
    return MISTAKE
  return 0


if __name__ == '__main__':
  sys.exit(main())
