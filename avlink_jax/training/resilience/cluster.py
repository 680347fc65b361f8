"""Which of several processes this one is, before they meet (rendezvous.py).

JAX detects clusters by itself, and of TPU machines it is JAX that is asked. Two others are read
here, for who trains on several GPUs:

Slurm. JAX takes the tasks of the allocation for those of the step, so that a shell in an allocation
of eight waits for seven others.
Open MPI. From release 5 on JAX needs mpi4py, though the variables say all but the address.

And with both JAX gives each process the GPU of its number, even where the process is alone on its
host or was given one GPU of its own.
"""

import os
import re
import typing

from avlink_jax.errors import Lost, UserError

DNS_SECONDS = 300  # that the first process's host may take to have a name
BY_HAND = 'JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID'


class Place(typing.NamedTuple):
  """Process `process` of `count`. `address`: HOST:PORT at which process 0 awaits the others.
  `names`: of each process's host, as far as known. `devices`: which of the host's GPUs are this
  process's; None: all that it sees."""
  address: str
  count: int
  process: int
  names: tuple = ()
  devices: tuple | None = None

  def name(self, process):
    """A process in words, with its host's name where that is known."""
    host = self.names[process] if process < len(self.names) else ''
    return f'process {process}' + (f' ({host})' if host else '')


def detect():
  """The Place of this process, None where it is alone.

  JAX_NUM_PROCESSES comes first, then Open MPI (which may run inside of Slurm), Slurm and TPUs.
  Raises UserError where something says that there are several and not how to meet, and Lost where
  a name of the first host is not known in time.
  """
  return by_hand() or open_mpi() or slurm() or tpu()


def by_hand():
  """JAX's own three variables; JAX_LOCAL_DEVICE_IDS it reads itself."""
  count = number('JAX_NUM_PROCESSES')
  if not count or count == 1:
    return None
  address, process = os.environ.get('JAX_COORDINATOR_ADDRESS'), number('JAX_PROCESS_ID')
  if process is None or not re.fullmatch(r'.+:\d+', address or '') or process >= count:
    raise UserError(f'JAX_NUM_PROCESSES={count}: JAX_COORDINATOR_ADDRESS=HOST:PORT and '
                    f'JAX_PROCESS_ID, below {count}, are needed as well')
  return Place(address, count, process)


def open_mpi():
  """What mpirun says."""
  count = number('OMPI_COMM_WORLD_SIZE')
  if not count or count == 1:
    return None
  process, local, here = (
      number(f'OMPI_COMM_WORLD_{name}') for name in ('RANK', 'LOCAL_RANK', 'LOCAL_SIZE'))
  address = os.environ.get('JAX_COORDINATOR_ADDRESS')
  if not address and 'OMPI_MCA_orte_hnp_uri' in os.environ:  # releases before 5
    from jax._src.clusters import OmpiCluster
    address = OmpiCluster.get_coordinator_address(
        timeout_secs=DNS_SECONDS, override_coordinator_port=os.environ.get('JAX_COORDINATOR_PORT'))
  if not address:
    raise UserError('Open MPI does not say where process 0 is: give mpirun '
                    '-x JAX_COORDINATOR_ADDRESS=HOST:PORT, of the host of rank 0')
  return Place(address, count, process, (), own_device(local, here))


def slurm():
  """What srun says of its step (not of the allocation it stands in)."""
  count, process = number('SLURM_STEP_NUM_TASKS'), number('SLURM_PROCID')
  if not count or count == 1 or process is None:
    return None
  nodes = expand(os.environ['SLURM_STEP_NODELIST'])
  tasks = [int(tasks) for tasks, times in re.findall(
      r'(\d+)(?:\(x(\d+)\))?', os.environ.get('SLURM_STEP_TASKS_PER_NODE', '')) for _ in
      range(int(times or 1))]
  in_blocks = os.environ.get('SLURM_DISTRIBUTION', 'block').startswith('block')
  names = [node for node, each in zip(nodes, tasks, strict=False) for _ in range(each)]
  # The same port on all hosts, another one for the next job.
  port = (os.environ.get('JAX_COORDINATOR_PORT')
          or 65535 - 2**12 + 1 + (number('SLURM_JOB_ID') or 0) % 2**12)
  return Place(os.environ.get('JAX_COORDINATOR_ADDRESS') or f'{nodes[0]}:{port}', count, process,
               tuple(names) if in_blocks else (),
               own_device(number('SLURM_LOCALID') or 0,
                          tasks[number('SLURM_NODEID') or 0] if tasks else 1))


def tpu():
  """What JAX knows of the hosts of a TPU slice, or of several: on GKE, or a Cloud TPU machine."""
  if 'tpu' not in (os.environ.get('JAX_PLATFORMS') or 'tpu'):
    return None
  from jax._src.clusters import GceTpuCluster, GkeTpuCluster
  try:
    found = next((one for one in (GkeTpuCluster, GceTpuCluster) if one.is_env_present()), None)
    if found is None or found.get_process_count() == 1:
      return None
    address = os.environ.get('JAX_COORDINATOR_ADDRESS') or found.get_coordinator_address(
        timeout_secs=DNS_SECONDS, override_coordinator_port=os.environ.get('JAX_COORDINATOR_PORT'))
    count, hosts = found.get_process_count(), found._get_worker_list_in_slice()
    names = tuple(hosts) if len(hosts) == count else ()  # of other slices none are known
    return Place(address, count, found.get_process_id(), names)
  except OSError:  # a TPU without the server that would know of others
    return None
  except RuntimeError as error:
    raise Lost(f'process 0 of this TPU slice: {error}') from None
  except ValueError as error:
    raise UserError(f'the hosts of this TPU slice: {error}: set {BY_HAND}') from None


def number(name):
  """An integer of the environment, None where it is not set; UserError where it is none."""
  value = os.environ.get(name)
  if not value:
    return None
  if not value.isdecimal():
    raise UserError(f'{name}={value}: a number is needed')
  return int(value)


def own_device(local, here):
  """The GPU of the `local`-th of `here` processes on a host, as (number,); None: all it sees."""
  visible = os.environ.get('CUDA_VISIBLE_DEVICES', '')
  return None if (here or 1) == 1 or (visible and ',' not in visible) else (local,)


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
