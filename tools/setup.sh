#!/bin/bash
# From a clean checkout to a first action chunk: installs packages, builds, writes a tiny policy with made-up weights and runs
# it: an action chunk on the terminal, its plot in out/actions.svg. BUILD is the build folder (default: build).
#   tools/setup.sh [argument for CMake...]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}

tools/packages.sh
set -x
cmake -S . -B "$build" -DPV_TOOLS=ON "$@"
cmake --build "$build" -j "$(nproc)"
mkdir -p out
rm -rf out/tiny
"$build/pivot" synth tiny --layout openpi --out out/tiny
"$build/pivot" run --model out/tiny --image base_0_rgb=out/tiny/images/base_0_rgb.png \
    --image left_wrist_0_rgb=out/tiny/images/left_wrist_0_rgb.jpg --prompt "pick up the red block" --plot out/actions.svg
