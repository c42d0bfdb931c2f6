#!/bin/bash
# `pivot lab` as its users meet it, on the tiny made-up model: help, mistakes, the page, and JSON held to its schema.
#   lab.sh <pivot>
set -uo pipefail
pivot=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
export PIVOT_CACHE=$dir/kept
passed=0 failed=0

result() { # name, status
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $1"
        sed 's/^/    /' err 2>/dev/null | head -5
    fi
}

# refuses <exit code> <extended regular expression on stderr> <arguments...>; and says nothing on stdout
refuses() {
    local code=$1 words=$2 came
    shift 2
    "$pivot" lab "$@" >out 2>err
    came=$?
    [ $came = "$code" ] && grep -qE -- "$words" err && [ ! -s out ]
    result "pivot lab $* (expected $code and '$words', came $came)" $?
}

# works <extended regular expression on stdout> <arguments...>; and is silent on stderr
works() {
    local words=$1 came
    shift
    "$pivot" lab "$@" >out 2>err
    came=$?
    [ $came = 0 ] && grep -qE -- "$words" out && [ ! -s err ]
    result "pivot lab $* (expected '$words', came $came)" $?
}

# The JSON of the last command: its schema, and that rows have a name, a time or none, an error or none.
is_lab() { # name
    command -v python3 >/dev/null || return 0
    python3 - "$1" <<'PY' 2>err
import json, sys
text = open("out").read()
def unique(pairs):
    assert len({k for k, _ in pairs}) == len(pairs), "a key comes twice"
    return dict(pairs)
lab = json.loads(text, object_pairs_hook=unique)
assert list(lab)[0] == "schema" and lab["schema"] == "pivot.lab/1" and lab["name"] == sys.argv[1]
assert lab["device"] and lab["backend"] == "cpu" and lab["rows"]
for row in lab["rows"]:
    assert row["table"] and row["name"], row
    assert row["error"] is None or isinstance(row["error"], (int, float)), row
    if row["median_ms"] is not None:
        assert 0 < row["p25_ms"] <= row["median_ms"] <= row["p75_ms"] and row["runs"] > 0, row
    assert isinstance(row.get("report_thor", ""), str)
assert all(isinstance(note, str) for note in lab["notes"])
PY
    result "JSON of lab $1" $?
}

tiny=(--model synth:tiny --runs 2 --warmup 0)

works '^  steps ' --help
refuses 2 "did you mean 'steps'" stps --model synth:tiny
refuses 2 'Usage: pivot lab NAME'
refuses 2 'expected a model' steps
refuses 2 'views: the model has 3 cameras, came 4' steps --model synth:tiny --views 4
refuses 2 'runs: expected a whole number from 1 to' steps --model synth:tiny --runs 0
refuses 4 'nowhere' steps --model synth:tiny --backend nowhere
for name in $("$pivot" lab --help | sed -n 's/^  \([a-z]*\)  .*/\1/p'); do
    works "^Usage: pivot lab $name --model MODEL" "$name" --help
done

# A mask of zeros changes nothing and a causal one does; the rows of few bits are there and as far off as their bits say.
holds() { # name, python expression on e: errors by row
    command -v python3 >/dev/null || return 0
    python3 - "$2" <<'PY' 2>err
import json, sys
e = {}
for row in json.load(open("out"))["rows"]:
    e.setdefault(row["name"], row["error"])
assert eval(sys.argv[1]), e
PY
    result "$1: $2" $?
}

works '"name":' attention "${tiny[@]}" --json
is_lab attention
holds attention "e['eager: scores, softmax, values through memory'] == e['eager with an additive mask of zeros'] < 5e-3"
holds attention "e['fused, a length in place of the mask'] == e['fused, all keys, its own layout'] == e['fused, with explicit transposes'] < 2.5e-3"
holds attention "e['causal among the action tokens (wrong)'] > 0.1"
works '"name":' attention "${tiny[@]}" --recipe f32 --views 1 --prompt-tokens 3 --steps 1 --json
holds attention "all(v < 1e-6 for k, v in e.items() if 'wrong' not in k)"
refuses 2 'expected f32, bf16 or f16' attention --model synth:tiny --recipe e4m3
works '"name":' mlp "${tiny[@]}" --json
is_lab mlp
holds mlp "len(e) == 10 and e['f16'] < e['bf16'] < 1e-2"
holds mlp "all(0.03 < v < 0.1 for k, v in e.items() if k.startswith('e4m3'))"
holds mlp "e['4-bit weights, bf16 in registers'] == e['4-bit weights, bf16 through memory'] and 0.1 < e['4-bit weights, bf16 in registers'] < 0.25"
works 'joined ' projections "${tiny[@]}" --recipe f16
works '"name":' projections "${tiny[@]}" --json
is_lab projections
holds projections "len(e) == 11 and all(v < 3e-3 for v in e.values())"

works '^  20 ' steps "${tiny[@]}" --reference 20
works '"name":' steps "${tiny[@]}" --reference 20 --json
is_lab steps

echo "$passed passed, $failed failed"
[ $failed = 0 ]
