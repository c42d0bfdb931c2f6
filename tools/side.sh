#!/bin/bash
# Debian packages of a newer suite in a folder beside the system: nothing is installed, and the system's sources are not touched.
# apt is asked with a state of its own for that suite in place of the ones it is set to; what it would install for the
# packages named, C library included, is unpacked. Programs there are started by tools/side.sh too, with that C library.
#   tools/side.sh fetch SUITE DIR PACKAGE...
#   tools/side.sh run DIR PROGRAM [ARGUMENT...]   a program of the folder, or any other that needs its libraries
set -euo pipefail

fetch() {
    local suite=$1 dir=$2 state list
    shift 2
    state=$(mktemp -d)
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/parts" "$dir"
    touch "$state/status"
    for list in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
        [ -f "$list" ] || continue
        if [[ $list == *.sources ]]; then
            awk -v suite="$suite" 'BEGIN { RS = ""; ORS = "\n\n" } /Suites:[^\n]*-security/ { next }
                { gsub(/Suites:[^\n]*/, "Suites: " suite); print }' "$list" >"$state/parts/debian.sources"
        else
            awk -v suite="$suite" '$1 == "deb" && $3 !~ /-/ { $3 = suite; print }' "$list" >"$state/parts/main.list"
        fi
    done
    local apt=(apt-get -q -o "Dir::State::Lists=$state/lists" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache"
        -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$state/parts" -o APT::Sandbox::User=root -o Debug::NoLocking=1)
    "${apt[@]}" update
    "${apt[@]}" install -y --download-only --no-install-recommends "$@"
    for list in "$state"/cache/archives/*.deb; do
        dpkg -x "$list" "$dir"
    done
    rm -rf "$state"
}

run() {
    local dir=$1 program=$2 lib
    shift 2
    [ ! -x "$dir/$program" ] || program=$dir/$program
    lib=$(dirname "$(find "$dir" -name 'ld-linux-*.so.*' | head -n 1)")
    exec "$lib"/ld-linux-*.so.* --library-path "$lib:$lib/blas:$lib/lapack${SIDE_LIBRARIES:+:$SIDE_LIBRARIES}" "$program" "$@"
}

[ $# -ge 3 ] || { sed -n 's/^# \?//p' "$0" | tail -n +2 >&2; exit 2; }
"$@"
