"""Captions of a scene: one sentence for its audio, one for its video."""

import re

from avlink_jax.data.impacts import materials

LONGEST = 90  # bytes

HEARD = {
  'ball': ('a {mover} ball bouncing on a {struck} floor, {sound}',
           '{sound} of a {mover} ball that bounces on a {struck} floor',
           'a {mover} ball hits a {struck} floor again and again'),
  'hammer': ('a {mover} hammer striking a {struck} block, {sound}',
             '{sound} of a {mover} hammer on a {struck} block',
             'hammering on a {struck} block with a {mover} hammer'),
  'drum': ('a {mover} stick beating a drum, {sound}',
           'slow {sound} played with a {mover} stick',
           'someone beats a drum with a {mover} stick'),
  'drops': ('drops falling on {target}, {sound}',
            '{sound} of single drops on {target}',
            'drops of water dripping on {target}, one by one'),
  'metronome': ('a {mover} metronome ticking against {struck} posts, {sound}',
                '{sound} of a metronome with {struck} posts, steady',
                'steady ticking of a {mover} weight on {struck} posts'),
  'pendulum': ('a {mover} pendulum knocking on a {struck} block, {sound}',
               '{sound} of a {mover} pendulum on a {struck} block',
               'regular knocks of a {mover} bob on a {struck} block'),
  'cradle': ('two {mover} balls of a cradle striking each other, {sound}',
             '{sound} of two {mover} balls on strings',
             'a cradle of {mover} balls clicking regularly'),
  'pucks': ('two {mover} pucks colliding and hitting {struck} cushions',
            'clattering {mover} pucks that meet and hit {struck} cushions',
            '{mover} pucks knock together and against {struck} cushions'),
}

SEEN = {
  'ball': ('a {colour} ball bounces on a {ground} floor',
           'a {colour} ball jumps up and down over a {ground} ground'),
  'hammer': ('a {colour} hammer swings down on a {ground} block',
             'a hammer with a {colour} head strikes a {ground} block'),
  'drum': ('a {colour} stick beats a {ground} drum',
           'a {ground} drum is struck by a {colour} drum stick'),
  'drops': ('{colour} drops fall from a tap onto {ground} {struck_noun}',
            'big {colour} drops drip on {ground} {struck_noun} and splash'),
  'metronome': ('a {colour} weight swings between two {ground} posts',
                'a metronome with a {colour} weight ticks from side to side'),
  'pendulum': ('a {colour} pendulum swings against a {ground} block',
               'a {colour} bob on a rod hits a {ground} block'),
  'cradle': ('two hanging balls, one {colour}, swing and hit each other',
             'a {colour} ball and a {ground} ball of a cradle take turns'),
  'pucks': ('a {colour} and a {other} puck collide between {ground} cushions',
            'seen from above, a {colour} puck and a {other} puck collide'),
}

# What drops fall on, and how that sounds.
TARGET = {'water': ('water', 'wet plops'), 'metal': ('a metal sheet', 'tinny pings'),
          'stone': ('a stone slab', 'wet taps')}


def write(rng, kind: str, words: dict, distractor: str) -> tuple[str, str]:
  """Draws the captions of a scene.

  Args:
    rng: numpy Generator; chooses among the templates.
    kind: name of the kind of scene.
    words: of the scene's `Act`.
    distractor: such as 'a blue square drifts by'; '' where there is none.

  Returns:
    The sound's caption and the picture's, ASCII, at most 90 bytes each.
  """
  mover, struck = words['mover'], words['struck']
  # A soft striker makes any surface sound soft.
  sound = materials.MATERIALS['rubber' if mover == 'rubber' else struck].heard
  target = ''
  if kind == 'drops':
    target, sound = TARGET[struck]
  names = dict(words, mover=materials.MATERIALS[mover].adjective,
               struck=materials.MATERIALS[struck].adjective,
               sound=sound, target=target, struck_noun=struck)
  audio, video = (_shortest(rng, templates[kind], names) for templates in (HEARD, SEEN))
  with_distractor = f'{video} while {_article(distractor)}'
  if distractor and len(with_distractor) <= LONGEST:
    video = with_distractor
  return audio, video


def _shortest(rng, templates, names) -> str:
  """Fills a template drawn at random; the shortest where that is too long."""
  texts = [_article(template.format(**names)) for template in templates]
  text = texts[rng.integers(len(texts))]
  return text if len(text) <= LONGEST else min(texts, key=len)


def _article(text: str) -> str:
  """Corrects 'a orange ball' to 'an orange ball'."""
  return re.sub(r'\ba (?=[aeiou])', 'an ', text)
