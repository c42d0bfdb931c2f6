#!/bin/bash
# What .ci/pack-vulkan.sh packed, run on a machine with a GPU and its Vulkan driver: op tests, golden traces, the full model,
# products by each way, times. Every part runs even when one before it failed; the last line counts. Further words choose
# parts: run.sh products ops tiny bench full.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
export LD_LIBRARY_PATH=$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
parts=${*:-products tiny bench full ops}
passed=0 failed=()

if [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ]; then # where the loader looks by itself is not where every container has it
    icd=$(find /etc/vulkan /usr/share/vulkan /usr/local/share/vulkan -name 'nvidia_icd*.json' 2>/dev/null | head -n 1)
    [ -n "$icd" ] || icd=$(find / -xdev -name 'nvidia_icd*.json' 2>/dev/null | head -n 1)
    [ -z "$icd" ] || export VK_DRIVER_FILES=$icd VK_ICD_FILENAMES=$icd
fi

part() { [[ " $parts " == *" $1 "* ]]; }

try() { # name, command...
    local name=$1 start=$SECONDS log
    shift
    log=$(mktemp)
    timeout "${LIMIT:-60}" "$@" >"$log" 2>&1
    local status=$?
    if [ $status = 0 ]; then
        passed=$((passed + 1))
        tail -n "${LINES_OK:-4}" "$log" | cut -c 1-220
        echo "== $name: ok, $((SECONDS - start)) s"
    else
        tail -n "${LINES_BAD:-25}" "$log" | cut -c 1-300
        echo "== $name: FAILED ($status), $((SECONDS - start)) s"
        failed+=("$name")
    fi
    rm -f "$log"
}

verify() { # name, model, further arguments; the trace has the name's first letter
    local name=$1 model=$2
    shift 2
    try "verify $name" ./pivot verify --backend vulkan --model "$model" --trace "data/${name:0:1}.safetensors" "$@"
}

cat version
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit --format=csv,noheader || true
echo "driver: ${VK_DRIVER_FILES:-as the loader finds it}"
missing=$(ldd ./pivot ./test_ops ./test_vulkan_products | grep 'not found')
[ -z "$missing" ] || echo "missing here: $missing"

if part products; then
    try "products, right" ./test_vulkan_products ""
    LINES_OK=200 try "products, times" ./test_vulkan_products "" bench
fi
if part tiny; then
    verify A data/tiny_f32.safetensors --config data/A.json
    verify B data/tiny_f32.safetensors --config data/B.json
    verify D data/tiny_bf16.safetensors --config data/D.json
    LINES_OK=2 try "against the CPU, bf16" ./pivot verify --backend vulkan --model synth:tiny --against cpu --recipe bf16 --bound 3e-2
fi
if part bench; then
    LINES_OK=100 try "bench bf16" ./pivot bench --backend vulkan --model synth:full --recipe bf16 --runs "${RUNS:-30}" --warmup 5 --ops
fi
if part full; then
    verify "F bf16" synth:full --config data/F.json --recipe bf16 --bound "${BOUND:-2e-2}"
    verify "F f32" synth:full --config data/F.json
fi
if part ops; then
    LINES_OK=20 try "ops" ./test_ops linear attention norm rope elementwise layout embed
fi
echo "$passed passed, ${#failed[@]} failed${failed[*]:+:}$(printf ' [%s]' "${failed[@]}" | sed 's/^ \[\]$//')"
[ ${#failed[@]} = 0 ]
