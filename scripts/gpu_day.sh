#!/usr/bin/env bash
# Everything that needs a GPU, in order of worth, each step with its own time limit; no network.
# Usage: scripts/gpu_day.sh [--minutes 28] [--out gpu-day] [--pack .gpu] [--only STEP,STEP] [--dry-run] [--help]
# PYTHON names the interpreter that has torch; else .venv's, else python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-.venv/bin/python}"
command -v "$python" >/dev/null || python=python3

pack=.gpu out=gpu-day before=
for word in "$@"; do
  case "$before" in --pack) pack="$word" ;; --out) out="$word" ;; esac
  case "$word" in --pack=*) pack="${word#*=}" ;; --out=*) out="${word#*=}" ;; esac
  before="$word"
done
site="$out/site"
if compgen -G "$pack/wheels/*.whl" >/dev/null && [ ! -d "$site" ]; then
  "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile \
    --target "$site" "$pack"/wheels/*.whl >&2 ||
    echo "the packed wheels do not fit this Python; going on with what is installed" >&2
fi
[ ! -d "$site" ] || site="$(cd "$site" && pwd)"
export PYTHONPATH="$site:$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" scripts/gpu_day.py "$@"
