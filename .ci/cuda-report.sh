#!/bin/bash
# What the compiler made of our CUDA kernels, one line each: registers of a thread, static shared memory, spilled bytes, and the
# tensor-core instructions in the machine code. Fails if one of them spills: a kernel that does not fit its registers runs
# through memory and says nothing. Needs no GPU.
#   .ci/cuda-report.sh                   builds for sm_90a and sm_110a in BUILD (default build-ci-report) and reports on both
#   .ci/cuda-report.sh FOLDER ARCH...    reports on what cuda-compile.sh left in FOLDER, for these of its architectures
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-${BUILD:-build-ci-report}}
archs=("${@:2}")

if [ $# = 0 ]; then
    archs=(90a 110a)
    rm -rf "$folder"
    cmake -S . -B "$folder" -DPV_CUDA=ON -DPV_TESTS=OFF -DPV_TOOLS=OFF -DPV_BLAS=OFF -DPV_TOKENIZER=OFF \
        -DCMAKE_CUDA_FLAGS="-Xptxas -v" -DCMAKE_CUDA_ARCHITECTURES="$(printf '%s-real;' "${archs[@]}")" >"$folder.log" 2>&1 ||
        { cat "$folder.log"; exit 1; }
    if ! cmake --build "$folder" -j "$(nproc)" --target pivot-cuda >"$folder/module.log" 2>&1; then
        grep -vE "^ptxas info|^ +[0-9]+ bytes stack frame" "$folder/module.log" | tail -n 80
        exit 1
    fi
fi

# Toolkits come without the disassembler at times: two wheels of a MB and five have it, whichever the version.
PATH=$PATH:${CUDA_PATH:-/usr/local/cuda}/bin
if ! command -v cuobjdump >/dev/null || ! command -v nvdisasm >/dev/null; then
    tools=build-ci-toolkit-tools
    [ -x $tools/bin/python3 ] || python3 -m venv $tools
    $tools/bin/pip install --quiet --disable-pip-version-check 'nvidia-cuda-cuobjdump>=13' 'nvidia-cuda-nvdisasm>=13'
    PATH=$PATH:$(echo $tools/lib/python3*/site-packages/nvidia/cu13/bin)
fi

wrong=0
for arch in "${archs[@]}"; do
    echo "sm_$arch, by kernel: registers, static shared memory, spilled bytes, tensor-core instructions"
    awk -v want="sm_$arch" '
        FNR == NR { # the report of ptxas
            if (/Compiling entry function/) { split($0, part, "\047"); kernel = part[2]; ours = part[4] == want }
            if (ours && /bytes spill stores/) spilled[kernel] = $5 + $9
            if (ours && /Used [0-9]+ registers/)
                for (i = 2; i <= NF; i++) {
                    if ($i == "registers,") registers[kernel] = $(i - 1)
                    if ($i ~ /^smem/) shared[kernel] = $(i - 2)
                }
            next
        }
        $1 == "Function" { kernel = $3; seen[kernel] = 1 }
        /^ +\/\*[0-9a-f]+\*\/ / { # address, perhaps a predicate, instruction
            word = $2 ~ /^@/ ? $3 : $2
            sub(/[.;].*/, "", word)
            if (word ~ /^(UTC)?[A-Z]*MMA$/) count[kernel " " word]++
        }
        END {
            for (pair in count) {
                split(pair, part, " ")
                tensor[part[1]] = tensor[part[1]] " " part[2] " x" count[pair]
            }
            for (k in registers) {
                if (!(k in seen)) { print "? " k " is not in the module"; bad = 1 }
                printf "%s %d %d %d%s\n", k, registers[k], shared[k], spilled[k], tensor[k]
                bad = bad || spilled[k] > 0
                n++
            }
            exit !n || bad
        }' "$folder/module.log" <(cuobjdump -sass -arch "sm_$arch" "$folder/libpivot-cuda.so") >"$folder/report.txt" || wrong=1
    [ -s "$folder/report.txt" ] || echo "nothing was compiled for sm_$arch"
    c++filt -p <"$folder/report.txt" | sort |
        awk '{ # the name has blanks; three numbers stand behind it
            for (i = NF; !($i ~ /^[0-9]+$/ && $(i - 1) ~ /^[0-9]+$/ && $(i - 2) ~ /^[0-9]+$/); i--)
                if (i < 4) { print; next }
            name = $1
            for (k = 2; k < i - 2; k++) name = name " " $k
            rest = ""
            for (k = i + 1; k <= NF; k++) rest = rest " " $k
            printf "  %-64s %4d %6d %s%s\n", name, $(i - 2), $(i - 1), ($i > 0 ? $i " SPILLED" : "-"), rest
            n++; spilled += ($i > 0); tensor += (rest != "") }
            END { printf "sm_%s: %d kernels, %d with tensor-core instructions, %d spill\n", arch, n, tensor, spilled }' arch="$arch"
done
exit $wrong
