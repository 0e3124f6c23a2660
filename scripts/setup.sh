#!/usr/bin/env bash
# Makes .venv beside this repository's files and installs dciml in it, at the versions of constraints.txt.
# Does nothing when the environment is up to date. Usage: scripts/setup.sh [EXTRA]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extra="${1:-dev}"
python="${PYTHON:-python3.11}"
command -v "$python" >/dev/null || python=python3
stamp=".venv/.installed-$extra"
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ constraints.txt -nt "$stamp" ]; then
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$extra]"
  touch "$stamp"
fi
