#!/bin/bash
# Installs the build into an empty place, moves it, and builds tests/consumer with what is there: by find_package,
# by pkg-config with the shared library, and by pkg-config with the static one.
#   consumer.sh <cmake> <build folder> <build type> <C compiler> <version> [sanitizers]
set -euo pipefail
cmake=$1 build=$2 type=$3 cc=$4 version=$5 sanitize=${6:-}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CC=$cc CFLAGS=${sanitize:+-fsanitize=$sanitize -fno-sanitize=vptr}

"$cmake" --install "$build" --config "$type" --prefix "$work/first" >/dev/null
mv "$work/first" "$work/tree"
libdir=$(dirname "$(find "$work/tree" -name libpivot.so)")
export PKG_CONFIG_PATH=$libdir/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}

expect() { # what was built, the program
    local said
    said=$("$2") || { echo "$1: the program fails"; exit 1; }
    [ "$said" = "$version $version" ] || { echo "$1: expected version $version twice, the program says $said"; exit 1; }
    echo "$1: ok"
}

"$cmake" -S "$here/consumer" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$work/tree" -DWANTED="$version"
"$cmake" --build "$work/cmake"
expect find_package "$work/cmake/consumer"

[ "$(pkg-config --modversion pivot)" = "$version" ] || { echo "pivot.pc: not version $version"; exit 1; }
# shellcheck disable=SC2046,SC2086 # words are meant to split
$cc $CFLAGS "$here/consumer/main.c" -o "$work/shared" $(pkg-config --cflags --libs pivot) -Wl,-rpath,"$libdir"
expect "pkg-config, shared" "$work/shared"

rm "$libdir"/libpivot.so* # so that -lpivot can only be the archive
# shellcheck disable=SC2046,SC2086
$cc $CFLAGS "$here/consumer/main.c" -o "$work/static" $(pkg-config --static --cflags --libs pivot)
expect "pkg-config, static" "$work/static"
