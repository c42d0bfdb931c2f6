#!/bin/bash
# `pivot serve` as a client of openpi meets it: serve.py, with msgpack, numpy and websockets from PyPI in an environment that is
# made in <build folder>/serve_venv. Skipped where that cannot be made. PIVOT_SERVE_COUNTS: see there.
#   serve.sh <pivot> <serve_call> <build folder>
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=$3/serve_venv
modules='import msgpack, numpy, websockets.sync.client'
if ! "$venv/bin/python" -c "$modules" 2>/dev/null; then
    python3 -m venv "$venv" && timeout 200 "$venv/bin/pip" install -q --disable-pip-version-check msgpack numpy 'websockets>=13'
fi
if ! "$venv/bin/python" -c "$modules"; then
    echo "skipped: no Python with msgpack, numpy and websockets (python3-venv, and PyPI within reach)"
    exit 77
fi
exec "$venv/bin/python" -B "$here/serve.py" "$1" "$2"
