"""Inputs of sampling: the user's prompts and files, or clips of a data source."""

import collections
import dataclasses
import pathlib
import re
import sys

import numpy as np

from avlink_jax.data import pipeline
from avlink_jax.data.clip import Clip
from avlink_jax.data.sources.captions import LONGEST_CAPTION, clean_caption
from avlink_jax.data.sources.folder import Folder
from avlink_jax.errors import MediaError, UserError

MEDIA = ('audio', 'video')  # of a user's file
MOST_TAKES = 1000


@dataclasses.dataclass(frozen=True)
class Prompts:
  """The user's prompts for all clips; None: none is given.

  Attributes:
    prompt: of generated modalities, in the place of the clips' captions.
    condition: of the modality that conditions, in the place of the clips' captions.
    negative: what generated modalities should not show, in the unconditional pass.
  """
  prompt: str | None = None
  condition: str | None = None
  negative: str | None = None


@dataclasses.dataclass(frozen=True)
class Inputs:
  """Clips to sample for.

  Attributes:
    clips: list of Clip.
    skipped: (name, reason) of unusable clips.
    own: whether they are the user's own, whose media are kept unchanged in samples.
    given: the user's prompts.
    takes: how many clips in a row are the same but for their names (`repeated`).
  """
  clips: list
  skipped: list = dataclasses.field(default_factory=list)
  own: bool = False
  given: Prompts = Prompts()
  takes: int = 1

  def prompts(self, clip, generate):
    """Mapping {modality: prompt} of a clip, and with a negative prompt also
    {f'{modality}_negative': it} of generated modalities, which are those in `generate`."""
    texts = {'audio': clip.audio_caption, 'video': clip.video_caption}
    for name in texts:
      text = self.given.prompt if name in generate else self.given.condition
      texts[name] = texts[name] if text is None else text
    if self.given.negative is not None:
      texts |= {f'{name}_negative': self.given.negative for name in generate}
    return texts


def find_clips(task, config, input_path=None, prompt=None, condition_prompt=None,
               negative_prompt=None, takes=1, output=None):
  """Inputs from the flags: the user's clips or prompts, or by default the data source's test split.

  Without a prompt ('') means without any: then the conditioning modality has none either, unless
  `condition_prompt` says what it has. Of several `takes` each clip comes as often, as ID_1, ID_2, …
  What lies in the folder `output` is no input.
  Raises UserError: the flags do not fit the task, or no clip is usable."""
  if not task.prompted and takes != 1:
    raise UserError(f'{config.task} makes the same of a clip each time: leave --takes out')
  if not task.prompted and any(text is not None for text in (
      input_path, prompt, condition_prompt, negative_prompt)):
    raise UserError(f'{config.task} puts clips of its data source back together: leave --input '
                    'and prompts out')
  prompts = read_prompts(prompt, task)
  if input_path is not None and not task.conditions:
    raise UserError(f'{config.task} is conditioned on words alone: leave --input out')
  if len(prompts) > 1 and task.conditions:
    raise UserError(f'--prompt={prompt} holds {len(prompts)} prompts: {config.task} takes one, '
                    'for all its clips')
  layout = task.models.layout
  given = given_prompts(task, prompts[0] if prompts and task.conditions else None,
                        condition_prompt, negative_prompt)
  if input_path is not None:
    source = own_clips(input_path, config, task.condition_layout, task.conditions, output)
    pipeline.tell(source)
    clips, skipped = read_clips(source)
    return Inputs(repeated(clips, takes), skipped, True, given, takes)
  if prompts and not task.conditions:
    clips = blank_clips(prompts, layout)
    return Inputs(repeated(clips, takes), own=True, given=given, takes=takes)
  source = pipeline.open_source(config, layout, 'test', task.needed)
  pipeline.tell(source)
  clips, skipped = read_clips(source, config.sample.count, task.models)
  return Inputs(repeated(clips, takes), skipped, False, given, takes)


def repeated(clips, takes):
  """Clips for so many takes each, with names of their own and so with noise of their own.

  Raises UserError: fewer than one, or more than anybody can compare."""
  if not 1 <= takes <= MOST_TAKES:
    raise UserError(f'takes={takes}: give at least 1' if takes < 1 else
                    f'takes={takes}: give at most {MOST_TAKES}')
  if takes == 1:
    return clips
  return [dataclasses.replace(clip, id=f'{clip.id}_{take}',
                              noise=clip.noise and f'{clip.noise} {take}')
          for clip in clips for take in range(1, takes + 1)]


def given_prompts(task, prompt, condition, negative):
  """Prompts of the user's texts, as far as they are given. Raises UserError: one is unusable, or
  does not fit the task."""
  prompt, condition, negative = (read_prompt(flag, text, task) for flag, text in (
      ('--prompt', prompt), ('--condition_prompt', condition), ('--negative_prompt', negative)))
  if condition is not None and not task.conditions:
    raise UserError(f'{task.config.task} is conditioned on words alone: leave --condition_prompt '
                    'out')
  if negative is not None and task.config.sample.guidance == 1:
    raise UserError('--negative_prompt acts through guidance, and sample.guidance=1 is none: give '
                    'more than 1')
  return Prompts(prompt, '' if condition is None and prompt == '' else condition, negative)


def read_prompts(prompt, task):
  """Cleaned prompts from --prompt: itself, or the lines of the .txt file it names.

  Raises UserError: the file has no prompts, or one is unusable or too long for a text encoder.
  """
  if prompt is None:
    return []
  if prompt.endswith('.txt'):
    try:
      lines = pathlib.Path(prompt).read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
      raise UserError(f'--prompt={prompt}: cannot be read as a text file ({error})') from None
    prompts = [line for line in lines if line.strip()]
    if not prompts:
      raise UserError(f'--prompt={prompt}: no prompt in it, one is wanted on each line')
  else:
    prompts = [prompt]
  return [read_prompt('--prompt', text, task) for text in prompts]


def read_prompt(flag, text, task):
  """Cleaned text of a flag; None stays. Raises UserError: it is unusable or too long for a text
  encoder."""
  if text is None:
    return None
  if len(text) > LONGEST_CAPTION:
    raise UserError(f'{flag} has {len(text):,} signs: give at most {LONGEST_CAPTION:,}')
  if any(ord(c) < 32 and c not in '\t\n' or ord(c) == 127 for c in text):
    raise UserError(f'{flag} has control characters: give plain text')
  text = clean_caption(text)
  task.check_prompt(text)
  return text


def own_clips(path, config, layout, required, without=None):
  """Source of the user's files, which must have the media in `required` and do not lie in the
  folder `without`."""
  return Folder(path, height=layout.height, width=layout.width, sample_rate=layout.sample_rate,
                max_fps=layout.fps, **{f'need_{medium}': medium in required for medium in MEDIA},
                features=config.towers.video.features, features_rate=layout.fps,
                decode_seconds=config.data.decode_seconds, without=without, for_sampling=True)


def blank_clips(prompts, layout):
  """Clips without media, for prompts alone. Their names are numbered; their noise is drawn from the
  prompt and from how many equal ones come before it."""
  before: collections.Counter = collections.Counter()
  clips = []
  for i, text in enumerate(prompts):
    before[text] += 1
    clips.append(dataclasses.replace(blank_clip(i, text, layout), noise=f'{text} {before[text]}'))
  return clips


def blank_clip(i, prompt, layout):
  """Clip without media, for a prompt alone."""
  stem = '_'.join(re.findall(r'\w+', prompt.lower())[:6])[:40]
  return Clip(id=f'{i:03d}_{stem}'.rstrip('_'), duration=layout.seconds,
              frames=np.zeros((0, layout.height, layout.width, 3), np.uint8),
              frame_times=np.zeros(0), audio=np.zeros(0, np.float32),
              sample_rate=layout.sample_rate, audio_caption=prompt, video_caption=prompt,
              source='prompt')


def read_clips(source, count=None, models=None):
  """Reads the first `count` usable clips (default: all): (clips, [(name, reason)] of unusable).

  With `models`, clips are cut to their layout's clip length. Raises UserError: none is usable."""
  clips, skipped = [], []
  for i in range(len(source)):
    if len(clips) == count:
      break
    try:
      clip = source.load(i)
    except MediaError as error:
      skipped.append((source.name(i), error.reason))
      print(f'skipped {source.name(i)}: {error.reason}', file=sys.stderr, flush=True)
      continue
    clips.append(clip if models is None else _of_source(source, i, cut(
        clip, models.layout.clip.seconds, models.modalities['audio'].codec)))
  if not clips:
    raise UserError(f'nothing to sample for: {skipped[0][0]}: {skipped[0][1]}' if skipped else
                    'nothing to sample for: sample.count is 0')
  return clips, skipped


def _of_source(source, i, clip):
  """Clip that can be had as clip i of its source has it, where there is more of it."""
  if not hasattr(source, 'original'):
    return clip
  return dataclasses.replace(clip, original=lambda layout: source.original(i, clip, layout))


def cut(clip, seconds, codec):
  """Cuts a clip to its first `seconds`, with its audio at the level of an audio codec's waves.

  Latents that were prepared are dropped where the media are there as well: nobody has checked that
  they are of this run's codecs."""
  duration = min(seconds, clip.duration)
  kept = clip.frame_times < duration
  events = None if clip.events is None else clip.events[clip.events < duration]
  wave = clip.audio[:round(duration * clip.sample_rate)]
  return dataclasses.replace(
      clip, duration=duration, frames=clip.frames[kept], frame_times=clip.frame_times[kept],
      audio=codec.normalise(wave), events=events,
      latents={name: data for name, data in clip.latents.items() if name not in clip.media})
