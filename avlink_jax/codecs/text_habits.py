"""Habits: what a published pipeline does to a prompt before its text encoder reads it."""

import dataclasses
import html
import re
import unicodedata

PLAIN = {ord(c): plain for characters, plain in (
    ('ʼ‘’‚‛', "'"), ('“”„‟', '"'), ('ﬅ', 'ſt'),
    ('\u206a\u206b\u206c\u206d\u206e\u206f\ufeff\ufff9\ufffa\ufffb\ufffc', '')  # invisible
    ) for c in characters}
# Ligatures of Latin letters, and letters of East Asian widths.
FORMS = re.compile('[ĲĳŉǄ-ǌǱ-ǳﬀ-ﬄﬆ\u3000\uff01-\uffef]+')


@dataclasses.dataclass(frozen=True)
class Habits:
  """What is done to a prompt.

  Attributes:
    clean: plain quotes, letters and spaces instead of typographic ones and of HTML's entities.
    duration: the clip's length is appended.
    unmasked: all places are attended to, zeros beyond the prompt included.
    places: tokens of a prompt that are read, at most, unless a config says otherwise.
  """
  clean: bool = False
  duration: bool = False
  unmasked: bool = False
  places: int = 128

  def text(self, prompt, seconds):
    """Text that the encoder reads; the empty prompt stays empty. `seconds`: the clip's length."""
    prompt = clean(prompt) if self.clean else prompt
    return f'{prompt}{suffix(seconds)}' if self.duration and prompt else prompt


def suffix(seconds):
  """Duration as MOSS-SoundEffect has it in its prompts: 5.16 -> ' duration: 5.2s'."""
  return f' duration: {round(float(seconds), 1):.1f}s'


def clean(prompt):
  """Cleans a prompt as Wan's and MOSS's pipelines do.

  They call ftfy, of which this has what changes well-formed text: straight quotes, ligatures taken
  apart, usual widths of letters, no invisible marks, NFC. What ftfy does besides, to text that was
  once decoded with the wrong character set, is left out. Then HTML's entities become what they
  mean, twice, and every run of white space a single space.
  """
  text = FORMS.sub(lambda found: unicodedata.normalize('NFKC', found[0]), prompt)
  text = unicodedata.normalize('NFC', text.translate(PLAIN))
  return ' '.join(html.unescape(html.unescape(text)).split())
