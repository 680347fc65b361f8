"""A published tower against its public torch class, on the same noise: the largest difference.

    python -m tests.benchmarks.parity FOLDER [--shape=3,30,52]

FOLDER is Wan2.1-T2V-1.3B or MOSS-SoundEffect v2.0 as published, of which `transformer/` is read, or
one of tests/public_folders.py. Three examples at different t, with 512 places of text. Each model
in float32 takes 6 GB, one after the other. It should be at most 1e-4 of the output's scale.
"""

import argparse
import dataclasses
import json
import pathlib

import jax
import numpy as np

from avlink_jax.model import wan_import
from avlink_jax.model.tower import EvenSeconds
from avlink_jax.model.wan import Wan
from tests import public_folders


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--shape', help="of the data: time, of video also rows and columns")
  flags = parser.parse_args()
  part = flags.folder / 'transformer'
  sizes = wan_import.read_sizes(part)
  tower = Wan(**dataclasses.asdict(sizes), seconds=EvenSeconds(1.0))
  shape = (tuple(map(int, flags.shape.split(','))) if flags.shape else
           (3, 30, 52) if len(sizes.patch) == 3 else (253,))
  given = public_folders.inputs(shape, tower, places=512)
  said = public_folders.said(public_folders.read(flags.folder), given)
  with jax.default_matmul_precision('highest'):
    v = np.asarray(jax.jit(tower.velocity)(wan_import.read(part, tower), given))
  difference, scale = (float(np.abs(x).max()) for x in (v + said, said))
  print(json.dumps({'folder': str(flags.folder), 'shape': shape, 'scale': scale,
                    'largest difference': difference, 'of the scale': difference / scale}))


if __name__ == '__main__':
  main()
