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
# Name, numbers (int8: a byte for each of a large matrix), flags besides --config. NAME-first is a
# stage that NAME goes on from, and no file; =OTHER makes NAME a link to the file of OTHER.
WEIGHTS=(
  'mel_features float16'
  'vocoder int8'
  'mel_vae int8'
  't2a int8'
  'base_vae-first - --config.train.steps=3000 --config.train.decay_steps=1500'
  "base_vae int8 --config.train.init_from=$WORK/base_vae-first --config.codec_loss.fixed_encoder=True
    --config.codec_loss.latent_noise=0.2 --config.train.steps=1600 --config.train.decay_steps=800
    --config.train.learning_rate=0.001"
  't2v-first - --config.data.seconds=2.0 --config.data.impacts_clips=6000
    --config.train.steps=4500 --config.train.decay_steps=400'
  "t2v int8 --config.train.init_from=$WORK/t2v-first --config.train.steps=1200
    --config.train.decay_steps=700"
  't2v_pixels int8'
  'v2a int8 --config.sample.count=64'
  'joint int8'
  'a2v =joint'
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
names=()
for line in "${WEIGHTS[@]}"; do
  read -r name numbers _ <<< "${line//$'\n'/ }"
  if [ "$numbers" != - ]; then names+=("$name"); fi
done
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
  read -r name numbers flags <<< "${line//$'\n'/ }"
  run=$WORK/$name file=$ASSETS/$name.safetensors of=${name%-first} pack=()
  if [ "$numbers" = int8 ]; then pack=(int8); fi
  if [ "$only" ] && [[ ",$only," != *",$of,"* ]]; then continue; fi
  if [ -e "$run/bundled" ]; then echo "$name: done" >&2; continue; fi
  if [ "$name" = mel_features ]; then
    call python -m avlink_jax.training.mel_features "$file"
  elif [[ $numbers = =* ]]; then
    call ln -sf "${numbers#=}.safetensors" "$file"
  else
    # shellcheck disable=SC2086  # several flags, or none
    call python -m avlink_jax.main --config="configs/$of.py:nano" --workdir="$run" $flags
    if [ "$numbers" != - ]; then
      call python -m avlink_jax.storage.weights "$run/weights.safetensors" "$file" "${pack[@]}"
    fi
  fi
  call mkdir -p "$run"
  call touch "$run/bundled"
done
