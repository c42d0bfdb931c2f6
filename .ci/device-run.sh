#!/bin/bash
# What .ci/pack-device.sh packed, run on a machine with a GPU: the op tests, golden traces, the full model, times. Every part
# runs even when one before it failed; the last line counts. Further words choose parts: run.sh ops tiny full bench.
# `report`, `lab` and `long` are no part of the whole: pages, tables and JSON into $OUT (or here), the first within five minutes.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
export LD_LIBRARY_PATH=$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}:/usr/local/cuda/lib64
parts=${*:-ops tiny full bench}
passed=0 failed=()

part() { [[ " $parts " == *" $1 "* ]]; }

try() { # name, command...
    local name=$1 start=$SECONDS log
    shift
    log=$(mktemp)
    "$@" >"$log" 2>&1
    local status=$?
    # Nothing was shown by that; but of few bits there are products that only a fused op does.
    grep -hE '^(not tested here|no device here)|has no kernel for' "$log" | grep -vE 'linear \(f32, as .* of (e4m3, e4m3|bf16, e2m1)\)' && status=1
    if [ $status = 0 ]; then
        passed=$((passed + 1))
        tail -n "${LINES_OK:-6}" "$log"
        echo "== $name: ok, $((SECONDS - start)) s"
    else
        tail -n "${LINES_BAD:-40}" "$log"
        echo "== $name: FAILED ($status), $((SECONDS - start)) s"
        failed+=("$name")
    fi
    rm -f "$log"
}

verify() { # name, model, further arguments; the trace has the name's first letter
    local name=$1 model=$2
    shift 2
    try "verify $name" ./pivot verify --backend cuda --model "$model" --trace "data/${name:0:1}.safetensors" "$@"
}

cat version
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit --format=csv,noheader || true
./pivot --version || true
missing=$(ldd ./pivot ./test_ops ./libpivot-cuda.so | grep 'not found')
[ -z "$missing" ] || echo "missing here: $missing"

if part ops; then
    try "backend" ./test_cuda
    LINES_OK=12 try "ops" ./test_ops
    try "ops by the kernels of all devices" env PIVOT_CUDA_PLAIN=1 ./test_ops linear attention rope quantize
fi
if part tiny; then
    verify A data/tiny_f32.safetensors --config data/A.json
    verify B data/tiny_f32.safetensors --config data/B.json
    verify D data/tiny_bf16.safetensors --config data/D.json
    against=(./pivot verify --backend cuda --model synth:tiny --against cpu) # 3e-2: docs/precision.md
    for more in "" "--prompt-tokens 5 --views 2" "--expand all" "--recipe bf16 --bound 3e-2" "--recipe bf16 --bound 3e-2 --expand all"; do
        # shellcheck disable=SC2086
        try "against the CPU $more" "${against[@]}" $more
    done
    for recipe in f32 bf16; do
        LINES_OK=1 try "structure $recipe" ./pivot verify --backend cuda --model synth:tiny --structure --recipe $recipe
    done
fi
if part full; then
    try "1,000 replays" ./test_cuda full
    verify "F f32" synth:full --config data/F.json
    verify "F bf16" synth:full --config data/F.json --recipe bf16 --gate data/F.bf16.gate.json
fi
if part bench; then
    for recipe in bf16 f32; do
        LINES_OK=90 try "bench $recipe" ./pivot bench --backend cuda --model synth:full --recipe $recipe --runs "${RUNS:-50}" --warmup 5 --ops
    done
fi
if part report; then
    out=${OUT:-.}
    LINES_OK=90 try "bench, a page" timeout 60 ./pivot bench --backend cuda --model synth:full --recipe bf16 --runs 300 --warmup 10 --ops \
        --json="$out/bench.json" --html "$out/bench.html"
    LINES_OK=20 try "bf16 beside f32" timeout 60 ./pivot bench --backend cuda --model synth:full --runs 30 --ab recipe=bf16,f32
    LINES_OK=40 try "verify, a page" timeout 180 ./pivot verify --backend cuda --model synth:full --recipe bf16 --against cpu --html "$out/verify.html"
fi
if part long; then # two minutes: p99.9 of a figure that is to be trusted
    LINES_OK=20 try "10,000 runs" ./pivot bench --backend cuda --model synth:full --recipe bf16 --runs 10000 --warmup 10
fi
if part lab; then
    out=${OUT:-.}
    for name in mask suffix graph schedule steps reuse attention mlp projections; do
        LINES_OK=90 try "lab $name" timeout 60 ./pivot lab $name --model synth:full --backend cuda --recipe bf16 --json="$out/$name.json"
    done
fi
echo "$passed passed, ${#failed[@]} failed${failed[*]:+:}$(printf ' [%s]' "${failed[@]}" | sed 's/^ \[\]$//')"
[ ${#failed[@]} = 0 ]
