#!/usr/bin/env bash
# Makes .venv beside this repository's files and installs dciml in it, at the versions of constraints.txt.
# Does nothing when the environment is up to date. Usage: scripts/setup.sh [EXTRA]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extra="${1:-dev}"
python="${PYTHON:-python3.11}"
command -v "$python" >/dev/null || python=python3

make_venv() {
  rm -rf .venv
  "$python" -m venv .venv 2>/dev/null && return
  # Debian and Ubuntu keep `venv` in a package of its own.
  local package as_root=()
  package="$(basename "$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')")-venv"
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  echo "python has no venv: installing $package" >&2
  "${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install -qq -y "$package" >&2
  rm -rf .venv
  "$python" -m venv .venv
}

stamp=".venv/.installed-$extra"
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ constraints.txt -nt "$stamp" ]; then
  [ -x .venv/bin/pip ] || make_venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$extra]"
  touch "$stamp"
fi
