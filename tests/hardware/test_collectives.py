"""Bytes between chips, read from compiled programs, are those worked out by hand."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from avlink_jax.hardware import collectives

ROOT = pathlib.Path(__file__).parents[2]

# Each of these moves what stands in WANTED; 8 devices, arrays of float32.
PROGRAMS = '''
import functools, json
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from avlink_jax.hardware import collectives

mesh = jax.make_mesh((2, 4), ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2)
place = lambda *spec: NamedSharding(mesh, P(*spec))
of = lambda shape, *spec: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place(*spec))
shmap = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)

def counted(function, *args, out=None):
  hlo = jax.jit(function, out_shardings=out).lower(*args).compile().as_text()
  return collectives.count(hlo, 8)

x = of((64, 32), ('data', 'fsdp'))
ring = [(i, (i + 1) % 4) for i in range(4)]
programs = {
  'gather': (shmap(lambda x: jax.lax.all_gather(x, 'fsdp', tiled=True),
                   in_specs=P(('data', 'fsdp')), out_specs=P('data')), x),
  'sum': (shmap(lambda x: jax.lax.psum(x, 'data'), in_specs=P('data'), out_specs=P()),
          of((64, 32), 'data')),
  'scatter': (shmap(lambda x: jax.lax.psum_scatter(x, 'fsdp', tiled=True),
                    in_specs=P('data'), out_specs=P(('data', 'fsdp'))), of((64, 32), 'data')),
  'exchange': (shmap(lambda x: jax.lax.all_to_all(x, 'fsdp', 1, 0, tiled=True),
                     in_specs=P(('data', 'fsdp')), out_specs=P('data', 'fsdp')), x),
  'pass_on': (shmap(lambda x: jax.lax.ppermute(x, 'fsdp', ring),
                    in_specs=P(('data', 'fsdp')), out_specs=P(('data', 'fsdp'))), x),
  'scan': (shmap(lambda x: jax.lax.scan(
      lambda x, _: (jax.lax.scan(lambda x, _: (jnp.sin(jax.lax.ppermute(x, 'fsdp', ring)), None),
                                 jnp.cos(jax.lax.psum(x, 'data')), length=3)[0], None),
      x, length=5)[0], in_specs=P(('data', 'fsdp')), out_specs=P(('data', 'fsdp'))), x),
  'nothing': (lambda x: x * 2, x),
}
print(json.dumps({name: counted(*program) for name, program in programs.items()}))
'''
SHARD = 64 * 32 * 4 / 8  # bytes
WANTED = {
    'gather': {'all-gather': 3 * SHARD},
    'sum': {'all-reduce': 2 * (1 / 2) * 4 * SHARD},
    'scatter': {'reduce-scatter': 3 / 4 * 4 * SHARD},
    'exchange': {'all-to-all': 3 / 4 * SHARD},
    'pass_on': {'collective-permute': SHARD},
    'scan': {'all-reduce': 5 * 2 * (1 / 2) * SHARD, 'collective-permute': 15 * SHARD},
    'nothing': {},
}


@pytest.fixture(scope='module')
def counted():
  result = subprocess.run(
      [sys.executable, '-c', textwrap.dedent(PROGRAMS)], capture_output=True, text=True,
      timeout=300, cwd=ROOT, env=os.environ | {
          'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '--xla_force_host_platform_device_count=8'})
  assert result.returncode == 0, result.stderr
  return json.loads(result.stdout)


@pytest.mark.parametrize('name', WANTED)
def test_programs_on_eight_devices_move_what_is_worked_out_by_hand(counted, name):
  moved, unknown_loops = counted[name]
  assert {kind: size for kind, size in moved.items() if size} == WANTED[name]
  assert set(moved) == set(collectives.KINDS) and unknown_loops == 0


# As libtpu writes them: sums of which each keeps a part, meshes as groups, loops without a length.
TPU = '''HloModule jit_f, is_scheduled=true

%all-reduce-scatter.1 (input.2: bf16[64,32]) -> bf16[16,32] {
  %input.2 = bf16[64,32]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-reduce.10 = bf16[64,32]{1,0:T(8,128)(2,1)} all-reduce(%input.2), channel_id=7, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %dynamic-slice.31 = bf16[16,32]{1,0} dynamic-slice(%all-reduce.10, %i, %j), dynamic_slice_sizes={16,32}
}

%body (param: (s32[], bf16[16,32])) -> (s32[], bf16[16,32]) {
  %param = (s32[]{:T(128)}, bf16[16,32]{1,0}) parameter(0)
  %constant.1 = s32[]{:T(128)} constant(1)
  %i.0 = s32[]{:T(128)} get-tuple-element(%param), index=0
  %x.0 = bf16[16,32]{1,0} get-tuple-element(%param), index=1
  %all-gather.19 = bf16[64,32]{1,0} all-gather(%x.0), channel_id=12, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}
  %fusion.88 = bf16[16,32]{1,0} fusion(%all-gather.19), kind=kCustom, calls=%all-reduce-scatter.1
  %i.1 = s32[]{:T(128)} add(%i.0, %constant.1)
  ROOT %tuple.1 = (s32[]{:T(128)}, bf16[16,32]{1,0}) tuple(%i.1, %fusion.88)
}

%condition (param.1: (s32[], bf16[16,32])) -> pred[] {
  %constant.6 = s32[]{:T(128)} constant(6)
  %param.1 = (s32[]{:T(128)}, bf16[16,32]{1,0}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%param.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i.2, %constant.6), direction=LT
}

%begin (p.1: bf16[16,32]) -> bf16[64,32] {
  %p.1 = bf16[16,32]{1,0} parameter(0)
  %all-gather.1 = bf16[64,32]{1,0} all-gather(%p.1), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %custom-call.1 = bf16[64,32]{1,0} custom-call(%p.1, %all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%end (p.2: bf16[16,32]) -> bf16[64,32] {
  %p.2 = bf16[16,32]{1,0} parameter(0)
  %all-gather.2 = bf16[64,32]{1,0} all-gather(%p.2), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %custom-call.2 = bf16[64,32]{1,0} custom-call(%p.2, %all-gather.2), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (x: bf16[16,32]) -> bf16[16,32] {
  %x = bf16[16,32]{1,0} parameter(0)
  %constant.0 = s32[]{:T(128)} constant(FIRST)
  %copy.1 = s32[]{:T(128)} copy(%constant.0)
  %tuple.2 = (s32[]{:T(128)}, bf16[16,32]{1,0}) tuple(%copy.1, %x)
  %while.26 = (s32[]{:T(128)}, bf16[16,32]{1,0}) while(%tuple.2), condition=%condition, body=%body
  %start = (bf16[16,32]{1,0}, bf16[32,32]{1,0}) all-gather-start(%x), replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}
  %async-collective-start = bf16[64,32]{1,0} fusion(%x), kind=kCustom, calls=%begin
  %async-collective-done = bf16[64,32]{1,0} fusion(%async-collective-start), kind=kCustom, calls=%end
  %done = bf16[32,32]{1,0} all-gather-done(%start)
  ROOT %out = bf16[16,32]{1,0} get-tuple-element(%while.26), index=1
}
'''  # noqa: E501


@pytest.mark.parametrize('first', [0, 2])
def test_loops_sums_and_groups_are_read_as_tpus_write_them(first):
  moved, unknown_loops = collectives.count(TPU.replace('FIRST', str(first)), 8)
  times, shard = 6 - first, 16 * 32 * 2
  assert moved['all-gather'] == times * 3 * shard + shard + 3 * shard
  assert moved['reduce-scatter'] == times * 3 / 4 * 4 * shard
  assert moved['all-reduce'] == 0 and unknown_loops == 0


def test_a_loop_of_unknown_length_is_reported_and_counts_once():
  hlo = TPU.replace('constant(FIRST)', 'parameter(1)')
  moved, unknown_loops = collectives.count(hlo, 8)
  assert unknown_loops == 1
  assert moved['all-gather'] == 3 * 1024 + 1024 + 3 * 1024


def test_groups_in_an_unknown_form_are_an_error():
  with pytest.raises(ValueError, match='replica groups'):
    collectives.count(TPU.replace("mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", 'some'), 8)
