#!/usr/bin/env bash
# Makes the bundled weights (avlink_jax/assets/nano) from scratch, and overwrites those there are.
#
#   launch/bundled.sh [--only=NAME,...] [--dry-run] [--help]
#
# In the order in which they build on each other; takes hours on two cores. Start it again to go on:
# a run resumes by itself, and what is done (WORK/NAME/bundled is there) is skipped. WORK is the
# folder of the runs (default: runs/bundled). --only: these alone; what builds on them stays as it
# is, and fits no longer. --dry-run prints the commands. The weights as they were:
#   git checkout avlink_jax/assets/nano
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WORK=${WORK:-runs/bundled}
ASSETS=avlink_jax/assets/nano
WEIGHTS=(  # name, numbers (int8: a byte for each of a large matrix), flags besides --config
  'mel_features float16'
  'vocoder float16'
  'mel_vae float16'
  't2a int8'
  't2v int8'
  'v2a float16 --config.sample.count=64'
  'a2v int8'
  'joint float16'
  "av int8 --config.train.init_from=$ASSETS/joint.safetensors"
  'video_vae int8'
  'upsampler int8'
)

mistake() { echo "launch/bundled.sh: $1" >&2; exit 2; }

only='' dry=''
for flag in "$@"; do
  case $flag in
    --only=?*) only=${flag#--only=} ;;
    --dry-run) dry=1 ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    *) mistake "$flag: use --only=NAME,..., --dry-run or --help" ;;
  esac
done
names=("${WEIGHTS[@]%% *}")
for name in ${only//,/ }; do
  [[ " ${names[*]} " == *" $name "* ]] || mistake "--only=$name: give some of ${names[*]}"
done

call() {  # runs a command, or shows it
  if [ "$dry" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

cd "$root"
set --  # a script that is sourced without arguments gets ours
if [ ! "$dry" ]; then source launch/env.sh; fi
for line in "${WEIGHTS[@]}"; do
  read -r name numbers flags <<< "$line"
  run=$WORK/$name file=$ASSETS/$name.safetensors pack=()
  if [ "$numbers" = int8 ]; then pack=(int8); fi
  if [ "$only" ] && [[ ",$only," != *",$name,"* ]]; then continue; fi
  if [ -e "$run/bundled" ]; then echo "$name: done" >&2; continue; fi
  if [ "$name" = mel_features ]; then
    call python -m avlink_jax.training.mel_features "$file"
  else
    # shellcheck disable=SC2086  # several flags, or none
    call python -m avlink_jax.main --config="configs/$name.py:nano" --workdir="$run" $flags
    call python -m avlink_jax.storage.weights "$run/weights.safetensors" "$file" "${pack[@]}"
  fi
  call mkdir -p "$run"
  call touch "$run/bundled"
done
