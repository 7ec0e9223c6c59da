#!/usr/bin/env bash
# Makes the one environment, .venv, from the lock file of the Python that fits this machine. `make` calls it before
# every target; with nothing changed it returns at once.
#   ./setup.sh         set up, or do nothing
#   ./setup.sh which   only say which Python would be taken, as "version path"
#   ./setup.sh lock    pin requirements/py3*.txt again (pins that still fit stay; delete a file to upgrade it)
# TFX_RANKING_PYTHON=/path/to/python takes that Python; NO_UV=1 uses venv and pip even where uv can be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export UV_PYTHON_DOWNLOADS=never  # an interpreter is chosen here, in the open, never fetched in passing

main() {
  case "${1:-}" in
    which) choose_python ;;
    lock) lock ;;
    "") [ "$(cat .venv/setup-stamp 2>/dev/null)" = "$(stamp)" ] && [ -x .venv/bin/python ] || set_up ;;
    *) say "setup.sh: '$1' is no command; use none, which or lock."; exit 2 ;;
  esac
}

say() { printf '%s\n' "$@" >&2; }

# What an environment depends on: the pins, the package's own metadata, this script, the folder (an editable install).
stamp() { { cat pyproject.toml requirements/*.txt setup.sh; pwd; echo "${TFX_RANKING_PYTHON:-}"; } | sha256sum; }

set_up() {
  exec 9<. && flock 9 # two `make`s at once: the second waits, then finds the stamp
  [ "$(cat .venv/setup-stamp 2>/dev/null)" = "$(stamp)" ] && [ -x .venv/bin/python ] && return
  local chosen version python lock
  chosen=$(choose_python)
  version=${chosen%% *} python=${chosen#* }
  lock=requirements/py${version/./}.txt
  check_compiler "$python"
  say "Setting up .venv with Python $version ($python) and $lock; minutes the first time, where nothing is cached."
  rm -f .venv/setup-stamp
  [ "$(probe .venv/bin/python)" = "$(probe "$python")" ] || rm -rf .venv
  local uv
  uv=$(find_uv "$python") && with_uv "$uv" "$python" "$lock" || with_pip "$python" "$lock"
  stamp >.venv/setup-stamp
  say "Done: .venv has everything, every extra included."
}

with_uv() {
  [ -x .venv/bin/python ] || "$1" venv --quiet --python "$2" .venv || return
  # `sync` makes the environment equal to the pins, our own package (without its dependencies) beside them.
  printf -- '-e .\n' | "$1" pip sync --quiet --python .venv/bin/python "$3" - && return
  say "uv could not install the pins (see above); trying pip."
  return 1
}

with_pip() {
  "$1" -m venv .venv || { say "python3-venv is missing: install it (Debian, Ubuntu: apt install python3-venv), or install uv."; exit 1; }
  .venv/bin/python -m pip install --quiet --use-pep517 --no-deps -r "$2"
  .venv/bin/python -m pip install --quiet --use-pep517 --no-deps -e .
}

# Prints the path of uv: from PATH, else from the local tool folder, where it is installed on first use.
find_uv() {
  [ -z "${NO_UV:-}" ] || return 1
  command -v uv && return
  if ! .tools/bin/uv --version >/dev/null 2>&1; then
    "$1" -m venv .tools >/dev/null 2>&1 && .tools/bin/python -m pip install -qq uv >&2 || {
      say "uv is not here and could not be installed; going on with venv and pip, which is slower."
      return 1
    }
  fi
  echo .tools/bin/uv
}

# Prints "version path" of the Python to take; ends with what to install where none fits.
choose_python() {
  local glibc pythons version path
  [ "$(uname -s) $(uname -m)" = "Linux x86_64" ] ||
    { say "tfx-ranking needs Linux on x86_64, the only one TFX has wheels for; this is $(uname -s) on $(uname -m)."; exit 1; }
  glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2) || glibc=""
  at_least "${glibc:-0}" 2.17 ||
    { say "TFX's wheels need glibc 2.17 or newer; here is ${glibc:-another C library}. Use a Debian, Ubuntu or RHEL of this decade."; exit 1; }
  pythons=$(found_pythons)
  # Python 3.10 (TFX 1.16) first: it runs everywhere. TFX 1.21's wheels need glibc 2.39.
  for version in 3.10 3.13 3.12 3.11; do
    [ $version = 3.10 ] || at_least "$glibc" 2.39 || continue
    path=$(awk -v v=$version '$1 == v { sub(/^[^ ]* /, ""); print; exit }' <<<"$pythons")
    [ -z "$path" ] || { echo "$version $path"; return; }
  done
  say "No Python here fits TFX." \
    "  glibc is $glibc; Pythons found: $(paste -sd';' <<<"${pythons:-none}" | sed 's/;/; /g')." \
    "  Python 3.10 (TFX 1.16) runs on any glibc from 2.17 on; Python 3.11 to 3.13 (TFX 1.21) need glibc 2.39."
  if at_least "$glibc" 2.39; then
    say "Install Python 3.10 or 3.13, for instance: uv python install 3.10, pyenv install 3.10, or apt install python3-dev python3-venv"
  else
    say "Install Python 3.10, for instance: uv python install 3.10, or pyenv install 3.10"
  fi
  say "and run the same command again. A Python elsewhere is taken by TFX_RANKING_PYTHON=/path/to/python."
  exit 1
}

at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

# One line "version path" for each interpreter that starts: on PATH, then pyenv's, then uv's.
found_pythons() {
  local name path
  if [ -n "${TFX_RANKING_PYTHON:-}" ]; then probe "$TFX_RANKING_PYTHON"; return; fi
  {
    for name in python3.10 python3.11 python3.12 python3.13 python3; do type -aP $name || true; done
    for path in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[0-3].*/bin/python; do echo "$path"; done
    uv python list --only-installed 2>/dev/null | awk '{print $2}' || true
  } | while read -r path; do probe "$path"; done | awk '!seen[$0]++'
}

# "version path" of a CPython that starts, the path being the real one behind links, pyenv's shims and environments.
probe() {
  "$1" -c 'import os, platform, sys
if platform.python_implementation() == "CPython":
    print("%d.%d" % sys.version_info[:2], os.path.realpath(sys.executable))' 2>/dev/null || true
}

# pyfarmhash, under TFX, has no wheel and is compiled.
check_compiler() {
  local headers
  headers=$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')
  command -v c++ >/dev/null || command -v g++ >/dev/null || { say "A C++ compiler is missing (pyfarmhash, under TFX, has no wheel): apt install g++"; exit 1; }
  [ -f "$headers/Python.h" ] || { say "$headers/Python.h is missing (pyfarmhash, under TFX, has no wheel): apt install python3-dev"; exit 1; }
}

lock() {
  local uv version platform
  uv=$(find_uv "$(choose_python | cut -d' ' -f2-)") || { say "Pinning needs uv."; exit 1; }
  for version in 3.10 3.11 3.12 3.13; do
    platform=x86_64-manylinux_2_39
    [ $version != 3.10 ] || platform=x86_64-manylinux2014
    # No index or file address may get into a pin file: it is read on other machines.
    "$uv" pip compile --quiet pyproject.toml --all-extras --python-version $version --python-platform $platform \
      --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
      --output-file "requirements/py${version/./}.txt"
  done
}

main "$@"
