"""What makes samples, as a program that can be compiled without running it."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Program:
  """A sampler's program for one batch.

  Attributes:
    function: jitted.
    arguments: shapes of what it takes, which know where they lie.
    clips: of the batch.
    steps: Euler steps that it takes.
    plain: the same function, not jitted, to count FLOPs by.
  """
  function: Callable
  arguments: tuple
  clips: int
  steps: int
  plain: Callable
