#!/bin/bash
# What .ci/pack-vulkan.sh packed, run on a machine with a GPU and its Vulkan driver: products by each way, times, golden
# traces, the full model, op tests. Every part runs even when one before it failed, as long as there is time (SECONDS_IN_ALL, 120);
# the last line counts. Further words choose parts: run.sh products bench tiny full ops.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
export LD_LIBRARY_PATH=$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
parts=${*:-products bench tiny full f32 ops}
deadline=${SECONDS_IN_ALL:-120}
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
    local left=$((deadline - SECONDS))
    [ "$left" -gt 1 ] || left=1
    [ "$left" -lt "${LIMIT:-60}" ] || left=${LIMIT:-60}
    timeout -k 2 "$left" "$@" >"$log" 2>&1
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

if [ -n "${VK_DRIVER_FILES:-}" ]; then # what the driver's library lacks keeps it from being found, without a word
    driver=$(sed -nE 's/.*"library_path" *: *"([^"]+)".*/\1/p' "$VK_DRIVER_FILES" | head -n 1)
    case $driver in /*) ;; *) driver=$(ldconfig -p | awk -v name="$driver" '$1 == name { print $NF; exit }') ;; esac
    echo "its library: ${driver:-not found}; missing for it: $(ldd "${driver:-/}" 2>/dev/null | grep 'not found' | tr '\n' ' ')"
fi
if ! opened=$(timeout 30 ./test_vulkan_products "" open); then
    echo "$opened"
    echo "0 passed, 1 failed: [no device]"
    exit 1
fi
echo "$opened"

if part products; then
    LIMIT=45 LINES_OK=120 LINES_BAD=140 try "products" ./test_vulkan_products "" bench
fi
if part bench; then
    LIMIT=45 LINES_OK=100 try "bench bf16" ./pivot bench --backend vulkan --model synth:full --recipe bf16 --runs "${RUNS:-30}" --warmup 5 --ops
fi
if part tiny; then
    for name in D A B; do
        LIMIT=10 verify $name "data/tiny_$([ $name = D ] && echo bf16 || echo f32).safetensors" --config "data/$name.json"
    done
    LIMIT=10 LINES_OK=2 try "against the CPU, bf16" ./pivot verify --backend vulkan --model synth:tiny --against cpu --recipe bf16 --bound 3e-2
fi
if part full; then
    LIMIT=30 verify "F bf16" synth:full --config data/F.json --recipe bf16 --bound "${BOUND:-2e-2}"
fi
if part f32; then
    LIMIT=30 verify "F f32" synth:full --config data/F.json
fi
if part ops; then
    LINES_OK=20 try "ops" ./test_ops rope norm layout elementwise embed linear attention
fi
echo "$passed passed, ${#failed[@]} failed${failed[*]:+:}$(printf ' [%s]' "${failed[@]}" | sed 's/^ \[\]$//')"
[ ${#failed[@]} = 0 ]
