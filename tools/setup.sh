#!/bin/bash
# From a clean checkout to a first action chunk: installs packages, builds, writes a tiny policy with random weights and runs
# it. BUILD is the build folder (default: build).
#   tools/setup.sh [argument for CMake...]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}

tools/packages.sh
set -x
cmake -S . -B "$build" -DPV_TOOLS=ON "$@"
cmake --build "$build" -j "$(nproc)"
"$build/pivot" synth tiny out/tiny
"$build/pivot" run out/tiny --plot out/tiny.png
