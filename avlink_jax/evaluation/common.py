"""One size and one frame rate for both sides of a pair: the smaller ones.

A small video beside a large one would be scored for its pixels, and one of 6 frames a second beside
one of 24 for standing still in between. What is compared is told, and warned of where sides differ.
"""

import collections
import typing

from avlink_jax.data.media.own_rates import Shape

SAME = 1.01  # ratio up to which frame rates are one: 23.976 and 24


class View(typing.NamedTuple):
  """Size in pixels and frames a second (0: unknown) at which both videos of a pair are compared."""
  height: int
  width: int
  fps: float


def view_of(generated: Shape, reference: Shape, enlarged=(1, 1)) -> View:
  """The View of two videos; `enlarged`: by how much each one's pixels were repeated (the samples
  folder's manifest says it).

  It has the generated video's aspect, to which the reference is cropped, and neither is larger in
  it than it was. Where files have one size it is theirs.
  """
  sizes = [(shape.height, shape.width) for shape in (generated, reference)]
  if sizes[0] != sizes[1]:
    sizes = [(max(1, round(height / factor)), max(1, round(width / factor)))
             for (height, width), factor in zip(sizes, enlarged, strict=True)]
  (height, width), (other_height, other_width) = sizes
  scale = max(1.0, height / other_height, width / other_width)
  rates = [shape.fps for shape in (generated, reference) if shape.fps]
  return View(max(1, round(height / scale)), max(1, round(width / scale)), min(rates, default=0.0))


def thinned(fps: float, view: View) -> float | None:
  """Frames a second of a video of `fps` frames for which motion is measured: every nth frame, so
  that it moves evenly, at no less than the view's rate; None: all."""
  every = int(fps * SAME / view.fps) if view.fps else 1
  return fps / every if every > 1 else None


def described(height: int, width: int, fps: float) -> str:
  """Text such as '512×288 at 24 fps'."""
  return f'{width}×{height} at {f"{fps:.4g} fps" if fps else "an unknown rate"}'


def compared(pairs) -> list[dict]:
  """Rows {generated, reference, compared, clips} of the pairs (evaluation/pairs.Pair) with video on
  both sides, the most frequent first."""
  counts: collections.Counter = collections.Counter()
  for pair in pairs:
    if pair.view is not None:
      sides = [pair.shapes[side] for side in ('generated', 'reference')]
      counts[(*(described(*shape[:3]) for shape in sides), described(*pair.view))] += 1
  return [dict(zip(('generated', 'reference', 'compared'), texts, strict=True), clips=count)
          for texts, count in counts.most_common()]


def sample_rates(pairs) -> dict[str, list[int]]:
  """Mapping {side: Hz of its files' audio, increasing}."""
  return {side: sorted({pair.shapes[side][3] for pair in pairs if side in pair.shapes} - {0})
          for side in ('generated', 'reference')}


def copies(same: dict[str, list[list[str]]]) -> list[str]:
  """Lines about clips that are the same (pairs.identical)."""
  return [f'{sum(map(len, groups))} {side} clips are {len(groups)}, over and over (the first: '
          f'{", ".join(groups[0][:3])}): intervals are narrower than they should be'
          for side, groups in same.items() if groups]


def warnings(pairs) -> list[str]:
  """Lines about pairs whose sides differ in size or frame rate, and about sound at lower rates."""
  rows = [row for row in compared(pairs) if row['generated'] != row['reference']]
  lines = []
  if rows:
    first = rows[0]
    lines.append(
        f'{sum(row["clips"] for row in rows)} pairs differ in size or frame rate; both are '
        f'compared at the smaller ones, such as {first["compared"]} for generated '
        f'{first["generated"]} and references {first["reference"]}')
  rates = sample_rates(pairs)
  if rates['generated'] and rates['reference'] and rates['generated'][0] < rates['reference'][-1]:
    low, high = rates['generated'][0], rates['reference'][-1]
    lines.append(f'audio: generated at {low} Hz, references at {high} Hz: what is above '
                 f'{low // 2} Hz counts as a difference for networks that hear it')
  return lines
