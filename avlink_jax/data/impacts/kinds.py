"""The eight kinds of scene: what moves how, what touches what, when and how fast.

Each kind is a function (rng, duration in seconds) -> Act. Moving bodies stay within |x| <= REACH
and in the frame; every contact is visible.
"""

import dataclasses

import numpy as np

from avlink_jax.data.impacts import bodies, materials, motion

REACH = .62
DARK = np.array((40., 36., 40.))
HANDLE = np.array((150., 104., 62.))
STRING = np.array((168., 166., 164.))  # seen on dark walls and on light ones


@dataclasses.dataclass(frozen=True)
class Act:
  """Events and bodies of a scene.

  Attributes:
    bodies: in the order in which they are painted.
    times: (E,) seconds of the contacts in the clip, increasing.
    speeds: (E,) impact speeds in heights a second.
    pairs: the (mover's, struck thing's) materials that meet in this scene.
    pair: (E,) which of `pairs` meets in each contact.
    colour: (3,) RGB of what moves, for the backdrop to stand off from.
    words: fills the captions: colour, mover, struck (with its material), ground (a colour).
  """
  bodies: list
  times: np.ndarray
  speeds: np.ndarray
  pairs: list
  pair: np.ndarray
  colour: np.ndarray
  words: dict


def pick(rng, *names):
  """Draws one of the names."""
  return names[rng.integers(len(names))]


def floor(rng, material: str, top: float) -> tuple[str, bodies.Body]:
  """Floor whose surface lies at y = top: the name of its colour, and the body."""
  name, colour = materials.quiet(rng, material)
  return name, bodies.box(1.6, .3, colour, material, bodies.still(0, top + .3), corner=0.)


def lever(pivot, angle):
  """Bar that turns about `pivot` by angle(times): a function to the paths of points along it."""
  def at(distance: float, across: float = 0.):
    def position(times):
      a = angle(times)
      cos, sin = np.cos(a), np.sin(a)
      return (pivot[0] + distance * cos - across * sin,
              pivot[1] + distance * sin + across * cos, a)
    return bodies.moving(position)
  return at


def ball(rng, duration):
  """A ball under gravity on a floor, in half of the scenes between two walls."""
  solid = pick(rng, 'rubber', 'rubber', 'glass', 'wood', 'metal', 'stone')
  ground = pick(rng, 'wood', 'stone', 'metal')
  radius, top = rng.uniform(.105, .155), rng.uniform(.3, .38)
  contacts = motion.contact_times(rng, duration, (.5, 1.05), (.9, .995))
  gaps = np.diff(contacts)
  # Gravity is such that the highest arc fills the space above the floor.
  height = rng.uniform(.8, 1.) * (top - 2 * radius + .44)
  gravity = 8 * height / gaps.max() ** 2
  times, speeds = contacts[1:-1], gravity * gaps[:-1] / 2
  pair = np.zeros(len(times), int)

  room = REACH - .07 - radius
  speed, start, hits = _walls(rng, duration, times, room)
  walls = [bodies.box(.035, .5, HANDLE, 'wood', bodies.still(side * (room + radius + .035), 0))
           for side in (-1, 1)] if len(hits) else []
  order = np.argsort(np.concatenate([times, hits]))
  times = np.concatenate([times, hits])[order]
  speeds = np.concatenate([speeds, np.full(len(hits), speed)])[order]
  pair = np.concatenate([pair, np.ones(len(hits), int)])[order]

  def position(t):
    k, u, gap = motion.between(contacts, t)
    x = motion.fold(start + speed * t, room)
    return x, top - radius - gravity * gap ** 2 / 8 * motion.arc(u), x / radius

  def shade(t):
    x, y, _ = position(t)
    return x, top + .02 + 0 * x, 0., 1 - .6 * (top - radius - y) / height

  name, colour = materials.vivid(rng)
  ground_colour, ground_body = floor(rng, ground, top)
  shadow = bodies.Body((radius, .022), .022, DARK, 'plain', bodies.moving(shade), 'shadow')
  mover = bodies.disc(radius, colour, solid, bodies.moving(position))
  return Act([ground_body, *walls, shadow, mover], times, speeds,
             [(solid, ground), (solid, 'wood')], pair, colour,
             {'colour': name, 'mover': solid, 'struck': ground, 'ground': ground_colour})


def _walls(rng, duration, floor_times, room):
  """Draws horizontal speed, start and wall contacts, well apart from `floor_times`."""
  if rng.random() < .5:
    for speed in rng.uniform(.4, .85, 60):
      start = rng.uniform(-room, room)
      hits = (room - start + 2 * room * np.arange(9)) / speed
      hits = hits[hits < duration + .05]
      clear = np.abs(hits[:, None] - floor_times).min() if len(hits) else 0.
      if clear > .27 and hits[0] > motion.FIRST and hits[-1] < duration - motion.LAST:
        return speed, start, hits
  # Without walls it crosses the picture once, at most from side to side.
  speed = rng.uniform(-.9, .9) * 2 * room / duration
  return speed, -speed * duration / 2, np.zeros(0)


def hammer(rng, duration):
  """A hammer that swings on a hinge and strikes a block."""
  solid, struck = pick(rng, 'metal', 'wood', 'rubber'), pick(rng, 'metal', 'stone', 'wood', 'glass')
  contacts = motion.contact_times(rng, duration, (.5, .95), jitter=.25)
  gaps = np.diff(contacts)
  fall, length = rng.uniform(.4, .55), rng.uniform(.56, .66)
  half = rng.uniform(.075, .095), rng.uniform(.11, .14)
  lifts = rng.uniform(.6, .78) * rng.uniform(.75, 1., len(gaps))
  pivot = (-.42, rng.uniform(.08, .14))

  def angle(t):
    k, u, gap = motion.between(contacts, t)
    return -lifts[k] * motion.stroke(u, gap, fall)

  at = lever(pivot, angle)
  name, colour = materials.vivid(rng)
  block_name, block_colour = materials.quiet(rng, struck)
  top = pivot[1] + half[1]
  parts = [
    floor(rng, 'wood', .42)[1],
    bodies.box(.17, (.42 - top) / 2, block_colour, struck,
               bodies.still(pivot[0] + length, (.42 + top) / 2)),
    bodies.box(.035, (.42 - pivot[1]) / 2, DARK + 35, 'plain',
               bodies.still(pivot[0], (.42 + pivot[1]) / 2)),
    bodies.rod(length / 2, .026, HANDLE, 'wood', at(length / 2), 'mover'),
    bodies.box(*half, colour, solid, at(length), 'mover', corner=.02),
    bodies.disc(.04, DARK + 60, 'metal', bodies.still(*pivot), 'fixture')]
  speeds = (length * lifts * motion.stroke_speed(gaps, fall))[:-1]
  return Act(parts, contacts[1:-1], speeds, [(solid, struck)], np.zeros(len(speeds), int), colour,
             {'colour': name, 'mover': solid, 'struck': struck, 'ground': block_name})


def drum(rng, duration):
  """One or two sticks on a drum."""
  solid = pick(rng, 'wood', 'plastic')
  contacts = motion.contact_times(rng, duration, (.42, .9), jitter=.25)
  times = contacts[1:-1]
  hands = rng.integers(0, 2, len(times)) * (rng.random() < .4)
  radius, skin = rng.uniform(.085, .105), rng.uniform(.14, .2)
  name, colour = materials.vivid(rng)
  drum_name, drum_colour = materials.vivid(rng, avoid=name)
  parts = [
    floor(rng, 'wood', .42)[1],
    bodies.box(.3, (.44 - skin) / 2, .85 * drum_colour, 'plastic',
               bodies.still(0, (.44 + skin) / 2), corner=.05),
    bodies.box(.315, .032, np.array(materials.QUIET['cream']), 'skin',
               bodies.still(0, skin + .032), corner=.03),
    bodies.box(.305, .018, DARK + 70, 'metal', bodies.still(0, .41), corner=.01)]
  speeds = np.zeros(len(times))
  for side in range(hands.max() + 1):
    mine = hands == side
    spot = rng.uniform(.1, .15) if hands.any() else rng.uniform(-.05, .1)
    stick, speeds[mine] = _stick(rng, contacts[np.r_[True, mine, True]], spot, skin - radius,
                                 radius, colour, solid)
    parts += [bodies.mirrored(body) for body in stick] if side else stick
  return Act(parts, times, speeds, [(solid, 'skin')], np.zeros(len(times), int), colour,
             {'colour': name, 'mover': solid, 'struck': 'skin', 'ground': drum_name})


def _stick(rng, contacts, x, y, radius, colour, solid):
  """Stick held on the right whose tip is at (x, y) at the contacts, and its impact speeds."""
  length, tilt, fall = rng.uniform(.42, .46), rng.uniform(.15, .3), rng.uniform(.4, .55)
  gaps = np.diff(contacts)
  lifts = rng.uniform(.65, .9) * rng.uniform(.75, 1., len(gaps))

  def angle(t):
    k, u, gap = motion.between(contacts, t)
    return np.pi - tilt + lifts[k] * motion.stroke(u, gap, fall)

  at = lever((x + length * np.cos(tilt), y - length * np.sin(tilt)), angle)
  stick = [bodies.rod(length / 2, .024, .75 * colour, solid, at(length / 2), 'mover'),
           bodies.disc(radius, colour, solid, at(length))]
  return stick, (length * lifts * motion.stroke_speed(gaps, fall))[:-1]


def drops(rng, duration):
  """Big drops that fall from a tap into water, a metal pan or onto stone, and splash."""
  struck = pick(rng, 'water', 'water', 'metal', 'stone')
  contacts = motion.contact_times(rng, duration, (.42, 1.), jitter=.2)
  size = rng.uniform(.75, 1., len(contacts))
  radius, top, x0 = rng.uniform(.09, .115), rng.uniform(.24, .32), rng.uniform(-.2, .2)
  tap, fall = -.36, rng.uniform(.38, .55)
  height = top - radius - tap
  speed = 2 * height / fall

  def drop(t, slot):
    # Drop k swells at the tap, falls freely for `fall` seconds and sinks in at contact k.
    k = np.clip(np.searchsorted(contacts, t - .12), 0, len(contacts) - 1)
    k = np.minimum(k + (k + slot) % 2, len(contacts) - 1)
    until = contacts[k] - t
    gone = np.maximum(fall - until, 0)
    y = np.where(until > 0, tap + height * (gone / fall) ** 2, top - radius - speed * until)
    swell = np.clip((fall + .3 - until) / .3, 0, 1)
    there = ((k + slot) % 2 == 0) & (until > -.12) & (k > 0)
    return x0, y, 0., size[k] * swell * there

  def splash(t, side):
    k, u, gap = motion.between(contacts, t)
    share = u * gap / .34
    return (x0 + side * (.06 + .2 * share), top - .02 - .24 * size[k] * motion.arc(share), 0.,
            (share < 1.) * (1.1 - .4 * share) * (t > contacts[1]))

  name, colour = materials.vivid(rng, avoid='black')
  ground_name, ground_body = floor(rng, struck, top)
  falling = [bodies.disc(radius, colour, 'water', bodies.moving(lambda t, s=s: drop(t, s)))
             for s in (0, 1)]
  spray = [bodies.disc(.055, .75 * colour + 60, 'water',
                       bodies.moving(lambda t, s=s: splash(t, s))) for s in (-1, 1)]
  nozzle = bodies.box(.07, .08, DARK + 70, 'metal', bodies.still(x0, tap - .12))
  times = contacts[1:-1]
  # The ground is painted over the drops, so that they sink into it.
  return Act([*falling, nozzle, *spray, ground_body], times, speed * size[1:-1] ** 2,
             [('water', struck)], np.zeros(len(times), int), colour,
             {'colour': name, 'mover': 'water', 'struck': struck, 'ground': ground_name})


def metronome(rng, duration):
  """A weight on an upright arm that swings between two posts and ticks at each."""
  solid, struck = pick(rng, 'metal', 'wood'), pick(rng, 'wood', 'metal', 'glass', 'stone')
  contacts = motion.contact_times(rng, duration, (.42, .9), (.99, 1.01))
  radius, length, reach = rng.uniform(.1, .125), rng.uniform(.5, .58), rng.uniform(.5, .62)
  bend, pivot = rng.uniform(.6, 1.1), (0., rng.uniform(.26, .3))

  def angle(t):
    k, u, _ = motion.between(contacts, t)
    return -np.pi / 2 + reach * (1 - 2 * (k % 2)) * np.sin(bend * (1 - 2 * u)) / np.sin(bend)

  at = lever(pivot, angle)
  name, colour = materials.vivid(rng)
  post_name, post_colour = materials.quiet(rng, struck)
  _, case_colour = materials.vivid(rng, avoid=name)
  face, high = length * np.sin(reach) + radius, pivot[1] - length * np.cos(reach) - .1
  posts = [bodies.box(.05, (.42 - high) / 2, post_colour, struck,
                      bodies.still(side * (face + .05), (.42 + high) / 2)) for side in (-1, 1)]
  parts = [
    floor(rng, 'wood', .42)[1], *posts,
    bodies.box(.14, .09, .6 * case_colour, 'wood', bodies.still(0, .36), corner=.03),
    bodies.rod(length / 2, .02, STRING, 'metal', at(length / 2), 'mover'),
    bodies.disc(radius, colour, solid, at(length)),
    bodies.disc(.04, DARK + 60, 'metal', bodies.still(*pivot), 'fixture')]
  gaps = np.diff(contacts)[:-1]
  speeds = 2 * length * reach * bend / np.tan(bend) / gaps
  return Act(parts, contacts[1:-1], speeds, [(solid, struck)], np.zeros(len(speeds), int), colour,
             {'colour': name, 'mover': solid, 'struck': struck, 'ground': post_name})


def pendulum(rng, duration):
  """A bob on a string that swings against a block and rebounds."""
  solid = pick(rng, 'metal', 'wood', 'stone', 'rubber')
  struck = pick(rng, 'wood', 'metal', 'glass', 'stone')
  contacts = motion.contact_times(rng, duration, (.45, .95))
  gaps = np.diff(contacts)
  radius, length = rng.uniform(.11, .14), rng.uniform(.56, .64)
  swings = rng.uniform(.75, .95) * rng.uniform(.94, .99) ** np.arange(len(gaps))
  pivot = (rng.uniform(.1, .2), -.46)

  def angle(t):
    k, u, _ = motion.between(contacts, t)
    return np.pi / 2 + swings[k] * np.sin(np.pi * u)

  at = lever(pivot, angle)
  name, colour = materials.vivid(rng)
  block_name, block_colour = materials.quiet(rng, struck)
  middle = pivot[1] + length
  parts = [
    floor(rng, 'wood', .42)[1],
    bodies.box(.1, (.42 - middle + .16) / 2, block_colour, struck,
               bodies.still(pivot[0] + radius + .1, (.42 + middle - .16) / 2)),
    bodies.box(.5, .03, HANDLE, 'wood', bodies.still(0, pivot[1])),
    bodies.rod(length / 2, .012, STRING, 'plain', at(length / 2), 'mover'),
    bodies.disc(radius, colour, solid, at(length))]
  speeds = (length * swings * np.pi / gaps)[:-1]
  return Act(parts, contacts[1:-1], speeds, [(solid, struck)], np.zeros(len(speeds), int), colour,
             {'colour': name, 'mover': solid, 'struck': struck, 'ground': block_name})


def cradle(rng, duration):
  """Two balls on strings that take turns to strike each other."""
  solid = pick(rng, 'metal', 'glass', 'wood', 'stone')
  contacts = motion.contact_times(rng, duration, (.45, .95))
  gaps = np.diff(contacts)
  radius, length = rng.uniform(.105, .13), rng.uniform(.56, .6)
  swings = rng.uniform(.54, .63) * rng.uniform(.94, .99) ** np.arange(len(gaps))
  name, colour = materials.vivid(rng)
  other_name, other = materials.vivid(rng, avoid=name, like=colour)
  parts = [floor(rng, 'wood', .42)[1]]
  for side, paint in ((1, colour), (-1, other)):
    def angle(t, side=side):
      k, u, _ = motion.between(contacts, t)
      return np.pi / 2 - side * swings[k] * np.sin(np.pi * u) * (k % 2 == (side > 0))

    at = lever((side * radius, -.46), angle)
    parts += [bodies.rod(length / 2, .012, STRING, 'plain', at(length / 2), 'mover'),
              bodies.disc(radius, paint, solid, at(length))]
  parts += [bodies.box(.35, .03, HANDLE, 'wood', bodies.still(0, -.46))]
  speeds = (length * swings * np.pi / gaps)[:-1]
  return Act(parts, contacts[1:-1], speeds, [(solid, solid)], np.zeros(len(speeds), int), colour,
             {'colour': name, 'mover': solid, 'struck': solid, 'ground': other_name})


def pucks(rng, duration):
  """Seen from above: two pucks that meet in the middle and rebound from two cushions."""
  solid, struck = pick(rng, 'plastic', 'stone', 'metal', 'wood'), pick(rng, 'rubber', 'wood')
  contacts = motion.contact_times(rng, duration, (.4, .7), (1., 1.06))
  gaps = np.diff(contacts)
  radius, wall = rng.uniform(.105, .135), rng.uniform(.5, .54)
  travel, first = wall - 2 * radius, rng.integers(0, 2)
  slope, y0 = rng.uniform(-.1, .1), rng.uniform(-.12, .12)
  name, colour = materials.vivid(rng)
  other_name, other = materials.vivid(rng, avoid=name, like=colour)
  cushion_name, cushion = materials.quiet(rng, struck)
  parts = [bodies.box(.04, .5, cushion, struck, bodies.still(side * (wall + .04), 0))
           for side in (-1, 1)]
  for side, paint in ((1, colour), (-1, other)):
    def position(t, side=side):
      k, u, _ = motion.between(contacts, t)
      out = np.where((k + first) % 2 == 0, u, 1 - u)
      x = side * (radius + travel * out)
      return x, y0 + slope * (t / duration - .5) + 0 * x, side * t
    parts += [bodies.disc(radius, paint, 'plain', bodies.moving(position), 'mover'),
              bodies.disc(.62 * radius, .8 * paint + 40, solid, bodies.moving(position))]
  pair = (np.arange(1, len(contacts) - 1) + first) % 2
  return Act(parts, contacts[1:-1], travel / gaps[:-1] * np.where(pair, 1, 2),
             [(solid, solid), (solid, struck)], pair, colour,
             {'colour': name, 'other': other_name, 'mover': solid, 'struck': struck,
              'ground': cushion_name})


KINDS = {kind.__name__: kind for kind in (
  ball, hammer, drum, drops, metronome, pendulum, cradle, pucks)}
