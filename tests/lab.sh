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

works '^  20 ' steps "${tiny[@]}" --reference 20
works '"name":' steps "${tiny[@]}" --reference 20 --json
is_lab steps

echo "$passed passed, $failed failed"
[ $failed = 0 ]
