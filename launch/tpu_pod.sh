#!/usr/bin/env bash
# A Cloud TPU pod slice: the same command on all of its hosts, started again when it is preempted.
#
#   launch/tpu_pod.sh COMMAND [FLAG...] [--dry-run] [--help]
#
#   create           asks for the slice and waits for it
#   install          copies this repository to it, with what it needs
#   run FLAG...      all of it: makes the slice where there is none, installs, runs, begins anew where
#                    capacity was taken away or the run asks for it by its exit status; the run then
#                    goes on from its newest checkpoint
#   fetch [FOLDER]   copies samples and metrics to FOLDER (default: runs)
#   delete           gives the slice back; asks before, or takes --yes
#
# FLAG are those of avlink_jax.main, as --NAME=VALUE. --dry-run, wherever it stands, prints the
# commands instead. What it reads from the environment, and the defaults, stand below.
#
# Needs gcloud (logged in, with a project), and a bucket: all hosts write checkpoints into one
# workdir, so the bucket is mounted on each (Cloud Storage FUSE) and the workdir lies in it. One with a
# hierarchical namespace renames folders, which checkpoints need, in one go.
set -euo pipefail
NAME=${NAME:-avlink}
ZONE=${ZONE:-us-east5-a}
TYPE=${TYPE:-v5p-128}                    # gcloud compute tpus accelerator-types list
RUNTIME=${RUNTIME:-v2-alpha-tpuv5}       # v5e: v2-alpha-tpuv5-lite, v6e: v2-alpha-tpuv6e
BUCKET=${BUCKET:-}                       # name of a Cloud Storage bucket, without gs://
WORKDIR=${WORKDIR:-$NAME}                # in the bucket
SPOT=${SPOT:-1}                          # 0: capacity on demand
MAX_STARTS=${MAX_STARTS:-100}
PAUSE=${PAUSE:-30}                       # seconds between two looks at the queue
source "$(dirname "${BASH_SOURCE[0]}")/words.sh"
# shellcheck source=xla.sh
source "$launch/xla.sh"

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

confirmed() {  # whether the slice is to be deleted: --yes, or a yes on the terminal
  local answer=''
  if [ "$dry" ] || [ "$yes" ]; then return; fi
  [ -t 0 ] || mistake "delete $NAME: there is no terminal to ask on: add --yes"
  read -r -p "delete the slice $NAME in $ZONE, whatever runs on it? [y/N] " answer || true
  [[ $answer = [yY]* ]] || mistake "delete $NAME: not done"
}

once() {  # one attempt; its exit status on stdout, `gone` where the first host does not answer
  local args main='.venv/bin/python -m avlink_jax.main'
  args=$(printf '%q ' "${flags[@]}" --workdir="../bucket/$WORKDIR")
  main="LIBTPU_INIT_ARGS=$(printf '%q' "${LIBTPU_INIT_ARGS:-}") $main"
  everywhere "cd avlink; rm -f status; $main $args; echo \$? > status" >&"$shown" || true
  if [ "$dry" ]; then echo 0; return; fi
  tpus tpu-vm ssh "$NAME" --worker=0 --command='cat avlink/status' 2>/dev/null || echo gone
}

run() {
  local status start
  for ((start = 1; start <= MAX_STARTS; start++)); do
    if [ "$dry" ] || [ "$(state)" != ACTIVE ]; then
      if [ ! "$dry" ] && [ "$(state)" != NONE ]; then delete; fi
      if ! create || ! install; then
        echo "start $start: no slice" >&2
        sleep "$PAUSE"
        continue
      fi
    elif [ "$start" = 1 ] && ! install; then  # it may have been made by `create` alone
      echo "start $start: nothing could be installed" >&2
      sleep "$PAUSE"
      continue
    fi
    status=$(once)
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

read_words "$@"
command=${words[0]:-}
case $command in
  create | install | run | fetch | delete) ;;
  '') mistake 'say what: create, install, run FLAG..., fetch [FOLDER], delete (see --help)' ;;
  *) mistake "$command: create, install, run FLAG..., fetch [FOLDER] or delete (see --help)" ;;
esac
most=1
if [ "$command" = fetch ]; then most=2; fi
if ((${#words[@]} > most)); then mistake "${words[most]}: no such word; flags are --NAME=VALUE"; fi
if [ "$command" != run ] && ((${#flags[@]})); then mistake "$command takes no ${flags[0]}"; fi
if [ "$command" != delete ] && [ "$yes" ]; then mistake "$command takes no --yes"; fi
case $command in
  install | run | fetch)
    [ "$BUCKET" ] || mistake 'set BUCKET, the name of a Cloud Storage bucket, without gs://' ;;
esac
need_counts MAX_STARTS
need_tool gcloud 'install the Google Cloud CLI and log in'

cd "$root"
exec {shown}>&1
case $command in
  run) need_config 'set WORKDIR'; tpu_flags; run ;;
  fetch) fetch "${words[1]:-}" ;;
  delete) confirmed; delete ;;
  *) "$command" ;;
esac
