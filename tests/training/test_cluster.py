"""Which of several processes this one is, from what each launcher is known to write."""

import os
import socket

import pytest
from jax._src.clusters import cloud_tpu_cluster

from avlink_jax.errors import Lost, UserError
from avlink_jax.training.resilience import cluster

# As srun writes in the third task of four on two nodes, in an allocation of sixteen tasks.
SLURM = {
    'SLURM_JOB_ID': '12345', 'SLURM_NTASKS': '16', 'SLURM_JOB_NODELIST': 'gpu[01-08]',
    'SLURM_STEP_NUM_TASKS': '4', 'SLURM_STEP_NODELIST': 'gpu[03,07]',
    'SLURM_STEP_TASKS_PER_NODE': '2(x2)', 'SLURM_PROCID': '2', 'SLURM_LOCALID': '0',
    'SLURM_NODEID': '1'}
MPI = {'OMPI_COMM_WORLD_SIZE': '4', 'OMPI_COMM_WORLD_RANK': '3', 'OMPI_COMM_WORLD_LOCAL_RANK': '1',
       'OMPI_COMM_WORLD_LOCAL_SIZE': '2'}
GKE = {'TPU_WORKER_ID': '1', 'TPU_WORKER_HOSTNAMES': 'av-0.av,av-1.av'}
CLOUD_TPU = {'agent-worker-number': '3', 'worker-network-endpoints': 'a:1:10.0.0.2,b:2:10.0.0.3,'
             'c:3:10.0.0.4,d:4:10.0.0.5', 'tpu-env': "ACCELERATOR_TYPE: 'v5p-32'\n"}


@pytest.fixture
def detect(monkeypatch):
  """function (environment, {key: what a TPU machine's metadata server says} or error) -> Place."""
  def detect(environ, metadata=None):
    def get_metadata(key):
      if isinstance(metadata, Exception):
        raise metadata
      return metadata.get(key, ''), 200 if key in metadata else 404

    monkeypatch.setattr(os, 'environ', environ)
    monkeypatch.setattr(cloud_tpu_cluster, 'running_in_cloud_tpu_vm', metadata is not None)
    monkeypatch.setattr(cloud_tpu_cluster, 'get_metadata', get_metadata)
    monkeypatch.setattr(socket, 'gethostbyname', lambda host: '10.0.0.1')
    return cluster.detect()
  return detect


def test_a_machine_by_itself_is_one_process(detect):
  assert detect({}) is None


@pytest.mark.parametrize('shell', [
    {**SLURM, 'SLURM_STEP_NUM_TASKS': '1', 'SLURM_PROCID': '0'},  # srun --pty bash, salloc
    {k: v for k, v in SLURM.items() if 'STEP' not in k} | {'SLURM_PROCID': '0'},  # an sbatch script
    {**MPI, 'OMPI_COMM_WORLD_SIZE': '1'},
    {'JAX_NUM_PROCESSES': '1'}])
def test_one_task_of_a_cluster_is_one_process(detect, shell):
  assert detect(shell) is None


def test_a_single_tpu_host_is_one_process(detect):
  alone = {'agent-worker-number': '0', 'worker-network-endpoints': '10.0.0.2', 'tpu-env': ''}
  assert detect({}, alone) is None
  assert detect({**GKE, 'TPU_WORKER_ID': '0', 'TPU_WORKER_HOSTNAMES': 'localhost'}, {}) is None
  assert detect({}, {}) is None  # whose server knows of no others
  assert detect({'JAX_PLATFORMS': 'cpu', **GKE}, {}) is None  # which does not use its TPU


def test_a_tpu_without_a_metadata_server_is_one_process(detect):
  assert detect({}, ConnectionError('no route to the host')) is None


def test_slurm_counts_the_tasks_of_the_step(detect):
  place = detect(SLURM)
  assert (place.count, place.process) == (4, 2)
  assert place.address == f'gpu03:{61440 + 12345 % 4096}'
  assert [place.name(i) for i in (1, 2)] == ['process 1 (gpu03)', 'process 2 (gpu07)']


@pytest.mark.parametrize('more, devices', [
    ({}, (0,)), ({'CUDA_VISIBLE_DEVICES': '0,1'}, (0,)),
    ({'CUDA_VISIBLE_DEVICES': '0'}, None),  # srun --gpus-per-task=1
    ({'SLURM_STEP_TASKS_PER_NODE': '1(x4)', 'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, None)])
def test_a_slurm_task_takes_its_own_gpu_and_all_where_it_is_alone_on_its_node(
    detect, more, devices):
  assert detect(SLURM | more).devices == devices


def test_hosts_are_not_named_where_slurm_does_not_fill_one_node_after_the_other(detect):
  assert detect({**SLURM, 'SLURM_DISTRIBUTION': 'cyclic'}).name(1) == 'process 1'


@pytest.mark.parametrize('more, host', [
    ({'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1,10.148.0.1:34911'}, '10.96.0.1'),
    ({'JAX_COORDINATOR_ADDRESS': 'head:123'}, 'head')])
def test_open_mpi_meets_at_the_launcher_or_where_it_is_told_to(detect, more, host):
  place = detect(MPI | more)
  assert (place.count, place.process, place.devices) == (4, 3, (1,))
  assert place.address.rpartition(':')[0] == host


def test_open_mpi_that_does_not_say_where_is_told_what_it_takes(detect):
  with pytest.raises(UserError, match='-x JAX_COORDINATOR_ADDRESS'):
    detect(MPI)


def test_gke_names_its_workers(detect):
  place = detect(GKE, {})
  assert (place.address, place.count, place.process) == ('av-0.av:8482', 2, 1)
  assert place.name(0) == 'process 0 (av-0.av)'


def test_workers_of_several_slices_are_counted_on(detect):
  place = detect({**GKE, 'MEGASCALE_NUM_SLICES': '3', 'MEGASCALE_SLICE_ID': '1',
                  'MEGASCALE_COORDINATOR_ADDRESS': 'slice-0:8081'}, {})
  assert (place.address, place.count, place.process) == ('slice-0:8482', 6, 3)
  assert place.name(2) == 'process 2'


def test_a_cloud_tpu_machine_is_asked(detect):
  place = detect({}, CLOUD_TPU)
  assert (place.address, place.count, place.process) == ('10.0.0.2:8482', 4, 3)
  place = detect({}, CLOUD_TPU | {
      'tpu-env': "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
                 "MEGASCALE_COORDINATOR_ADDRESS: '10.1.0.2:8080'\n"})
  assert (place.address, place.count, place.process) == ('10.1.0.2:8482', 8, 7)


def test_a_first_host_without_a_name_is_lost(detect, monkeypatch):
  monkeypatch.setattr(cluster, 'DNS_SECONDS', 0)
  with pytest.raises(Lost, match='process 0 of this TPU slice: .*av-0.av'):
    detect(GKE, {})


def test_jaxs_own_variables_come_first(detect):
  place = detect(SLURM | {'JAX_COORDINATOR_ADDRESS': 'h:1', 'JAX_NUM_PROCESSES': '2',
                          'JAX_PROCESS_ID': '1'})
  assert (place.address, place.count, place.process) == ('h:1', 2, 1)


@pytest.mark.parametrize('environ, said', [
    ({'JAX_NUM_PROCESSES': '2'}, 'JAX_COORDINATOR_ADDRESS'),
    ({'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '1', 'JAX_COORDINATOR_ADDRESS': 'h'}, 'PORT'),
    ({'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '2', 'JAX_COORDINATOR_ADDRESS': 'h:1'}, 'below'),
    ({'JAX_NUM_PROCESSES': 'two'}, 'JAX_NUM_PROCESSES=two')])
def test_half_of_what_is_needed_is_told(detect, environ, said):
  with pytest.raises(UserError, match=said):
    detect(environ)


@pytest.mark.parametrize('written, nodes', [
    ('a', ['a']), ('a,b-2', ['a', 'b-2']), ('n[1-3]', ['n1', 'n2', 'n3']),
    ('n[008-010,7],x', ['n008', 'n009', 'n010', 'n7', 'x']),
    ('r[1-2]n[3-4]', ['r1n3', 'r1n4', 'r2n3', 'r2n4']), ('n[1,3]-ib', ['n1-ib', 'n3-ib'])])
def test_lists_of_nodes_are_read_as_slurm_writes_them(written, nodes):
  assert cluster.expand(written) == nodes
