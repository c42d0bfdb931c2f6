#!/bin/bash
# A CUDA toolkit that is too old is left aside, or with PV_CUDA=ON refused with what was found and what is needed, before CMake
# tries to compile with it. In its place: a program that says its version and does nothing else.
#   old_nvcc.sh <cmake> <source folder> <C compiler>
set -euo pipefail
cmake=$1 source=$2 cc=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nvcc=$work/nvcc

configure() { # value of PV_CUDA
    "$cmake" -S "$source" -B "$work/build" -DCMAKE_C_COMPILER="$cc" -DPV_NVCC="$nvcc" -DPV_CUDA="$1" -DPV_VULKAN=OFF -DPV_BLAS=OFF \
        -DPV_TOKENIZER=OFF -DPV_TOOLS=OFF -DPV_SERVE=OFF -DPV_TESTS=OFF >"$work/log" 2>&1
}

expect() { # words
    tr -s '\n ' ' ' <"$work/log" | grep -qF "$1" || { echo "expected \"$1\" in:"; cat "$work/log"; exit 1; }
}

said='Cuda compilation tools, release 12.6, V12.6.85'
for version in "$said" 'something else'; do
    words="tells no version, 13.0 or newer is needed"
    [ "$version" != "$said" ] || words="is of CUDA 12.6, 13.0 or newer is needed"
    printf '#!/bin/sh\n[ "$*" = --version ] && echo "%s"\n' "$version" >"$nvcc"
    chmod +x "$nvcc"
    configure AUTO || { echo "PV_CUDA=AUTO: configuring fails:"; cat "$work/log"; exit 1; }
    expect "No CUDA backend: $nvcc $words"
    ! configure ON || { echo "PV_CUDA=ON: taken with $version"; exit 1; }
    expect "PV_CUDA=ON: $nvcc $words"
done
echo "ok"
