#!/bin/bash
# Installs packages, builds, runs all tests. BUILD is the build folder (default: build); its ctest.xml holds the results.
# TESTS: only those whose names match this regular expression.
#   tools/test.sh [argument for CMake...]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}

tools/packages.sh
set -x
cmake -S . -B "$build" -DPV_TESTS=ON "$@"
cmake --build "$build" -j "$(nproc)"
ctest --test-dir "$build" --output-on-failure --output-junit ctest.xml ${TESTS:+-R "$TESTS"} -j "$(nproc)"
