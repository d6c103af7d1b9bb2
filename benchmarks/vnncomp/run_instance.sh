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
printf 'timeout\n' >"$results.new"
mv -f "$results.new" "$results"

"$boundsmith" verify "$4" --network "$3" --timeout "$6" --assume-real --results "$results" >/dev/null &
child=$!
echo "$child" >"${TMPDIR:-/tmp}/boundsmith-vnncomp.pid"
trap 'kill -KILL "$child" 2>/dev/null || true' TERM INT
status=0
wait "$child" || status=$?
rm -f "${TMPDIR:-/tmp}/boundsmith-vnncomp.pid"
# The command writes `error` itself; this is for one that died before it could. A signal leaves `timeout`.
if [ "$status" -ne 0 ] && [ "$status" -lt 128 ]; then
    printf 'error\n' >"$results.new"
    mv -f "$results.new" "$results"
fi
exit 0
