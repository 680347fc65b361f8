#!/usr/bin/env bash
# TPU slices of a GKE cluster, by a JobSet: launch/gke_jobset.yaml, filled in and applied.
#
#   launch/gke_jobset.sh [--dry-run] FLAG...
#
# FLAG are those of avlink_jax.main. --dry-run prints the JobSet. IMAGE is made of three lines:
#   FROM python:3.12
#   COPY . /app
#   WORKDIR /app
#   RUN pip install -r requirements.txt 'jax[tpu]'
set -euo pipefail
export IMAGE=${IMAGE:?"set IMAGE, a container image of this repository (see $0)"}
export BUCKET=${BUCKET:?"set BUCKET, the name of a Cloud Storage bucket for the workdir, without gs://"}
export NAME=${NAME:-avlink}
export WORKDIR=${WORKDIR:-$NAME}                     # in the bucket
export ACCELERATOR=${ACCELERATOR:-tpu-v5p-slice}     # v5e: tpu-v5-lite-podslice
export TOPOLOGY=${TOPOLOGY:-4x4x4}
export HOSTS=${HOSTS:-16}                            # a slice: its chips / CHIPS
export CHIPS=${CHIPS:-4}                             # a host
export SLICES=${SLICES:-1}
export MAX_RESTARTS=${MAX_RESTARTS:-100}
export SERVICE_ACCOUNT=${SERVICE_ACCOUNT:-default}   # one that may write to the bucket

cd "$(dirname "${BASH_SOURCE[0]}")"
dry=
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi

filled() {
  python3 -c '
import json, os, string, sys
flags = [*sys.argv[1:], "--workdir=/bucket/" + os.environ["WORKDIR"]]
template = string.Template(open("gke_jobset.yaml").read())
print(template.substitute(os.environ, ARGS=json.dumps(flags)), end="")' "$@"
}

if [ "$dry" ]; then filled "$@"; else filled "$@" | kubectl apply -f -; fi
