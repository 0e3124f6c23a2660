#!/usr/bin/env bash
# The main job on the embedded demo corpus: videos → features → training → evaluation → index → answers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh dev
exec .venv/bin/dciml demo --out demo-out "$@"
