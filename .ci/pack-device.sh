#!/bin/bash
# Packs what a GPU machine needs into device/: programs and module built here, the libraries it may lack, test data, and a
# script that runs it all. The machine needs a driver and cuBLASLt, no compiler.
#   .ci/pack-device.sh           BUILD: the build folder (default build-device); ARCH: its GPU (default 90a-real)
# Then, over there: device/run.sh
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build-device}
out=device

cmake -S . -B "$build" -DPV_CUDA=ON -DPV_VULKAN=OFF -DPV_TESTS=ON -DPV_TOOLS=ON -DCMAKE_CUDA_ARCHITECTURES="${ARCH:-90a-real}"
cmake --build "$build" -j "$(nproc)"

rm -rf "$out"
mkdir -p "$out/lib" "$out/data"
cp "$build/pivot" "$build/libpivot-cuda.so" "$build/tests/test_cuda" "$build/tests/test_ops" "$out"
cp .ci/device-run.sh "$out/run.sh"
cp tests/data/{A,B,D,F}.json tests/data/F.bf16.gate.json tests/data/{A,B,D,F,tiny_f32,tiny_bf16}.safetensors "$out/data"

# Not the C and C++ libraries, which every system has, nor CUDA's; nor OpenBLAS, where the machine has one.
for program in "$out/pivot" "$out/test_ops"; do
    ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }'
done | sort -u | grep -vE '/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s|libcuda.*|libcublas.*)\.so' |
    { [ "${BLAS:-system}" = pack ] && cat || grep -vE '/lib(openblas|gfortran|quadmath)\.so'; } |
    xargs -r cp -L -t "$out/lib"
strip "$out"/pivot "$out"/test_* "$out"/*.so "$out"/lib/*.so*

git log -1 --format='%H %cs' >"$out/version"
du -sh "$out"
limit=$((60 << 20))
[ "$(du -sb "$out" | cut -f1)" -lt $limit ] || { echo "device/ is larger than $limit bytes"; exit 1; }
