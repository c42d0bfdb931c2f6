#!/bin/bash
# What .ci/pack-vulkan.sh packed, run on a machine with a GPU and its Vulkan driver: products and attention by each way, times, golden
# traces, the full model, op tests. Every part runs even when one before it failed, as long as there is time (SECONDS_IN_ALL, 120);
# the last line counts. Further words choose parts: run.sh products attention bench tiny full ops.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
export LD_LIBRARY_PATH=$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
parts=${*:-products attention bench tiny full f32 ops}
deadline=${SECONDS_IN_ALL:-120}
passed=0 failed=()

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
missing=$(ldd ./pivot ./test_ops ./test_vulkan_products | grep 'not found')
[ -z "$missing" ] || echo "missing here: $missing"

# A driver as this machine has it may not open: in a container parts of it lie elsewhere, or X is not there. So the driver's own
# entry is tried first, then its library for X and the one for EGL, which needs no X, by their full names.
opens() { timeout -k 2 15 ./test_vulkan_products "" open; }

driver_folders() {
    { ldconfig -p | awk '/nvidia/ { print $NF }'; ls -d /usr/local/nvidia/lib64/* /usr/lib/x86_64-linux-gnu/libGLX_nvidia* 2>/dev/null; } |
        grep -E 'lib(GLX|EGL)_nvidia\.so|libnvidia-glcore' | xargs -r -n 1 dirname | sort -u
}

find_driver() {
    local folders folder library json
    folders=$(driver_folders | tr '\n' ':')
    export LD_LIBRARY_PATH=$folders$LD_LIBRARY_PATH
    opens && return
    for json in /usr/share/vulkan/icd.d/nvidia_icd*.json /etc/vulkan/icd.d/nvidia_icd*.json /usr/local/nvidia/*/nvidia_icd*.json; do
        [ -f "$json" ] || continue
        export VK_DRIVER_FILES=$json VK_ICD_FILENAMES=$json
        opens && return
    done
    for library in EGL GLX; do
        for folder in ${folders//:/ }; do
            [ -e "$folder/lib${library}_nvidia.so.0" ] || continue
            json=$PWD/icd_$library.json
            echo "{\"file_format_version\": \"1.0.0\", \"ICD\": {\"library_path\": \"$folder/lib${library}_nvidia.so.0\", \"api_version\": \"1.4.312\"}}" >"$json"
            export VK_DRIVER_FILES=$json VK_ICD_FILENAMES=$json
            opens && return
        done
    done
    return 1
}

if ! find_driver; then
    echo "no driver opens; what there is:"
    driver_folders
    for folder in $(driver_folders); do
        find "$folder" -maxdepth 1 -name 'lib*' -printf '%f -> %l\n' | grep -iE 'vk|glcore|gpucomp|spirv|EGL|GLX|tls|rtcore|glsi' | sort | head -40
        for library in EGL GLX; do
            ldd "$folder/lib${library}_nvidia.so.0" 2>&1 | grep -E 'not found|No such' | sed "s/^/$library: /"
        done
    done
    ls -l /dev/nvidia* /dev/dri 2>&1 | cut -c 1-120
    cat /usr/share/vulkan/icd.d/nvidia_icd*.json 2>&1
    for json in /usr/share/vulkan/icd.d/nvidia_icd.json "$PWD/icd_EGL.json"; do
        echo "== the loader with $json"
        VK_LOADER_DEBUG=all VK_DRIVER_FILES=$json VK_ICD_FILENAMES=$json opens 2>&1 | grep -vE 'layer|Layer' | tail -n 25 | cut -c 1-240
        echo "== what it opens"
        LD_DEBUG=files VK_DRIVER_FILES=$json VK_ICD_FILENAMES=$json opens 2>&1 | grep -E 'nvidia|error|cannot' | grep -vE 'needed|generating|calling|relocation' |
            sed 's/^ *[0-9]*:[[:space:]]*//' | tail -n 30 | cut -c 1-200
        LD_DEBUG=libs VK_DRIVER_FILES=$json VK_ICD_FILENAMES=$json opens 2>&1 | grep -E 'find library=' | sed 's/^ *[0-9]*:[[:space:]]*//' | tail -n 30
    done
    echo "0 passed, 1 failed: [no device]"
    exit 1
fi
echo "driver: ${VK_DRIVER_FILES:-as the loader finds it}"

if part products; then
    LIMIT=${PRODUCTS:-28} LINES_OK=120 LINES_BAD=140 try "products" ./test_vulkan_products "" bench
fi
if part attention; then
    LIMIT=20 LINES_OK=40 try "attention" ./test_vulkan_attention "" bench
fi
if part bench; then
    LIMIT=45 LINES_OK=100 try "bench bf16" ./pivot bench --backend vulkan --model synth:full --recipe bf16 --runs "${RUNS:-30}" --warmup 3 --ops
fi
if part tiny; then
    LIMIT=8 verify D data/tiny_bf16.safetensors --config data/D.json
    LIMIT=8 LINES_OK=2 try "against the CPU, bf16" ./pivot verify --backend vulkan --model synth:tiny --against cpu --recipe bf16 --bound 3e-2
fi
if part full; then
    LIMIT=25 verify "F bf16" synth:full --config data/F.json --recipe bf16 --gate data/F.bf16.gate.json
fi
if part f32; then
    LIMIT=30 verify "F f32" synth:full --config data/F.json
fi
if part f32; then
    LIMIT=8 verify A data/tiny_f32.safetensors --config data/A.json
    LIMIT=8 verify B data/tiny_f32.safetensors --config data/B.json
fi
if part ops; then
    LINES_OK=20 try "ops" ./test_ops rope norm layout elementwise embed linear attention
fi
echo "$passed passed, ${#failed[@]} failed${failed[*]:+:}$(printf ' [%s]' "${failed[@]}" | sed 's/^ \[\]$//')"
[ ${#failed[@]} = 0 ]
