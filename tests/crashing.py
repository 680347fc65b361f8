"""Stands in for a check whose decoder crashes; its process imports this module."""

import os

from avlink_jax.data.datasets.check import Verdict


def examine(job):
  if 'bad' in job.path:
    os._exit(11)  # as a decoder that reads where it must not
  return Verdict(0.0, 1.0)
