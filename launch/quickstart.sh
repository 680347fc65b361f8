#!/usr/bin/env bash
# Makes the environment, trains video-to-audio at nano scale from the bundled frozen towers, and
# leaves a gallery of held-out clips with generated audio. Two cores, no GPU, under 15 minutes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
workdir=${1:-runs/quickstart}
python -m avlink_jax.main --config=configs/v2a.py:nano --workdir="$workdir" \
  --config.sample.count=64
# shellcheck disable=SC2012  # its names are our own
gallery=$(ls -td "$workdir"/samples/step_*/index.html | head -n 1)
echo
echo "Done. The gallery: file://$(cd "$(dirname "$gallery")" && pwd)/index.html"
