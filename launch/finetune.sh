#!/usr/bin/env bash
# Fine-tunes on a folder of your own clips: looks at them, prepares them, trains, samples held-out
# ones, scores these, and leaves a gallery.
#
#   launch/finetune.sh FOLDER [--task=v2a] [--towers=bundled] [--workdir=DIR] [--dry-run] [--help]
#     [--config.KEY=VALUE ...]
#
# FOLDER: a few hundred videos with sound; sub-folders train/ and test/, or else a tenth is held
# out. --task: v2a, a2v, joint or av. --towers: bundled (small; begins with the bundled weights, two
# cores do) or public (published models, whose hub names or folders AUDIO= and VIDEO= give; needs an
# accelerator). --config.KEY=VALUE goes to training and sampling. --workdir: everything that is made
# (default: runs/finetune-TASK-TOWERS-FOLDER). Start it again to go on: a step that is done with the
# same flags is skipped. For other clips give another --workdir. --dry-run prints the commands.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

mistake() { echo "launch/finetune.sh: $1" >&2; exit 2; }

folder='' task=v2a towers=bundled work='' dry='' extra=()
for word in "$@"; do
  case $word in
    --task=?*) task=${word#*=} ;;
    --towers=?*) towers=${word#*=} ;;
    --workdir=?*) work=${word#*=} ;;
    --dry-run) dry=1 ;;
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    --config.?*=*) extra+=("$word") ;;
    -*) mistake "$word: no such flag; keys are given as --config.KEY=VALUE (see --help)" ;;
    *) [ -z "$folder" ] || mistake "$word: one FOLDER is enough (see --help)"; folder=$word ;;
  esac
done
[[ $task =~ ^(v2a|a2v|joint|av)$ ]] || mistake "--task=$task: give v2a, a2v, joint or av"
[[ $towers =~ ^(bundled|public)$ ]] || mistake "--towers=$towers: give bundled or public"
[ "$folder" ] || mistake 'give a FOLDER of clips (see --help)'
[ -d "$folder" ] || mistake "$folder: no such folder"
[ "$(find -L "$folder" -type f -print -quit 2> /dev/null)" ] || mistake "$folder: no clips in it"
if [ -d "$folder/train" ] && [ ! -d "$folder/test" ]; then
  mistake "$folder: has train/ but no test/, whose clips are sampled and scored"
fi
folder=$(cd "$folder" && pwd)
if [ "$work" ] && [[ $work != /* ]]; then work=$PWD/$work; fi
work=${work:-runs/finetune-$task-$towers-$(basename "$folder")}

if [ "$towers" = bundled ]; then  # few steps at a low rate: the weights are trained already
  config=configs/$task.py:nano
  prepare=(--codec=bundled)
  train=(--config.train.init_from="avlink_jax/assets/nano/$task.safetensors"
    --config.train.steps=1000 --config.train.warmup_steps=50 --config.train.decay_steps=300
    --config.train.learning_rate=5e-4 --config.checkpoint.every=100
    --config.validation.every=100 --config.validation.count=16)
  sample=(--config.sample.upsample=False)
else  # Fusion Blocks begin anew; lengths and sizes are those of configs/public.py
  AUDIO=${AUDIO:-OpenMOSS-Team/MOSS-SoundEffect-v2.0}
  VIDEO=${VIDEO:-Wan-AI/Wan2.1-T2V-1.3B-Diffusers}
  config=configs/$task.py:public
  prepare=(--seconds=5.0625 --fps=16 --height=240 --width=416 --codec="$AUDIO"
    --video_codec="$VIDEO" --audio_text="$AUDIO" --video_text="$VIDEO")
  sample=(--config.frozen.audio="$AUDIO" --config.frozen.video="$VIDEO")
  train=(--config.train.steps=2000 --config.train.decay_steps=500
    --config.train.warmup_steps=200 --config.train.batch_size=8
    --config.validation.every=200 --config.validation.count=16)
fi
sample+=(--config.data.source="$work/records")

step() {  # runs NAME's command unless that very command is done, and all that come after it too
  local name=$1 line status=0
  shift
  line=$(printf '%q ' "$@")
  if [ "$dry" ]; then echo "$line"; return; fi
  if [ ! "$again" ] && [ "$(cat "$work/$name.done" 2> /dev/null)" = "$line" ]; then
    echo "$name: done" >&2
    return
  fi
  again=1
  rm -f "$work/$name.done"
  echo "$name ..." >&2
  "$@" || status=$?
  if [ "$name" = doctor ] && [ "$status" = 1 ]; then
    echo "some clips need a hand: $work/report.html says which; going on without them" >&2
  elif [ "$status" != 0 ]; then
    echo "launch/finetune.sh: $name ended with status $status; its command: $line" >&2
    exit "$status"
  fi
  echo "$line" > "$work/$name.done"
}

cd "$root"
again=''
set --  # a script that is sourced without arguments gets ours
# shellcheck source=env.sh
if [ ! "$dry" ]; then source launch/env.sh; mkdir -p "$work"; fi
step doctor python -m avlink_jax.data.doctor "$folder" --output="$work/report.html"
step prepare python -m avlink_jax.data.prepare --source="$folder" --output="$work/records" \
  "${prepare[@]}"
step train python -m avlink_jax.main --config="$config" --workdir="$work/run" "${sample[@]}" \
  "${train[@]}" "${extra[@]}"
step sample python -m avlink_jax.main --config="$config" --workdir="$work/run" --mode=sample \
  --output="$work/samples" --config.sample.count=64 "${sample[@]}" "${extra[@]}"
step evaluate python -m avlink_jax.main --mode=evaluate --generated="$work/samples" \
  --reference="$work/samples/reference" --output="$work/scores.json"
if [ "$dry" ]; then exit; fi
echo
echo "Done. The gallery: file://$(cd "$work/samples" && pwd)/index.html"
