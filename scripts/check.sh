#!/usr/bin/env bash
# Every check there is: format, lint, types, import layers, tests with warnings as errors.
# Usage: scripts/check.sh [pytest arguments]; `-m slow` runs the slow tests instead of the fast suite.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh dev
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
bin=.venv/bin
"$bin/ruff" format --check .
"$bin/ruff" check .
"$bin/mypy"
"$bin/lint-imports"
if [ "$#" -eq 0 ]; then set -- -m "not slow and not gpu" -n 2; fi
"$bin/python" -m pytest "$@"
