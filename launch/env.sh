# shellcheck shell=bash
# Sourced by the other scripts: makes .venv once, installs what is listed, and activates it.
#   source launch/env.sh [REQUIREMENTS...]
# PYTHON names another interpreter, VENV another folder.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || return
venv=${VENV:-$root/.venv}

find_python() {
  for python in ${PYTHON:-python3.12 python3.11 python3}; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  echo 'avlink_jax needs Python 3.11 or newer: install it, or name it in PYTHON=' >&2
  return 1
}

if [ ! -x "$venv/bin/python" ]; then
  "$(find_python)" -m venv "$venv"
fi
wanted=$(cat requirements.txt "$@" | cksum)
if [ "$(cat "$venv/installed" 2>/dev/null)" != "$wanted" ]; then
  echo "installing into $venv ..." >&2
  list=(-r requirements.txt)
  for file in "$@"; do list+=(-r "$file"); done
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${list[@]}"
  echo "$wanted" > "$venv/installed"
fi
export PATH="$venv/bin:$PATH"
