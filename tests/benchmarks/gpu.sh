#!/usr/bin/env bash
# What only an NVIDIA GPU shows, in one command of at most 9 minutes:
#
#   bash tests/benchmarks/gpu.sh OUT [--minutes=9] [--dry] [PART ...]
#
# writes OUT/results.json and a file for each part (tests/benchmarks/gpu.py lists them). Started
# again it goes on with the parts that OUT does not have yet. --dry: on a CPU, at tiny sizes.
#
# PYTHON names the interpreter, which has jax with CUDA, torch with CUDA, and requirements.txt; what
# it lacks may lie as wheels in the folder that WHEELS names, and is installed beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python3}
path=$PWD:$PWD/tests
if [ -n "${WHEELS:-}" ]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile \
    --target "$site" "$WHEELS"/*.whl
  path=$path:$site
fi
GPU_COMMAND="bash tests/benchmarks/gpu.sh $*" PYTHONPATH=$path${PYTHONPATH:+:$PYTHONPATH} \
  "$python" -m tests.benchmarks.gpu "$@"
