#!/bin/bash
# The walls of the house: fails when an #include points the wrong way.
#   layers.sh <root of the source tree>
# A quoted include is looked up as the compiler does (own folder, core/, include/, the root) and must lie in the including
# file's own folder, be pivot.h, or begin with one of the prefixes its room is allowed. An include in angle brackets must
# be the C library's or POSIX, or be named in the room's row. tests, tools and examples may look into any room.
set -euo pipefail
shopt -s globstar nullglob extglob
cd "$1"

# room                what it may know
walls='
include
core/base
core/graph            core/base/
core/io               core/base/  <cjson/cJSON.h>  <sentencepiece_processor.h>
core/plan             core/graph/ core/base/  <dlfcn.h>
core/model            core/graph/ core/base/ core/io/ core/plan/weights.h
core/robot            core/base/ core/io/ core/model/
core/record           core/base/ core/io/ core/model/ core/robot/ core/session/
core/session          core/graph/ core/base/ core/io/ core/plan/ core/model/
backends/cpu          core/graph/ core/base/ core/plan/backend.h  <cblas.h>  <immintrin.h>  <arm_neon.h>
backends/cuda         core/graph/ core/base/ core/plan/backend.h core/plan/module.h  <cuda*>  <cublas*>  <cooperative_groups*>  <mma.h>  <dlfcn.h>
backends/vulkan       core/graph/ core/base/ core/plan/backend.h core/plan/module.h  <vulkan/*>  <dlfcn.h>  shaders/
'
libc='@(assert|complex|ctype|dirent|errno|fcntl|fenv|float|inttypes|limits|locale|malloc|math|pthread|sched|signal|stdalign|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|string|strings|time|unistd|sys/*).h'

declare -A allowed
while read -r room rest; do
    [ -n "$room" ] && allowed[$room]=$rest
done <<<"$walls"

wrong=0
n=0
say() {
    echo "$1: $2"
    wrong=$((wrong + 1))
}

check() { # file line include
    local file=$1 where="$1:$2" inc=$3 room target="" dir pattern
    room=$(cut -d/ -f1-2 <<<"$file")
    [[ $file == include/* ]] && room=include
    if [[ ! -v allowed[$room] ]]; then
        say "$where" "the folder $room is not in the table of walls"
        return
    fi
    if [[ $inc == \<* ]]; then
        local header=${inc:1:-1}
        # shellcheck disable=SC2053 # a pattern
        [[ $header == $libc ]] && return
        [[ $file == *.@(cc|cu|cuh) && $header != *.* && $header != */* ]] && return # the C++ library
        target=$inc
    else
        for dir in "$(dirname "$file")" core include .; do
            if [ -f "$dir/${inc:1:-1}" ]; then
                target=$(realpath --relative-to=. "$dir/${inc:1:-1}")
                break
            fi
        done
        if [ -z "$target" ]; then
            say "$where" "$inc is nowhere in the tree"
            return
        fi
        [[ $target == include/pivot.h || $target == "$room"/* ]] && return
    fi
    for pattern in ${allowed[$room]}; do
        # shellcheck disable=SC2053 # the right side is a pattern
        [[ $target == $pattern || ($pattern == */ && $target == "$pattern"*) ]] && return
    done
    say "$where" "$room may not include $target"
}

set -f # the table holds patterns
while IFS=: read -r file line text; do
    n=$((n + 1))
    inc=$(sed -nE 's/^[ \t]*#[ \t]*include[ \t]*(<[^>]*>|"[^"]*").*/\1/p' <<<"$text")
    if [ -n "$inc" ]; then
        check "$file" "$line" "$inc"
    else
        say "$file:$line" "an include that is not written out"
    fi
done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include' include core backends --include='*.[ch]' --include='*.cc' --include='*.cu' --include='*.cuh' --include='*.def')

if [ "$n" = 0 ]; then
    say "$1" "no includes found: wrong folder?"
fi
echo "$n includes, $wrong wrong"
[ "$wrong" = 0 ]
