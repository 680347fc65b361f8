"""What samples are made for: the user's prompts and files, or clips of a data source."""

import dataclasses
import pathlib
import re
import sys

import numpy as np

from avlink_jax.codecs.mel import normalise
from avlink_jax.data import pipeline
from avlink_jax.data.clip import Clip
from avlink_jax.data.sources.folder import LONGEST_CAPTION, Folder, clean_caption
from avlink_jax.errors import MediaError, UserError

MEDIA = ('audio', 'video')  # which a user's file may have


@dataclasses.dataclass(frozen=True)
class Inputs:
  """Clips to sample for.

  Attributes:
    clips: list of Clip.
    skipped: (name, reason) of those that cannot be used.
    own: whether they are the user's: of these what was given is kept as it is.
    prompt: the user's prompt for what is generated; None: the clips' captions.
  """
  clips: list
  skipped: list = dataclasses.field(default_factory=list)
  own: bool = False
  prompt: str | None = None

  def prompts(self, clip, generate):
    """{modality: prompt} of a clip of which `generate` are generated."""
    captions = {'audio': clip.audio_caption, 'video': clip.video_caption}
    return captions if self.prompt is None else captions | dict.fromkeys(generate, self.prompt)


def find(task, config, input_path=None, prompt=None):
  """The Inputs that the flags ask for: the user's own clips or prompts, else the test split of the
  data source. Raises UserError where they do not go with the task, or nothing can be used."""
  if not task.prompted and (input_path is not None or prompt is not None):
    raise UserError(f'{config.task} puts clips of its data source back together: leave --input '
                    'and --prompt out')
  prompts = read_prompts(prompt, task)
  if input_path is not None and not task.given:
    raise UserError(f'{config.task} is conditioned on words alone: leave --input out')
  if len(prompts) > 1 and task.given:
    raise UserError(f'--prompt={prompt} holds {len(prompts)} prompts: {config.task} takes one, '
                    'for all its clips')
  layout = task.models.layout
  of_all = prompts[0] if prompts and task.given else None
  if input_path is not None:
    clips, skipped = read_clips(own_clips(input_path, config, task.given_layout, task.given))
    return Inputs(clips, skipped, True, of_all)
  if prompts and not task.given:
    return Inputs([blank_clip(i, text, layout) for i, text in enumerate(prompts)], own=True)
  source = pipeline.open_source(config, layout, 'test', task.modalities)
  clips, skipped = read_clips(source, config.sample.count, layout)
  return Inputs(clips, skipped, False, of_all)


def read_prompts(prompt, task):
  """The prompts that --prompt gives, cleaned: itself, or the lines of the .txt file it names.

  Raises UserError where there is none in it, or a text encoder of the task's cannot take one whole.
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
  for text in prompts:
    if len(text) > LONGEST_CAPTION:
      raise UserError(f'--prompt has {len(text):,} signs: give at most {LONGEST_CAPTION:,}')
    if any(ord(c) < 32 and c not in '\t\n' or ord(c) == 127 for c in text):
      raise UserError('--prompt has control characters: give plain text')
  prompts = [clean_caption(text) for text in prompts]
  for text in prompts:
    task.check_prompt(text)
  return prompts


def own_clips(path, config, layout, given):
  """The user's files, of which the media in `given` are needed."""
  return Folder(path, height=layout.height, width=layout.width, sample_rate=layout.sample_rate,
                max_fps=layout.fps, **{f'need_{medium}': medium in given for medium in MEDIA},
                features=config.towers.video.features, features_rate=layout.fps,
                decode_seconds=config.data.decode_seconds)


def blank_clip(i, prompt, layout):
  """A clip of which only a prompt is known."""
  stem = '_'.join(re.findall(r'\w+', prompt.lower())[:6])[:40]
  return Clip(id=f'{i:03d}_{stem}'.rstrip('_'), duration=layout.seconds,
              frames=np.zeros((0, layout.height, layout.width, 3), np.uint8),
              frame_times=np.zeros(0), audio=np.zeros(0, np.float32),
              sample_rate=layout.sample_rate, audio_caption=prompt, video_caption=prompt,
              source='prompt')


def read_clips(source, count=None, layout=None):
  """The first `count` usable clips (default: all; cut to the model's length where `layout` is
  given), and (name, reason) of those that are not usable. Raises UserError where none is."""
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
    clips.append(clip if layout is None else cut(clip, layout.clip.seconds))
  if not clips:
    raise UserError(f'nothing to sample for: {skipped[0][0]}: {skipped[0][1]}' if skipped else
                    'nothing to sample for: sample.count is 0')
  return clips, skipped


def cut(clip, seconds):
  """A clip's first `seconds`, its audio normalised as the models hear it."""
  duration = min(seconds, clip.duration)
  shown = clip.frame_times < duration
  events = None if clip.events is None else clip.events[clip.events < duration]
  return dataclasses.replace(
      clip, duration=duration, frames=clip.frames[shown], frame_times=clip.frame_times[shown],
      audio=normalise(clip.audio[:round(duration * clip.sample_rate)]), events=events)
