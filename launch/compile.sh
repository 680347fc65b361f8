#!/usr/bin/env bash
# Compiles a config's train step and sampler for TPUs that are not there, in an environment of its
# own (.venv-compile, with libtpu). Flags go on to avlink_jax.main:
#   bash launch/compile.sh --config=configs/v2a.py --topology=v5p:4x4x4 --config.mesh.fsdp=8
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$root/.venv-compile}
source "$root/launch/env.sh" launch/compile.txt
exec python -m avlink_jax.main --mode=compile "$@"
