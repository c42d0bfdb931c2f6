#!/bin/bash
# The shaders of shaders/variants.txt as SPIR-V, in shaders/prebuilt/: for builds whose glslang does not know cooperative matrices
# or bf16 (before 16). Beside each stands a hash of all it is made of: source, includes, arguments.
#   tools/shaders.sh             makes those anew whose hash differs, with GLSLANG (default: glslang in PATH); --all: all of them
#   tools/shaders.sh --check     compares hashes alone; 1: some differ, and the words say which
#   tools/shaders.sh --tools DIR fetches a new glslang (Debian sid, tools/side.sh) into DIR, and makes them with it
set -euo pipefail
[ "${1:-}" != --tools ] || [ $# = 2 ] || { echo "--tools DIR" >&2; exit 2; }
[ "${1:-}" != --tools ] || set -- --tools "$(realpath -m -- "$2")"
cd "$(dirname "$0")/../shaders"
arguments=(-V --target-env vulkan1.2 -g0)

includes() { # of a file, each once, whoever includes it first
    local name
    while read -r name; do
        [[ " ${seen[*]} " == *" $name "* ]] || { seen+=("$name"); includes "$name"; }
    done < <(sed -nE 's/^#include "([^"]+)".*/\1/p' "$1")
}

hash_of() { # source, arguments...
    local source=$1
    seen=("$source")
    includes "$source"
    { echo "${arguments[@]}" "$@"; cat "${seen[@]}"; } | sha256sum | cut -d ' ' -f 1
}

kept_hash() { sed -nE 's,^/\* ([0-9a-f]{64}) .*,\1,p' "prebuilt/$1.spv.h" 2>/dev/null || true; }

make_with() { # compiler...; each of the table whose hash differs
    local name source hash more text
    while read -r name source more; do
        # shellcheck disable=SC2086
        hash=$(hash_of "$source" $more)
        [ -n "$all" ] || [ "$hash" != "$(kept_hash "$name")" ] || continue
        text=$(mktemp)
        # shellcheck disable=SC2086
        "$@" "${arguments[@]}" $more --vn "${name}_spv" -o "$text" "$source" >&2
        mkdir -p prebuilt
        { echo "/* $hash $source $more"; echo " * SPIR-V, made by tools/shaders.sh. */"
          sed -E '/^[[:space:]]*\/\//d; s/^[[:space:]]+//' "$text"; } >"prebuilt/$name.spv.h"
        rm -f "$text"
        echo "$name: made"
    done < <(grep -v '^#' variants.txt)
}

all=
case ${1:-} in
--check)
    stale=0
    while read -r name source more; do
        # shellcheck disable=SC2086
        if [ "$(hash_of "$source" $more)" != "$(kept_hash "$name")" ]; then
            echo "shaders/prebuilt/$name.spv.h is not made of what stands in shaders/ now: tools/shaders.sh makes it anew"
            stale=1
        fi
    done < <(grep -v '^#' variants.txt)
    [ $stale = 0 ] && echo "prebuilt shaders are those of their sources"
    exit $stale
    ;;
--tools)
    ../tools/side.sh fetch sid "$2" glslang-tools >&2
    make_with ../tools/side.sh run "$2" usr/bin/glslang
    ;;
--all | '')
    all=${1:-}
    make_with "${GLSLANG:-glslang}"
    ;;
*)
    echo "unknown: $1" >&2
    exit 2
    ;;
esac
