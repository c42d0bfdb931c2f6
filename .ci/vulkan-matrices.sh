#!/bin/bash
# The shaders with cooperative matrices, on a newer llvmpipe (Mesa of Debian sid in a side folder: f16, 8x8x8), newer validation layers
# listening: every tile and cut, and the ops that use them. Leaves with 77, and words, where that Mesa cannot be had or has none.
#   .ci/vulkan-matrices.sh BUILD    a folder in which test_vulkan_products, test_vulkan_attention and test_ops were built
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
build=$(realpath "$1") side=$(mktemp -d)
trap 'rm -rf "$side"' EXIT
if ! tools/side.sh fetch sid "$side/mesa" mesa-vulkan-drivers libvulkan1 vulkan-validationlayers libstdc++6 >"$side/log" 2>&1; then
    tail -n 5 "$side/log"
    echo "SKIPPED: no newer Mesa to be had here"
    exit 77
fi
lib=$(dirname "$(find "$side/mesa" -name 'libvulkan_lvp.so' | head -n 1)")
mkdir "$side/layers"
sed -E "s,\"library_path\": \"[^\"]*\",\"library_path\": \"$lib/libvulkan_lvp.so\"," "$side"/mesa/usr/share/vulkan/icd.d/lvp_icd*.json >"$side/lvp.json"
sed -E "s,\"library_path\": \"[^\"]*\",\"library_path\": \"$lib/libVkLayer_khronos_validation.so\"," \
    "$side"/mesa/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json >"$side/layers/VkLayer_khronos_validation.json"
export VK_DRIVER_FILES=$side/lvp.json VK_LAYER_PATH=$side/layers VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation PIVOT_LOG=warn PIVOT_CACHE=$side/cache
SIDE_LIBRARIES=$(dirname "$(ldconfig -p | awk '/libcjson.so.1/ && !n++ { print $NF }')")
export SIDE_LIBRARIES
failed=0
for test in test_vulkan_products test_vulkan_attention "test_ops linear attention rope"; do
    # shellcheck disable=SC2086
    tools/side.sh run "$side/mesa" "$build"/tests/$test >"$side/log" 2>&1
    status=$?
    grep -E '^llvmpipe|passed' "$side/log"
    if [ $status != 0 ] || grep -q 'vulkan: ' "$side/log"; then
        grep -vE '^(not tested|M [0-9])' "$side/log" | tail -n 40 | cut -c 1-400
        failed=1
    fi
    if grep -q 'not tested here: matrices' "$side/log"; then
        echo "SKIPPED: that Mesa has no matrices"
        exit 77
    fi
done
exit $failed
