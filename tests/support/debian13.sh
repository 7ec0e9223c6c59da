#!/usr/bin/env bash
# Runs a command on the current line (Debian 13, Python 3.13, TFX 1.21) in a Debian 13 tree of its own, where this
# machine's C library is too old for that line's wheels: `make test-current`.
#   tests/support/debian13.sh make test        this working tree, copied into the tree, with ../shared beside it
#   tests/support/debian13.sh --folder DIR …   DIR of this machine is seen there under the same path
# The tree is made once, under ${XDG_CACHE_HOME:-~/.cache}/tfx-ranking; its packages come from the mirror that apt has.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

suite=trixie
packages=ca-certificates,e2fsprogs,g++,git,make,procps,python3,python3-dev,python3-venv
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tfx-ranking
tree=$cache/debian13
place=/src/tfx-ranking # of the copy, within the tree

main() {
  local folder=""
  [ "${1:-}" != --folder ] || { folder=$2; shift 2; }
  check
  mkdir -p "$cache"
  exec 9>"$tree.lock"
  flock 9 # of two at once the second waits: they share the copy
  [ "$(cat "$tree/packages" 2>/dev/null)" = "$packages" ] || build
  copy
  # Namespaces of its own: whatever is mounted is gone with the command, and so is whatever it started.
  exec unshare --mount --pid --fork --kill-child bash "$0" inside "$tree" "$place" "${folder:--}" "$@"
}

say() { printf '%s\n' "$@" >&2; }

check() {
  local missing=""
  [ "$(id -u)" = 0 ] || missing+=" root (chroot and mounts);"
  command -v debootstrap >/dev/null || missing+=" debootstrap (apt install debootstrap);"
  command -v unshare >/dev/null || missing+=" unshare (apt install util-linux);"
  [ -z "$missing" ] && return
  say "A Debian 13 tree needs what is not here:${missing%;}." \
    "On Debian 13, Ubuntu 24.04 or newer none of it is needed: run \`make test\` with Python 3.11 to 3.13 instead."
  exit 1
}

build() {
  local mirror
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n1)
  say "Making a Debian 13 tree in $tree, once; a minute or two."
  rm -rf "$tree.making"
  # minbase: no init, no services; the tree only lends its C library, Python and compiler.
  debootstrap --variant=minbase --include="$packages" "$suite" "$tree.making" "$mirror" >"$tree.log" 2>&1 ||
    { tail -n 20 "$tree.log" >&2; say "debootstrap failed; its output: $tree.log"; exit 1; }
  echo "$packages" >"$tree.making/packages"
  rm -rf "$tree"
  mv "$tree.making" "$tree"
}

# What git tracks or would, in place of the last copy; its environment stays.
copy() {
  mkdir -p "$tree$place"
  find "$tree$place" -mindepth 1 -maxdepth 1 ! -name .venv ! -name .tools -exec rm -rf {} +
  git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    [ ! -e "$file" ] && [ ! -L "$file" ] || printf '%s\0' "$file" # not what was deleted and not yet committed
  done | tar --create --null --files-from=- | tar --extract --directory "$tree$place"
}

inside() {
  local tree=$1 place=$2 folder=$3 shared
  shift 3
  mount --make-rprivate /
  mount -t proc proc "$tree/proc"
  mount --rbind /dev "$tree/dev"
  cp --dereference /etc/resolv.conf "$tree/etc/resolv.conf"
  cp --dereference /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/" # a proxy's, which this machine trusts
  shared=$(realpath -m "$(dirname "${TFX_RANKING_DATA:-../shared/data}")")
  if [ -d "$shared" ]; then
    mkdir -p "$tree$(dirname "$place")/shared"
    mount --bind "$shared" "$tree$(dirname "$place")/shared"
  fi
  if [ "$folder" != - ]; then
    mkdir -p "$tree$folder"
    mount --bind "$folder" "$tree$folder"
  fi
  # Python's and pyenv's settings of this machine mean nothing there.
  exec env --unset=TFX_RANKING_DATA --unset=TFX_RANKING_REFERENCE --unset=TFX_RANKING_PYTHON --unset=PYENV_VERSION \
    --unset=PYENV_ROOT --unset=PIP_FIND_LINKS --unset=VIRTUAL_ENV --unset=MAKEFLAGS --unset=TMPDIR --unset=TFX_RANKING_MADE HOME=/root LC_ALL=C.UTF-8 TFX_RANKING_DEBIAN_TREE=1 \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$tree" sh -c 'cd "$0" && exec "$@"' "$place" "$@"
}

if [ "${1:-}" = inside ]; then shift; inside "$@"; else main "$@"; fi
