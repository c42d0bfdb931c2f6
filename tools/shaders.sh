#!/bin/bash
# The shaders of shaders/variants.txt as SPIR-V, in shaders/prebuilt/: for builds whose glslang does not know cooperative matrices
# or bf16 (before 16). Beside each stands a hash of all it is made of: source, includes, arguments.
#   tools/shaders.sh             makes those anew whose hash differs, with GLSLANG (default: glslang in PATH); --all: all of them
#   tools/shaders.sh --check     compares hashes alone; 1: some differ, and the words say which
#   tools/shaders.sh --tools DIR fetches a new glslang (Debian sid) into DIR, and makes them with it: unpacked there beside the C library
#                                it needs and started with it, nothing is installed. Needs apt, which is asked for sid in place
#                                of its own suites
set -euo pipefail
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

fetch() { # folder: apt with a state of its own, and its own sources with another suite
    local state list
    state=$(mktemp -d)
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/parts" "$1"
    touch "$state/status"
    for list in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
        [ -f "$list" ] || continue
        if [[ $list == *.sources ]]; then
            awk 'BEGIN { RS = ""; ORS = "\n\n" } /Suites:[^\n]*-security/ { next } { gsub(/Suites:[^\n]*/, "Suites: sid"); print }' "$list"
        else
            awk '$1 == "deb" && $3 !~ /-/ { $3 = "sid"; print }' "$list"
        fi >"$state/parts/${list##*/}"
    done
    [ ! -f "$state/parts/sources.list" ] || mv "$state/parts/sources.list" "$state/parts/main.list"
    local apt=(apt-get -o "Dir::State::Lists=$state/lists" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache"
        -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$state/parts" -o APT::Sandbox::User=root)
    "${apt[@]}" -q update
    "${apt[@]}" -q install -y --download-only --no-install-recommends -o Debug::NoLocking=1 glslang-tools
    for list in "$state"/cache/archives/*.deb; do
        dpkg -x "$list" "$1"
    done
    rm -rf "$state"
}

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
    [ $# = 2 ] || { echo "--tools DIR" >&2; exit 2; }
    fetch "$2"
    lib=$(dirname "$(find "$2" -name 'ld-linux-*.so.*' | head -n 1)")
    make_with "$lib"/ld-linux-*.so.* --library-path "$lib" "$2/usr/bin/glslang"
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
