#!/bin/bash
# Packs what a GPU machine with a Vulkan driver needs into device-vulkan/: programs built here, the libraries it may lack, test
# data, and a script that runs it all. The machine needs Vulkan's loader and a driver, no compiler.
#   .ci/pack-vulkan.sh           BUILD: the build folder (default build-vulkan)
# Then, over there: device-vulkan/run.sh
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build-vulkan}
out=device-vulkan

cmake -S . -B "$build" -DPV_CUDA=OFF -DPV_VULKAN=ON -DPV_TESTS=ON -DPV_TOOLS=ON
cmake --build "$build" -j "$(nproc)" --target pivot_cli test_ops test_vulkan_products test_vulkan_attention

rm -rf "$out"
mkdir -p "$out/lib" "$out/data"
cp "$build/pivot" "$build/tests/test_ops" "$build"/tests/test_vulkan_{products,attention} "$out"
cp .ci/vulkan-device-run.sh "$out/run.sh"
cp tests/data/{A,B,D,F}.json tests/data/F.bf16.gate.json tests/data/{A,B,D,F,tiny_f32,tiny_bf16}.safetensors "$out/data"

# Not the C and C++ libraries, which every system has; nor OpenBLAS, where the machine has one.
for program in "$out/pivot" "$out/test_ops"; do
    ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }'
done | sort -u | grep -vE '/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s)\.so' |
    { [ "${BLAS:-system}" = pack ] && cat || grep -vE '/lib(openblas|gfortran|quadmath)\.so'; } |
    xargs -r cp -L -t "$out/lib"
# The loader, and what drivers want of X, EGL and the like even without a display: not on every machine with a GPU.
for name in libvulkan.so.1 libX11.so.6 libXext.so.6 libX11-xcb.so.1 libxcb-glx.so.0 libxcb-dri3.so.0 libGLdispatch.so.0 libEGL.so.1 libGLX.so.0 \
    libgbm.so.1 libdrm.so.2 libwayland-client.so.0 libwayland-server.so.0; do
    file=$(ldconfig -p | awk -v name=$name '$1 == name && !n++ { print $NF }')
    [ -n "$file" ] || { echo "$name is not installed here"; exit 1; }
    { echo "$file"; ldd "$file" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }'; } | grep -vE '/(libc|libm|libdl|libpthread|librt)\.so' |
        xargs -r cp -L -t "$out/lib"
done
strip "$out"/pivot "$out"/test_* "$out"/lib/*.so*

git log -1 --format='%H %cs' >"$out/version"
du -sh "$out"
limit=$((60 << 20))
[ "$(du -sb "$out" | cut -f1)" -lt $limit ] || { echo "$out/ is larger than $limit bytes"; exit 1; }
