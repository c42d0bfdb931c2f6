#!/bin/bash
# ThreadSanitizer on what runs threads against each other: sessions, and the server with its clients (fewer of each count).
#   .ci/threads.sh BUILD RESULTS.xml [arguments for CMake...]
set -euo pipefail
build=$1 results=$(realpath -m "$2")
shift 2
cmake -B "$build" -G Ninja "$@" -DPV_SANITIZE=thread
ninja -C "$build" pivot_cli serve_call test_session_results test_session_refusals
export PIVOT_SERVE_COUNTS=few TSAN_OPTIONS=exitcode=66
ctest --test-dir "$build" -R '^(session_results|session_refusals|serve)$' --output-on-failure --output-junit "$results"
