"""The public surface is typed: every argument and result. That the types are right, mypy checks
(launch/test.sh)."""

import dataclasses
import inspect
import typing

import pytest

from avlink_jax import api, build, compile, evaluate, flow, sample, train
from avlink_jax.data import clip
from avlink_jax.data.media import decode
from avlink_jax.evaluation import journal, pairs
from avlink_jax.samples import folder
from avlink_jax.storage import weights


def public(place):
  """Functions of a module or a class that others may call, its own and not those it imports."""
  module = place if inspect.ismodule(place) else inspect.getmodule(place)
  return [function for name, function in inspect.getmembers(place, inspect.isfunction)
          if not name.startswith('_') and function.__module__ == module.__name__]


SURFACE = [
    api.load, api.Model.__call__, api.Sample.save, train.train, sample.sample, evaluate.evaluate,
    evaluate.summary, compile.compile_ahead,
    build.build, build.example_shapes, weights.read, weights.save, decode.decode,
    decode.decode_audio, *public(flow), *public(clip), *public(folder), *public(pairs),
    *public(journal.Journal)]


@pytest.mark.parametrize(
    'function', SURFACE, ids=[f'{f.__module__}.{f.__qualname__}' for f in SURFACE])
def test_every_argument_and_result_has_a_type(function):
  typed = typing.get_type_hints(function)
  assert {*inspect.signature(function).parameters, 'return'} - {'self'} == typed.keys()


@pytest.mark.parametrize(
    'record', [api.Sample, clip.Clip, build.Modality, build.Models, pairs.Pair])
def test_every_field_has_a_type(record):
  names = getattr(record, '_fields', None) or [field.name for field in dataclasses.fields(record)]
  assert typing.get_type_hints(record).keys() == set(names)
