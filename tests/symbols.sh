#!/bin/bash
# libpivot.so exports exactly the functions that pivot.h declares with PV_API.
#   symbols.sh <C compiler> <pivot.h> <libpivot.so>
# The compiler takes the comments out and leaves macros alone; then each PV_API is followed by its function's name.
set -euo pipefail
cc=$1 header=$2 library=$3

declared=$("$cc" -x c -E -P -fdirectives-only -dD "$header" | grep -v '^ *#' | tr '\n' ' ' |
    grep -oE 'PV_API [^;(]*\(' | grep -oE 'pv_[a-z0-9_]+ *\($' | tr -d ' (' | sort)
exported=$(nm --dynamic --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort)

if [ "$declared" != "$exported" ]; then
    echo "pivot.h declares (<) and $(basename "$library") exports (>) not the same:"
    diff <(echo "$declared") <(echo "$exported") | grep '^[<>]' || true
    exit 1
fi
echo "$(wc -l <<<"$exported") functions"
