#!/usr/bin/env bash
# Several GPU nodes under Slurm. Submits itself, and is put back into the queue until it is done.
#
#   launch/slurm.sh [--dry-run] FLAG...
#
# FLAG are those of avlink_jax.main; --workdir must lie where all nodes see it. Needs .venv with
# jax[cuda12] there as well:  source launch/env.sh && pip install 'jax[cuda12]'
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

dry=
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi

call() {  # runs a command, or shows it
  if [ "$dry" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

case $PER in
  gpu) tasks=$GPUS ;;
  node) tasks=1 ;;
  *) echo "PER=$PER: gpu or node" >&2; exit 2 ;;
esac

if [ ! "${SLURM_JOB_ID:-}" ] || [ "${SLURM_JOB_NAME:-}" != "$NAME" ] || [ "$dry" ]; then
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  read -ra more <<< "$SBATCH"
  export NODES GPUS PER CPUS NAME MAX_STARTS
  call sbatch --job-name="$NAME" --nodes="$NODES" --ntasks-per-node="$tasks" \
    --gpus-per-node="$GPUS" --cpus-per-task=$((CPUS / tasks)) --time="$TIME" \
    --signal="TERM@$SIGNAL" --requeue --open-mode=append --output="$NAME-%j.log" \
    --export=ALL "${more[@]}" launch/slurm.sh "$@"
  if [ ! "$dry" ]; then exit; fi
fi

# In the job. Each process finds the others by what srun tells it
# (avlink_jax/training/resilience/cluster.py); where one fails it ends the others itself, when they
# have said why.
status=0
call srun --kill-on-bad-exit=0 --cpus-per-task=$((CPUS / tasks)) \
  .venv/bin/python -m avlink_jax.main "$@" || status=$?
case $status in
  70 | 75 | 143)
    if ((${SLURM_RESTART_COUNT:-0} < MAX_STARTS)); then
      call scontrol requeue "$SLURM_JOB_ID"
    fi ;;
esac
exit $status
