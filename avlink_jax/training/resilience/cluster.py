"""Which of several processes this one is, by what launchers write into the environment.

The variables are those that jax.distributed goes by as well. They are read here since who is
missing has to be told before that has begun, and since its reading of two of them is not ours: on
Slurm it takes the tasks of the allocation for those of the step, so that a shell in an allocation
of eight waits for seven others; and it gives each task the GPU of its number, even where the task
is alone on its host or was given one GPU of its own.
"""

import importlib.util
import os
import pathlib
import re
import typing
import urllib.error
import urllib.request

from avlink_jax.errors import UserError

TPU_PORT, METADATA = 8482, 'http://metadata.google.internal/computeMetadata/v1/instance/attributes/'


class Place(typing.NamedTuple):
  """Process `process` of `count`. `address`: HOST:PORT at which process 0 awaits the others. `by`:
  what said so. `names`: of each process's host, as far as known. `devices`: which of the host's
  GPUs are this process's; None: all that it sees."""
  by: str
  address: str
  count: int
  process: int
  names: tuple = ()
  devices: tuple | None = None

  def name(self, process):
    """A process in words, with its host's name where that is known."""
    host = self.names[process] if process < len(self.names) else ''
    return f'process {process}' + (f' ({host})' if host else '')


def detect(environ=os.environ, metadata=None):
  """The Place of this process, None where it is alone.

  JAX_NUM_PROCESSES comes first, then Open MPI (which may run inside of Slurm), Slurm, GKE and
  Cloud TPU. `metadata`: key -> text, of a Cloud TPU machine (default: asked over HTTP where this is
  one). Raises UserError where something says that there are several and not how to meet.
  """
  for find in (by_hand, open_mpi, slurm, gke):
    if place := find(environ):
      return place
  metadata = metadata or (ask if is_tpu_machine(environ) else None)
  return metadata and cloud_tpu(environ, metadata)


def by_hand(environ):
  """JAX's own three variables."""
  count = number(environ, 'JAX_NUM_PROCESSES')
  if not count or count == 1:
    return None
  address, process = environ.get('JAX_COORDINATOR_ADDRESS'), number(environ, 'JAX_PROCESS_ID')
  if process is None or not re.fullmatch(r'.+:\d+', address or '') or process >= count:
    raise UserError(f'JAX_NUM_PROCESSES={count}: JAX_COORDINATOR_ADDRESS=HOST:PORT and '
                    f'JAX_PROCESS_ID, below {count}, are needed as well')
  # JAX reads JAX_LOCAL_DEVICE_IDS itself
  return Place('JAX_NUM_PROCESSES', address, count, process)


def open_mpi(environ):
  """What mpirun says. Releases from 5 on do not tell where the launcher is."""
  count = number(environ, 'OMPI_COMM_WORLD_SIZE')
  if not count or count == 1:
    return None
  process, local = (number(environ, f'OMPI_COMM_WORLD_{name}') for name in ('RANK', 'LOCAL_RANK'))
  here = number(environ, 'OMPI_COMM_WORLD_LOCAL_SIZE') or 1
  uri = environ.get('OMPI_MCA_orte_hnp_uri', '')
  job = number(environ, 'SLURM_JOB_ID') or int(re.match(r'\d*', uri)[0] or 0) >> 12
  launcher = re.search(r'tcp6?://\[?([^,\]]+?)[],]|tcp://([^:,]+)', uri)
  nodes = environ.get('SLURM_JOB_NODELIST', '')
  if address := environ.get('JAX_COORDINATOR_ADDRESS'):
    pass
  elif here == count:
    address = f'localhost:{port(environ, job)}'
  elif nodes:
    address = f'{expand(nodes)[0]}:{port(environ, job)}'
  elif launcher:
    host = next(filter(None, launcher.groups()))
    address = f'{f"[{host}]" if ":" in host else host}:{port(environ, job)}'
  else:
    raise UserError('Open MPI does not say where process 0 is: give mpirun '
                    '-x JAX_COORDINATOR_ADDRESS=HOST:PORT, of the host of rank 0')
  return Place('Open MPI', address, count, process, (), own_device(environ, local, here))


def slurm(environ):
  """What srun says of its step (not of the allocation it stands in)."""
  count, process = (number(environ, f'SLURM_{name}') for name in ('STEP_NUM_TASKS', 'PROCID'))
  if not count or count == 1 or process is None:
    return None
  nodes = expand(environ['SLURM_STEP_NODELIST'])
  tasks = [int(tasks) for tasks, times in re.findall(
      r'(\d+)(?:\(x(\d+)\))?', environ.get('SLURM_STEP_TASKS_PER_NODE', '')) for _ in
      range(int(times or 1))]
  in_blocks = environ.get('SLURM_DISTRIBUTION', 'block').startswith('block')
  names = [node for node, each in zip(nodes, tasks, strict=False) for _ in range(each)]
  here = tasks[number(environ, 'SLURM_NODEID') or 0] if tasks else 1
  address = environ.get('JAX_COORDINATOR_ADDRESS') or (
      f'{nodes[0]}:{port(environ, number(environ, "SLURM_JOB_ID") or 0)}')
  return Place('Slurm', address, count, process, tuple(names) if in_blocks else (),
               own_device(environ, number(environ, 'SLURM_LOCALID') or 0, here))


def gke(environ):
  """What GKE says in the pods of a TPU slice, or of several."""
  hosts = environ.get('TPU_PROCESS_ADDRESSES') or environ.get('TPU_WORKER_HOSTNAMES')
  worker = number(environ, 'TPU_WORKER_ID')
  return None if not hosts or worker is None else slices('GKE', environ, hosts.split(','), worker)


def cloud_tpu(environ, metadata):
  """What the metadata server of a Cloud TPU machine says."""
  worker, hosts = metadata('agent-worker-number'), metadata('worker-network-endpoints')
  if not worker or not hosts:
    return None
  hosts = [host.split(':')[-1] for host in hosts.split(',')]  # HOST, or NAME:ID:IP
  told = dict(re.findall(r"^\s*(MEGASCALE_\w+)\s*:\s*'?([^'\n]*)'?\s*$", metadata('tpu-env') or '',
                         re.MULTILINE))
  return slices('Cloud TPU', {**told, **environ}, hosts, int(worker))


def slices(by, environ, hosts, worker):
  """Place of a `worker` of a slice that has `hosts`, of perhaps several slices of that size."""
  many, which = (number(environ, f'MEGASCALE_{name}') for name in ('NUM_SLICES', 'SLICE_ID'))
  many, which = many or 1, which or 0
  if many * len(hosts) == 1:
    return None
  first = environ.get('MEGASCALE_COORDINATOR_ADDRESS', hosts[0]).split(':')[0]
  names = [''] * (which * len(hosts)) + list(hosts)  # of the other slices none are known
  return Place(by, f'{first}:{environ.get("JAX_COORDINATOR_PORT", TPU_PORT)}', many * len(hosts),
               which * len(hosts) + worker, tuple(names))


def is_tpu_machine(environ):
  """Whether it is worth asking a metadata server: nobody else waits for one."""
  return ('tpu' in environ.get('JAX_PLATFORMS', 'tpu') and 'TPU_SKIP_MDS_QUERY' not in environ
          and importlib.util.find_spec('libtpu') is not None
          and (any(pathlib.Path('/dev').glob('accel*'))
               or any(pathlib.Path('/dev/vfio').glob('[0-9]*'))))


def ask(key):
  """An attribute of this Google Cloud machine, None where it has none."""
  request = urllib.request.Request(METADATA + key, headers={'Metadata-Flavor': 'Google'})
  try:
    with urllib.request.urlopen(request, timeout=5) as answer:
      return answer.read().decode()
  except (urllib.error.URLError, TimeoutError):
    return None


def number(environ, name):
  """An integer of the environment, None where it is not set; UserError where it is none."""
  value = environ.get(name)
  if not value:
    return None
  if not value.isdecimal():
    raise UserError(f'{name}={value}: a number is needed')
  return int(value)


def port(environ, job):
  """Where process 0 awaits the others: the same on all hosts, another one for the next job."""
  return environ.get('JAX_COORDINATOR_PORT') or 65535 - 2**12 + 1 + job % 2**12


def own_device(environ, local, here):
  """The GPU of the `local`-th of `here` processes on a host, as (number,); None: all it sees."""
  seen = environ.get('CUDA_VISIBLE_DEVICES', '')
  return None if here == 1 or (seen and ',' not in seen) else (local,)


def expand(nodes):
  """'gpu[01-03,07],login' -> ['gpu01', 'gpu02', 'gpu03', 'gpu07', 'login'], as Slurm writes."""
  found = []
  for one in re.findall(r'(?:[^,\[]|\[[^]]*\])+', nodes):
    begin, bracket, rest = one.partition('[')
    if not bracket:
      found.append(one)
      continue
    ranges, _, end = rest.partition(']')
    for span in ranges.split(','):
      low, _, high = span.partition('-')
      found += [f'{begin}{i:0{len(low)}}{tail}' for i in range(int(low), int(high or low) + 1)
                for tail in (expand(end) if end else [''])]
  return found
