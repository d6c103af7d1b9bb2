#!/usr/bin/env bash
# VNN-COMP: run an instance. Usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT
# RESULTS holds `timeout` from the start on and is replaced in one step by the answer: unsat, sat and a counterexample,
# unknown, timeout or error. BOUNDSMITH names another command than the one that install_tool.sh made.
set -euo pipefail

if [ "${1:-}" != v1 ]; then
    echo "run_instance.sh: expected version v1, got '${1:-}'" >&2
    exit 1
fi
if [ $# -ne 6 ]; then
    echo "usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT" >&2
    exit 1
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
boundsmith=${BOUNDSMITH:-$root/.venv-vnncomp/bin/boundsmith}
results=$5

# Replaces what a regular file holds in one step; a link stays one, and anything else is written into.
write_word() {
    if [ -e "$results" ] && [ ! -f "$results" ]; then
        printf '%s\n' "$1" >"$results"
        return
    fi
    local target
    target=$(readlink -f -- "$results")
    printf '%s\n' "$1" >"$target.new"
    mv -f -- "$target.new" "$target"
}

write_word timeout

"$boundsmith" verify "$4" --network "$3" --timeout "$6" --assume-real --results "$results" >/dev/null &
child=$!
echo "$child" >"${TMPDIR:-/tmp}/boundsmith-vnncomp.pid"
trap 'kill -KILL "$child" 2>/dev/null || true' TERM INT
status=0
wait "$child" || status=$?
rm -f "${TMPDIR:-/tmp}/boundsmith-vnncomp.pid"
# The command writes `error` itself; this is for one that died before it could. A signal leaves `timeout`.
if [ "$status" -ne 0 ] && [ "$status" -lt 128 ]; then
    write_word error
fi
exit 0
