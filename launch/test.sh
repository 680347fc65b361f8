#!/usr/bin/env bash
# Makes the environment, lints, checks types, runs the tests. Arguments go to pytest: -k flow
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh" tests/requirements.txt
export JAX_PLATFORMS=cpu
ruff check .
mypy  # of the public functions: pyproject.toml
# Two processes, each of them on one core's worth of threads; files in the order of tests/conftest.py.
export OMP_NUM_THREADS=1
exec python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder "$@"
