#!/usr/bin/env bash
# VNN-COMP: install the tool. Usage: install_tool.sh v1
# Makes a virtual environment beside the repository's files; BOUNDSMITH_PYTHON names another Python than python3.
set -euo pipefail

if [ "${1:-}" != v1 ]; then
    echo "install_tool.sh: expected version v1, got '${1:-}'" >&2
    exit 1
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
"${BOUNDSMITH_PYTHON:-python3}" -m venv "$root/.venv-vnncomp"
"$root/.venv-vnncomp/bin/python" -m pip install --quiet -c "$root/constraints.txt" "$root"
"$root/.venv-vnncomp/bin/boundsmith" doctor
