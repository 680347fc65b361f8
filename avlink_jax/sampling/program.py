"""Description of a sampler's program, for ahead-of-time compilation."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Program:
  """Program of a sampler for one batch.

  Attributes:
    function: jitted function.
    arguments: shapes of its arguments, with shardings.
    clips: number of clips in the batch.
    steps: number of Euler steps.
    plain: the function without jit, for counting FLOPs.
  """
  function: Callable
  arguments: tuple
  clips: int
  steps: int
  plain: Callable
