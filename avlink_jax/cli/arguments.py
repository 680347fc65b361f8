"""Parser of command lines for the commands besides avlink_jax.main, whose mistakes are one line."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from avlink_jax.errors import UserError


class Parser(argparse.ArgumentParser):
  """ArgumentParser that raises UserError where argparse would print its usage and exit."""

  def parse_args(self, args: Sequence[str] | None = None,  # type: ignore[override]
                 namespace: Any = None) -> argparse.Namespace:
    for word in sys.argv[1:] if args is None else args:
      if word.endswith('=--'):  # argparse of Python 3.11 makes it an empty list
        self.error(f'{word}: give a value')
    return super().parse_args(args, namespace)

  def error(self, message: str) -> NoReturn:
    raise UserError(f'{message} (see --help)')
