#!/usr/bin/env bash
# TPU slices of a GKE cluster, by a JobSet: launch/gke_jobset.yaml, filled in and applied.
#
#   launch/gke_jobset.sh FLAG... [--dry-run] [--help]
#
# FLAG are those of avlink_jax.main, as --NAME=VALUE. --dry-run, wherever it stands, prints the JobSet
# instead. What it reads from the environment, and the defaults, stand below. IMAGE is made of:
#   FROM python:3.12
#   COPY . /app
#   WORKDIR /app
#   RUN pip install -r requirements.txt 'jax[tpu]'
set -euo pipefail
export IMAGE=${IMAGE:-}                              # a container image of this repository
export BUCKET=${BUCKET:-}                            # of Cloud Storage, its name without gs://
export NAME=${NAME:-avlink}
export WORKDIR=${WORKDIR:-$NAME}                     # in the bucket
export ACCELERATOR=${ACCELERATOR:-tpu-v5p-slice}     # v5e: tpu-v5-lite-podslice
export TOPOLOGY=${TOPOLOGY:-4x4x4}
export HOSTS=${HOSTS:-16}                            # a slice: its chips / CHIPS
export CHIPS=${CHIPS:-4}                             # a host
export SLICES=${SLICES:-1}
export MAX_RESTARTS=${MAX_RESTARTS:-100}
export SERVICE_ACCOUNT=${SERVICE_ACCOUNT:-default}   # one that may write to the bucket
source "$(dirname "${BASH_SOURCE[0]}")/words.sh"
# shellcheck source=xla.sh
source "$launch/xla.sh"

filled() {
  python3 -c '
import json, os, string, sys
flags = [*sys.argv[2:], "--workdir=/bucket/" + os.environ["WORKDIR"]]
libtpu = json.dumps(os.environ.get("LIBTPU_INIT_ARGS", ""))
template = string.Template(open(sys.argv[1]).read())
print(template.substitute(os.environ, ARGS=json.dumps(flags), LIBTPU=libtpu), end="")' \
    "$launch/gke_jobset.yaml" "${flags[@]}"
}

read_words "$@"
if ((${#words[@]})); then mistake "${words[0]}: no such word; flags are --NAME=VALUE"; fi
if [ "$yes" ]; then mistake '--yes: no such flag (see --help)'; fi
[ "$IMAGE" ] || mistake 'set IMAGE, a container image of this repository (see --help)'
[ "$BUCKET" ] || mistake 'set BUCKET, the name of a Cloud Storage bucket, without gs://'
need_config 'set WORKDIR'
need_counts HOSTS CHIPS SLICES MAX_RESTARTS
need_tool kubectl 'install it and give it the cluster (gcloud container clusters get-credentials)'
tpu_flags
if [ "$dry" ]; then filled; else filled | kubectl apply -f -; fi
