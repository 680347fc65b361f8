"""Files damaged at random, as disks and downloads leave them; captions as crawls bring them."""

import numpy as np
from hypothesis import strategies as st

HEAD = 4096  # bytes of a file in which its header lies, or begins
KINDS = ('flip', 'noise', 'zeros', 'cut', 'remove', 'repeat', 'splice')


@st.composite
def damages(draw):
  """One to three ways in which a file is damaged: (kind, place in [0, 1), in its index?, size in
  bytes, seed)."""
  one = st.tuples(st.sampled_from(KINDS), st.floats(0, 1, exclude_max=True), st.booleans(),
                  st.one_of(st.integers(1, 16), st.integers(1, 100_000)), st.integers(0, 2**32 - 1))
  return draw(st.lists(one, min_size=1, max_size=3))


def damaged(content: bytes, others: list, ways) -> bytes:
  """`content`, damaged in `ways`; pieces of `others` are spliced in."""
  for kind, place, in_index, size, seed in ways:
    content = _damaged(content, others, kind, place, in_index, size, np.random.default_rng(seed))
  return content


def _damaged(content, others, kind, place, in_index, size, rng):
  # Where the headers are, damage makes the strangest claims; random places seldom hit them.
  start, end = _index(content) if in_index else (0, len(content))
  at = start + int(place * (end - start))
  size = max(1, min(size, end - at))
  if kind == 'flip':
    data = np.frombuffer(content, np.uint8).copy()
    count = min(size, 64)
    where = rng.integers(at, max(end, at + 1), count) if len(data) else []
    data[where] ^= (1 << rng.integers(0, 8, len(where))).astype(np.uint8)
    return data.tobytes()
  filling = {'noise': rng.bytes(size), 'zeros': bytes(size), 'remove': b''}
  if kind in filling:
    return content[:at] + filling[kind] + content[at + size:]
  if kind == 'cut':
    return content[:at]
  source = content if kind == 'repeat' else others[rng.integers(len(others))]
  first = int(rng.integers(max(1, len(source))))
  return content[:at] + source[first:first + size] + content[at:]


def _index(content):
  """Where an mp4 has its index; of other files the beginning."""
  at = content.find(b'moov')
  return (0, min(HEAD, len(content))) if at < 0 else (at, min(at + 8 * HEAD, len(content)))


SCRIPTS = ((0x20, 0x7f), (0xa0, 0x250), (0x370, 0x530), (0x590, 0x700), (0x900, 0xe00),
           (0xe00, 0xf00), (0x3040, 0x3100), (0x4e00, 0x9fff), (0xac00, 0xd7a4), (0x300, 0x370),
           (0x1f300, 0x1faff), (0x0, 0x20), (0x7f, 0xa0), (0x2000, 0x2070), (0xe000, 0xe100),
           (0xe0000, 0xe0080))
HTML = ('<script>alert(1)</script>', '</p></article>', '<img src=x onerror=alert(1)>', '&lt;b&gt;',
        '"><svg/onload=alert(1)>', "' onclick='x", '{scale}', '{title}', '%s', '{{}}', '<!--',
        ']]>', '<style>*{display:none}</style>', '=cmd|x', '\x1b[31m', '\u202e', '\x00')


def caption(rng, longest=400):
  """A caption of any script or of several, with control characters and pieces of HTML."""
  pieces = []
  for _ in range(rng.integers(0, 6)):
    low, high = SCRIPTS[rng.integers(len(SCRIPTS))]
    signs = ''.join(map(chr, rng.integers(low, high, rng.integers(1, max(2, longest // 6)))))
    pieces.append(signs if rng.random() < 0.7 else HTML[rng.integers(len(HTML))])
  return ' '.join(pieces)
