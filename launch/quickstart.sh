#!/usr/bin/env bash
# Makes the environment, trains video-to-audio at nano scale from the bundled frozen towers, and
# leaves a gallery of held-out clips with generated audio. Two cores, no GPU, under 15 minutes.
#
#   launch/quickstart.sh [WORKDIR] [--dry-run] [--help]
#
# WORKDIR: folder of the run (default: runs/quickstart). --dry-run prints the command instead.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/words.sh"
read_words "$@"
if ((${#words[@]} > 1)); then mistake "${words[1]}: one WORKDIR is enough (see --help)"; fi
if ((${#flags[@]})); then mistake "${flags[0]}: takes WORKDIR alone (see --help)"; fi
if [ "$yes" ]; then mistake '--yes: no such flag (see --help)'; fi
workdir=${words[0]:-runs/quickstart}
set --  # a script that is sourced without arguments gets ours
# shellcheck source=env.sh
if [ "$dry" ]; then cd "$root"; else source "$launch/env.sh"; fi
call python -m avlink_jax.main --config=configs/v2a.py:nano --workdir="$workdir" \
  --config.sample.count=64
if [ "$dry" ]; then exit; fi
# shellcheck disable=SC2012  # its names are our own
gallery=$(ls -td "$workdir"/samples/step_*/index.html | head -n 1)
echo
echo "Done. The gallery: file://$(cd "$(dirname "$gallery")" && pwd)/index.html"
