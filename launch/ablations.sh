#!/usr/bin/env bash
# Trains, samples and scores the paper's ablations (configs/ablations.py) and writes one report of
# them. Start it again to go on; what is done is kept. Options: launch/ablations.sh --help
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh" launch/ablations.txt
exec python -m avlink_jax.studies.ablations "$@"
