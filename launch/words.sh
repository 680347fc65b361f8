# shellcheck shell=bash disable=SC2034  # its variables are for the script that sources it
# Sourced by the scripts that start or delete something elsewhere: reads the command line, so that
# --dry-run is dry wherever it stands and a word that nobody knows stops everything.
launch=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$launch")
dry='' yes='' help=''   # 1: --dry-run, --yes, --help is among the words
words=() flags=()       # bare words; flags of avlink_jax.main with their values

mistake() { echo "launch/$(basename "$0"): $1" >&2; exit 2; }

call() {  # runs a command, or shows it
  if [ "$dry" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

main_flags() {  # names of the flags that avlink_jax.main defines, one a line
  tr '\n' ' ' < "$root/avlink_jax/main.py" | grep -oE "DEFINE_[a-z_]+\( *'[a-z_]+'" | \
    grep -oE "[a-z_]+'$" | tr -d "'"
}

read_words() {  # sorts the command line into the variables above; refuses flags that are unknown
  local known word name takes_value=''
  known=$'\n'$(main_flags)$'\nnodistributed\n'
  for word in "$@"; do
    name=${word#-} name=${name#-} name=${name%%=*}
    case $word in
      --dry-run) dry=1 ;;
      --yes) yes=1 ;;
      -h | --help) help=1 ;;
      -config.?* | --config.?* | --noconfig.?*) flags+=("$word") takes_value=$word ;;
      -?*)
        [[ $known == *$'\n'"$name"$'\n'* ]] || mistake "$word: no such flag (see --help)"
        flags+=("$word") takes_value=$word ;;
      *)
        if [[ $takes_value && $takes_value != *=* ]]; then flags+=("$word"); else words+=("$word"); fi
        takes_value='' ;;
    esac
  done
  if [ "$help" ]; then  # the comment that the script begins with
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit
  fi
}

need_config() {  # avlink_jax.main's flags must say what to run, and leave the workdir to WORKDIR
  local flag config='' workdir=''
  for flag in "${flags[@]}"; do
    case $flag in
      -config | --config | -config=* | --config=*) config=1 ;;
      -workdir | --workdir | -workdir=* | --workdir=*) workdir=$flag ;;
    esac
  done
  [ "$config" ] || mistake 'give --config=configs/TASK.py[:SCALE]'
  if [ "${1:-}" ] && [ "$workdir" ]; then mistake "$workdir: the workdir lies in the bucket: $1"; fi
}

need_counts() {  # environment variables of these names hold whole numbers above 0
  local name
  for name in "$@"; do
    [[ ${!name} =~ ^[1-9][0-9]*$ ]] || mistake "$name=${!name}: give a whole number above 0"
  done
}

need_tool() {  # a command that is there, unless nothing is going to be run
  [ "$dry" ] || command -v "$1" > /dev/null || mistake "$1 is not installed here: $2"
}
