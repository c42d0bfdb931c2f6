#!/bin/bash
# The Python package as a user gets it: the wheel built in an empty environment (PyPI gives pip what it needs), installed,
# its types checked, its tests and the programs of README and docs run on what was installed. Nothing is kept.
#   .ci/python.sh PROGRAM RESULTS.xml     PROGRAM: the program `pivot` of the same sources, to compare with
set -euo pipefail
program=$(realpath "$1") results=$(realpath -m "$2")
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

tools/packages.sh python3-venv
python3 -m venv "$work/venv"
export PATH=$work/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
unset PYTHONPATH PIVOT_LIBRARY
pip install --quiet ".[test]" -C cmake.define.PV_WERROR=ON -C cmake.define.PV_CUDA=OFF -C cmake.define.PV_BLAS=ON \
    -C cmake.define.PV_TOKENIZER=ON
pip install --quiet dm-tree typing_extensions
pip install --quiet --no-deps openpi-client # it wants numpy 1, which what is tested here does not need
pip install --quiet msgpack websockets # for examples/libero
files=$(pip show --files pivot | grep -c 'pivot/libpivot.so$')
[ "$files" = 1 ] || { echo "the wheel has $files files libpivot.so"; exit 1; }
mypy --no-incremental python/pivot
PIVOT_PROGRAM=$program python -m pytest -q -p no:cacheprovider --junitxml "$results"
