#!/usr/bin/env bash
# VNN-COMP: prepare for an instance. Usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB
# Ends what an earlier instance may have left running and checks that both files can be read. Exits 0 if all is well.
set -euo pipefail

if [ "${1:-}" != v1 ]; then
    echo "prepare_instance.sh: expected version v1, got '${1:-}'" >&2
    exit 1
fi
if [ $# -ne 4 ]; then
    echo "usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB" >&2
    exit 1
fi
pid_file=${TMPDIR:-/tmp}/boundsmith-vnncomp.pid
if [ -f "$pid_file" ]; then
    pid=$(cat "$pid_file")
    if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q boundsmith; then
        kill -KILL "$pid" 2>/dev/null || true
    fi
    rm -f "$pid_file"
fi
# The 2.0 track names several networks as [('f', 'f.onnx'), ...]; run_instance.sh checks those.
if [ "${3:0:1}" != "[" ] && [ ! -r "$3" ]; then
    echo "prepare_instance.sh: cannot read the network $3" >&2
    exit 1
fi
if [ ! -r "$4" ]; then
    echo "prepare_instance.sh: cannot read the query $4" >&2
    exit 1
fi
