#!/usr/bin/env bash
# Several GPU nodes under Slurm. Submits itself, and is put back into the queue until it is done.
#
#   launch/slurm.sh FLAG... [--dry-run] [--help]
#
# FLAG are those of avlink_jax.main, as --NAME=VALUE; --workdir must lie where all nodes see it.
# --dry-run, wherever it stands, prints the commands instead. What it reads from the environment, and
# the defaults, stand below. Needs .venv with jax[cuda12] on the nodes as well:
#   source launch/env.sh && pip install 'jax[cuda12]'
#
# SIGNAL seconds before the time is up all processes are asked to leave: they save and end with 75.
# That, a hang or a lost host (70) and a second notice (143) put the job back into the queue; a
# mistake (2) does not.
set -euo pipefail
NODES=${NODES:-2}
GPUS=${GPUS:-8}            # a node
PER=${PER:-gpu}            # a process for each gpu, or for each node
CPUS=${CPUS:-64}           # a node
TIME=${TIME:-24:00:00}
SIGNAL=${SIGNAL:-300}
NAME=${NAME:-avlink}
MAX_STARTS=${MAX_STARTS:-100}
SBATCH=${SBATCH:-}         # more of sbatch's flags, such as '--partition=gpu --account=me'
# Slurm runs a copy of this file from a folder of its own, in the folder that it was submitted from.
here=$(dirname "${BASH_SOURCE[0]}")
if [ ! -e "$here/words.sh" ]; then here=${SLURM_SUBMIT_DIR:-.}/launch; fi
# shellcheck source=words.sh
source "$here/words.sh"
# shellcheck source=xla.sh
source "$here/xla.sh"

read_words "$@"
if ((${#words[@]})); then mistake "${words[0]}: no such word; flags are --NAME=VALUE"; fi
if [ "$yes" ]; then mistake '--yes: no such flag (see --help)'; fi
need_config ''
need_counts NODES GPUS CPUS SIGNAL MAX_STARTS
case $PER in
  gpu) tasks=$GPUS ;;
  node) tasks=1 ;;
  *) mistake "PER=$PER: gpu or node" ;;
esac
if ((CPUS < tasks)); then mistake "CPUS=$CPUS: a node runs $tasks processes, each on one at least"; fi

if [ ! "${SLURM_JOB_ID:-}" ] || [ "${SLURM_JOB_NAME:-}" != "$NAME" ] || [ "$dry" ]; then
  need_tool sbatch 'start this on a node that submits to Slurm'
  cd "$root"
  read -ra more <<< "$SBATCH"
  export NODES GPUS PER CPUS NAME MAX_STARTS
  call sbatch --job-name="$NAME" --nodes="$NODES" --ntasks-per-node="$tasks" \
    --gpus-per-node="$GPUS" --cpus-per-task=$((CPUS / tasks)) --time="$TIME" \
    --signal="TERM@$SIGNAL" --requeue --open-mode=append --output="$NAME-%j.log" \
    --export=ALL "${more[@]}" launch/slurm.sh "${flags[@]}"
  if [ ! "$dry" ]; then exit; fi
fi

# In the job. Each process finds the others by what srun tells it
# (avlink_jax/training/resilience/cluster.py); where one fails it ends the others itself, when they
# have said why.
gpu_flags
compiler=(XLA_FLAGS="${XLA_FLAGS:-}")
if [ "${XLA_PYTHON_CLIENT_MEM_FRACTION:-}" ]; then
  compiler+=(XLA_PYTHON_CLIENT_MEM_FRACTION="$XLA_PYTHON_CLIENT_MEM_FRACTION")
fi
status=0
call srun --kill-on-bad-exit=0 --cpus-per-task=$((CPUS / tasks)) \
  env "${compiler[@]}" .venv/bin/python -m avlink_jax.main "${flags[@]}" || status=$?
case $status in
  70 | 75 | 143)
    if ((${SLURM_RESTART_COUNT:-0} < MAX_STARTS)); then
      call scontrol requeue "$SLURM_JOB_ID"
    fi ;;
esac
exit $status
