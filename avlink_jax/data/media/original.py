"""The original sound of a clip whose audio is replaced, and what of a file goes into no new one."""

import numpy as np
import soxr

from avlink_jax.data.media.container import main_stream, opened
from avlink_jax.data.media.decode import decode_audio
from avlink_jax.errors import UserError

CHOICES = ('drop', 'mix', 'second_track')  # of `sample.original_sound`


def check(choice: str) -> None:
  """Raises UserError: no such choice."""
  if choice not in CHOICES:
    raise UserError(f'sample.original_sound={choice!r}: use {", ".join(CHOICES[:-1])} or '
                    f'{CHOICES[-1]}')


def original_audio(source, sample_rate: int) -> np.ndarray | None:
  """A file's own audio float32 (S, C) from its first frame on, None where it has none.

  Raises MediaError: it cannot be decoded."""
  with opened(source) as container:
    if main_stream(container.streams.audio) is None:
      return None
  return decode_audio(source, sample_rate=sample_rate)


def mixed(original: np.ndarray, added: np.ndarray, added_rate: int,
          sample_rate: int) -> np.ndarray:
  """Sum (S, C) of the original audio (S, C) at `sample_rate` and a mono wave at `added_rate`, as
  long as the longer one; scaled down where it would exceed full scale."""
  added = np.asarray(added, np.float32)
  if added_rate != sample_rate:
    added = soxr.resample(added, added_rate, sample_rate)
  total = np.zeros((max(len(original), len(added)), original.shape[1]), np.float32)
  total[:len(original)] += original
  total[:len(added)] += added[:, None]
  return total / max(1.0, np.abs(total).max(initial=0))


def left_out(source, with_sound: bool) -> list[str]:
  """Tracks of a file that its new version lacks: further video, subtitles, data, audio; without the
  main audio track where that is kept (`with_sound`)."""
  with opened(source) as container:
    kept = [main_stream(container.streams.video)]
    kept += [main_stream(container.streams.audio)] if with_sound else []
    rest = [stream for stream in container.streams if all(stream is not one for one in kept)]
    return [f'{stream.type} {stream.index}'
            + (f' ({stream.metadata["language"]})' if stream.metadata.get('language') else '')
            for stream in rest]
