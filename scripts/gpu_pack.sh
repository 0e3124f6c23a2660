#!/usr/bin/env bash
# Gathers into one ignored folder what a GPU machine without network lacks: wheels, and corpora cut to fit.
# Usage: scripts/gpu_pack.sh [--out .gpu] [--corpus NAME=DATA_FOLDER …] [--megabytes 60] [--rows 48] [--help]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-.venv/bin/python}"
command -v "$python" >/dev/null || python=python3
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" scripts/gpu_pack.py pack "$@"
