"""Contact times, and motion between two contacts, in closed form."""

import numpy as np

FIRST, LAST = .25, .16    # no contact in the clip's first and last so many seconds
# Seconds between two contacts: 6 frames a second must tell them apart.
SHORTEST, LONGEST = .36, 1.3
EVEN = .5   # the shortest gap over the longest: a ball's arc goes with its gap squared
BUSY = .8  # a tool's stroke takes at most so many seconds, the rest of a gap it waits


def contact_times(rng, duration: float, gap: tuple[float, float], ratio=(1., 1.),
                  jitter: float = 0.) -> np.ndarray:
  """Draws the times at which something touches.

  Args:
    rng: numpy Generator.
    duration: seconds of the clip.
    gap: range of the first gap in seconds.
    ratio: range of the factor from one gap to the next (a bouncing ball: restitution).
    jitter: each gap varies by up to this share of itself.

  Returns:
    (E + 2,) seconds: one contact before the clip, E >= 2 within, one after it, so that every
    time of the clip lies between two contacts.
  """
  count = int(duration / SHORTEST) + 3
  while True:
    gaps = rng.uniform(*gap) * rng.uniform(*ratio) ** np.arange(count)
    gaps *= rng.uniform(1 - jitter, 1 + jitter, count)
    start = -rng.uniform(.08, max(.09, gaps[0] - FIRST))
    times = start + np.concatenate([[0.], np.cumsum(gaps)])
    stop = int(np.searchsorted(times, duration + .03))
    if not 4 <= stop + 1 <= len(times):
      continue
    times, gaps = times[:stop + 1], gaps[:stop]
    inside = times[1:-1]
    if (inside[0] >= FIRST and inside[-1] <= duration - LAST
        and gaps.min() >= max(SHORTEST, EVEN * gaps.max()) and gaps.max() <= LONGEST):
      return times


def between(contacts: np.ndarray, times: np.ndarray):
  """Gap that each time lies in: index k (N,), share u (N,) in [0, 1) passed, length (N,) s."""
  k = np.clip(np.searchsorted(contacts, times, side='right') - 1, 0, len(contacts) - 2)
  gap = np.diff(contacts)[k]
  return k, (times - contacts[k]) / gap, gap


def arc(u):
  """Height of a free throw, 0 at both contacts and 1 in the middle; slope 4 and -4 there."""
  return 4 * u * (1 - u)


def stroke(u, gap, fall: float):
  """Lift (0..1) of a tool between two strikes: it rebounds, waits if there is time, falls.

  Args:
    u, gap: share of the gap that has passed, and its length in seconds, as from `between`.
    fall: share of a gap's first 0.8 s that the fall takes; the rebound takes the rest.

  Returns:
    1 - (1 - x)^2 in both phases: uniform deceleration up, uniform acceleration down.
  """
  busy = np.minimum(gap, BUSY)
  rise = np.minimum(u * gap / ((1 - fall) * busy), 1)
  drop = np.minimum((1 - u) * gap / (fall * busy), 1)
  return (1 - (1 - rise) ** 2) * (1 - (1 - drop) ** 2)


def stroke_speed(gap, fall: float):
  """Speed, in lifts a second, at the end of a `stroke`."""
  return 2 / (fall * np.minimum(gap, BUSY))


def fold(x, half: float):
  """Position x of a freely moving point, reflected at walls at ±half."""
  return half - np.abs((x + half) % (4 * half) - 2 * half)
