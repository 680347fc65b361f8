#!/usr/bin/env bash
# A Cloud TPU pod slice: the same command on all of its hosts, started again when it is preempted.
#
#   launch/tpu_pod.sh [--dry-run] create | install | run FLAG... | fetch [FOLDER] | delete
#
# FLAG are those of avlink_jax.main. `run` does all: it makes the slice where there is none, installs,
# runs, and begins anew where capacity was taken away or the run asks for it by its exit status; the
# run then goes on from its newest checkpoint. `fetch` copies samples and metrics to FOLDER (runs).
#
# Needs gcloud (logged in, with a project), and a bucket: all hosts write checkpoints into one
# workdir, so the bucket is mounted on each (Cloud Storage FUSE) and the workdir lies in it. One with a
# hierarchical namespace renames folders, which checkpoints need, in one go.
set -euo pipefail
NAME=${NAME:-avlink}
ZONE=${ZONE:-us-east5-a}
TYPE=${TYPE:-v5p-128}                    # gcloud compute tpus accelerator-types list
RUNTIME=${RUNTIME:-v2-alpha-tpuv5}       # v5e: v2-alpha-tpuv5-lite, v6e: v2-alpha-tpuv6e
BUCKET=${BUCKET:?"set BUCKET, the name of a Cloud Storage bucket for the workdir, without gs://"}
WORKDIR=${WORKDIR:-$NAME}                # in the bucket
SPOT=${SPOT:-1}                          # 0: capacity on demand
MAX_STARTS=${MAX_STARTS:-100}
PAUSE=${PAUSE:-30}                       # seconds between two looks at the queue

cd "$(dirname "${BASH_SOURCE[0]}")/.."
dry=
exec {shown}>&1
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi

call() {  # runs a command, or shows it
  if [ "$dry" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

tpus() { call gcloud compute tpus "$@" --zone="$ZONE"; }

everywhere() { tpus tpu-vm ssh "$NAME" --worker=all --command="$1"; }

state() { gcloud compute tpus queued-resources describe "$NAME" --zone="$ZONE" \
            --format='value(state.state)' 2>/dev/null || echo NONE; }

create() {
  local spot=()
  if [ "$SPOT" = 1 ]; then spot=(--spot); fi
  tpus queued-resources create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" \
    --runtime-version="$RUNTIME" "${spot[@]}"
  if [ "$dry" ]; then return; fi
  until [ "$(state)" = ACTIVE ]; do
    case $(state) in
      FAILED | SUSPEND* | NONE) echo "the request for $NAME came to nothing: $(state)" >&2; return 1 ;;
    esac
    echo "$NAME: $(state)" >&2
    sleep "$PAUSE"
  done
}

install() {
  local archive=/tmp/avlink.tar.gz
  call git archive --format=tar.gz --output="$archive" HEAD || return
  tpus tpu-vm scp "$archive" "$NAME:avlink.tar.gz" --worker=all || return
  everywhere "set -e; mkdir -p avlink bucket; tar -xzf avlink.tar.gz -C avlink; \
    python3 -m venv avlink/.venv; \
    avlink/.venv/bin/pip install -q -r avlink/requirements.txt 'jax[tpu]'; \
    which gcsfuse || { curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | \
      sudo tee /usr/share/keyrings/cloud.google.asc > /dev/null; \
      echo 'deb [signed-by=/usr/share/keyrings/cloud.google.asc] \
https://packages.cloud.google.com/apt gcsfuse-jammy main' | \
      sudo tee /etc/apt/sources.list.d/gcsfuse.list; \
      sudo apt-get -q update; sudo apt-get -qy install gcsfuse; }; \
    mountpoint -q bucket || gcsfuse --implicit-dirs --rename-dir-limit=1000000 \
      --metadata-cache-ttl-secs=0 $BUCKET bucket"
}

delete() { tpus queued-resources delete "$NAME" --force --quiet; }

once() {  # one attempt; its exit status on stdout, `gone` where the first host does not answer
  local flags main='.venv/bin/python -m avlink_jax.main'
  flags=$(printf '%q ' "$@" --workdir="../bucket/$WORKDIR")
  everywhere "cd avlink; rm -f status; $main $flags; echo \$? > status" >&"$shown" || true
  if [ "$dry" ]; then echo 0; return; fi
  tpus tpu-vm ssh "$NAME" --worker=0 --command='cat avlink/status' 2>/dev/null || echo gone
}

run() {
  local status
  for ((start = 1; start <= MAX_STARTS; start++)); do
    if [ "$dry" ] || [ "$(state)" != ACTIVE ]; then
      if [ ! "$dry" ] && [ "$(state)" != NONE ]; then delete; fi
      if ! create || ! install; then
        echo "start $start: no slice" >&2
        sleep "$PAUSE"
        continue
      fi
    fi
    status=$(once "$@")
    case $status in
      0) return ;;
      70 | 75 | 143 | gone) echo "start $start ended: $status; again" >&2 ;;
      *) return "$status" ;;
    esac
  done
  echo "given up after $MAX_STARTS starts" >&2
  return 70
}

fetch() {
  local folder=${1:-runs}/$WORKDIR
  call mkdir -p "$folder"
  call gcloud storage rsync --recursive "gs://$BUCKET/$WORKDIR/samples" "$folder/samples"
  call gcloud storage cp "gs://$BUCKET/$WORKDIR/metrics.jsonl" "$folder/"
}

case ${1:-} in
  create | install | run | fetch | delete) "$@" ;;
  *) sed -n '2,6p' "$0" >&2; exit 2 ;;
esac
