"""python -m avlink_jax.data.prepare: see `command.py`."""

import sys

from avlink_jax.data.prepare.command import main

if __name__ == '__main__':
  sys.exit(main())
