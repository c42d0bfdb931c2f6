#!/bin/bash
# libpivot.so exports exactly the functions that pivot.h declares with PV_API, all at version PIVOT_0.
#   symbols.sh <C compiler> <pivot.h> <libpivot.so>
set -euo pipefail
cc=$1 header=$2 library=$3

mark='__attribute__\(\(visibility\("default"\)\)\)' # PV_API, after the preprocessor
declared=$("$cc" -E -P "$header" | tr '\n' ' ' | grep -oE "$mark [^;(]*\(" | grep -oE 'pv_[a-z0-9_]+ *\($' |
    sed 's/ *($/@@PIVOT_0/' | sort)
exported=$(nm --dynamic --defined-only "$library" | awk '$2 != "A" { print $3 }' | sort)

if [ "$declared" != "$exported" ]; then
    echo "pivot.h declares (<) and $(basename "$library") exports (>) not the same:"
    diff <(echo "$declared") <(echo "$exported") | grep '^[<>]' || true
    exit 1
fi
echo "$(wc -l <<<"$exported") functions"
