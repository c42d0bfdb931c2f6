#!/bin/bash
# Compiles the CUDA module for all its architectures; needs no GPU. Checks that the program itself knows no CUDA, that the
# module exports one function and says in words that there is no driver, that its host side survives failing calls, and
# prints what each kernel takes.
#   .ci/cuda-compile.sh          BUILD: the build folder (default build-ci-cuda); CUDA_PATH: a toolkit that is there
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build-ci-cuda}

# The compiler and cuBLASLt as wheels, put together as an installed toolkit looks.
fetch_toolkit() { # folder
    local home
    echo "no nvcc here: fetching CUDA 13.0 from PyPI into $1"
    if ! python3 -m venv "$1"; then
        apt-get install -y --no-install-recommends python3-venv && python3 -m venv "$1"
    fi
    "$1/bin/pip" install --quiet --disable-pip-version-check \
        'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-runtime==13.0.*' \
        'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-culibos==13.0.*' 'nvidia-cublas>=13.0,<13.2' || return 1
    home=$(echo "$1"/lib/python3*/site-packages/nvidia/cu13)
    ln -sfn lib "$home/lib64"
    for library in "$home"/lib/lib*.so.*; do # wheels have no names to link by
        ln -sf "$(basename "$library")" "${library%%.so.*}.so"
    done
    ln -sfn "$PWD/$home" "$1/cuda"
}

if ! command -v nvcc >/dev/null && [ ! -x "${CUDA_PATH:-/usr/local/cuda}/bin/nvcc" ]; then
    if [ ! -x build-ci-toolkit/cuda/bin/nvcc ] && ! fetch_toolkit build-ci-toolkit; then
        echo "the CUDA toolkit is neither installed nor could it be fetched: nothing of the CUDA backend was compiled"
        exit 1
    fi
    export CUDA_PATH=$PWD/build-ci-toolkit/cuda
fi

rm -rf "$build"
cmake -S . -B "$build" -DPV_CUDA=ON -DPV_WERROR=ON -DPV_TESTS=ON -DPV_TOOLS=ON -DCMAKE_CUDA_FLAGS="-Xptxas -v"
start=$SECONDS
if ! cmake --build "$build" -j "$(nproc)" --target pivot-cuda >"$build/module.log" 2>&1; then
    grep -vE "^ptxas info|^ +[0-9]+ bytes stack frame" "$build/module.log" | tail -n 80
    exit 1
fi
echo "module: $((SECONDS - start)) s"
cmake --build "$build" -j "$(nproc)" --target pivot pivot_cli test_cuda test_cuda_faults test_module
ctest --test-dir "$build" --output-on-failure --no-tests=error -R '^(cuda|cuda_faults|module)$'

# The backend's host side with every call failing in turn, once more under the sanitizers: for that its C alone is built.
checked=$build-asan
headers=$(sed -n 's/^PV_CUDA_HEADERS:PATH=//p' "$build/CMakeCache.txt")
cmake -S . -B "$checked" -DPV_CUDA=OFF -DPV_WERROR=ON -DPV_TESTS=ON -DPV_TOOLS=OFF -DPV_SANITIZE=address,undefined \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPV_CUDA_HEADERS="$headers"
cmake --build "$checked" -j "$(nproc)" --target test_cuda_faults
ctest --test-dir "$checked" --output-on-failure --no-tests=error -R '^cuda_faults$'

wrong=0
say() {
    echo "$*"
    wrong=1
}
for file in "$build/pivot" "$build/libpivot.so"; do
    if readelf -d "$file" | grep -E 'NEEDED.*(cuda|cublas|nv)'; then
        say "$file must start without CUDA"
    fi
done
exports=$(nm --dynamic --defined-only "$build/libpivot-cuda.so" | awk '$2 != "A" { print $3 }')
[ "$exports" = pv_backend_module ] || say "libpivot-cuda.so must export pv_backend_module alone, it exports: $exports"

awk '
    /Compiling entry function/ { split($0, part, "\047"); kernel = part[2]; arch = part[4] }
    /bytes spill stores/       { spilled = $5 + $9 }
    /Used [0-9]+ registers/    { for (i = 1; i < NF; i++) if ($i == "Used") print kernel, arch, $(i + 1), spilled + 0; spilled = 0 }
' "$build/module.log" | sort >"$build/kernels.txt"
[ -s "$build/kernels.txt" ] || say "the compiler's report names no kernel"
echo "registers (and bytes spilled) by kernel:"
awk '
    { if ($1 != kernel) printf "%s%s ", kernel ? "\n" : "", $1; kernel = $1
      printf " %s %d%s", $2, $3, $4 ? " (" $4 " spilled)" : "" }
    END { print "" }' "$build/kernels.txt" | c++filt
awk '{ n++; spilled += $4 > 0 } END { printf "%d kernels compiled, %d spill registers\n", n, spilled }' "$build/kernels.txt"
exit $wrong
