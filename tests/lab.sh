#!/bin/bash
# `pivot lab` as its users meet it, on the tiny made-up model: help, mistakes, the page, and JSON held to its schema.
#   lab.sh <pivot>
# shellcheck source=program.sh
. "$(dirname "$0")/program.sh"

refuses() { # as expect, of `pivot lab`
    expect "$1" "$2" lab "${@:3}"
}

shows() { # as works
    works "$1" lab "${@:2}"
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

tiny=(--model synth:tiny --runs 2 --warmup 0 --threads 1)

shows '^  steps ' --help
refuses 2 "did you mean 'steps'" stps --model synth:tiny
refuses 2 'expected the name of an experiment'
refuses 2 'expected the name of an experiment' --
refuses 2 'expected a model' steps
refuses 2 'views: the model has 3 cameras, came 4' steps --model synth:tiny --views 4
refuses 2 'runs: expected a whole number from 1 to' steps --model synth:tiny --runs 0
refuses 4 'nowhere' steps --model synth:tiny --backend nowhere
for name in $("$pivot" lab --help | sed -n 's/^  \([a-z]*\)  .*/\1/p'); do
    shows "^Usage: pivot lab $name --model MODEL" "$name" --help
done

# values <name>: of the last command's JSON; its schema, and lines "table begins with|row|key|python expression of v" from stdin
values() {
    command -v python3 >/dev/null || return 0
    is_lab "$1"
    python3 - "$(cat)" <<'PY' 2>err
import json, math, sys
rows = json.load(open("out"))["rows"]
def row(table, name):
    found = [r for r in rows if r["table"].startswith(table) and r["name"] == name]
    assert len(found) == 1, f"{len(found)} rows {name}"
    return found[0]
for line in sys.argv[1].splitlines():
    table, name, key, test = line.split("|")
    v = row(table, name)[key]
    assert eval(test.split("#")[0]), f"{line}: {v}"
PY
    result "values of lab $1" $?
}

shows '"name":' mask "${tiny[@]}" --json
values mask <<'END'
The mask that|c right_wrist_0_rgb|sees|v == ". . . . . ."
The mask that|f actions|sees|v == "1 1 . 1 . 1" # full among themselves, both ways: not causal
The mask that|d prompt|first_position|v == 32
The mask that|f actions|last_position|v == 46
Whole inferences|packed, a count and no mask|prefix_tokens|v == 37
Whole inferences|every slot, the mask added to the scores|error|v < 1e-6 # another order of sums, and no more
Whole inferences|every slot, no mask|error|v > 1e-2
Something else|mask: noise in the slots of absent cameras|changed|v == 0
Something else|mask: words behind the prompt|changed|v == 0
Something else|packed: NaN behind the prompt|changed|v == 0
Something else|packed: one pixel of a camera that is there|changed|v > 0
END
shows '"name":' mask "${tiny[@]}" --absent base_0_rgb --json # positions begin behind it
values mask <<'END'
The mask that|b left_wrist_0_rgb|first_position|v == 0
Whole inferences|every slot, the mask added to the scores|error|v < 1e-6
END
shows 'openpi builds' mask "${tiny[@]}" --prompt 'pick up the red block' --recipe bf16
refuses 2 'absent goes without --image' mask "${tiny[@]}" --absent base_0_rgb --image base_0_rgb=x.png
refuses 1 "no camera 'elbow'" mask "${tiny[@]}" --absent elbow
refuses 1 'one camera at least' mask "${tiny[@]}" --absent base_0_rgb --absent left_wrist_0_rgb --absent right_wrist_0_rgb
refuses 2 'prompt-tokens: the model has room for 23, came 24' mask "${tiny[@]}" --prompt-tokens 24

shows '"name":' suffix "${tiny[@]}" --json
values suffix <<'END'
One step|time MLP|share|0 < v < 100
One step|time MLP|hoisted_ms|v < row(table, name)["median_ms"]
The loop|hoisted|error|v < 1e-6 # the same sums, perhaps in another order for one row than for ten
Against float64|time embedding|error|0 < v < 6e-8
Against float64|condition, hoisted|error|0 < v < 1e-6
Against float64|last modulation, hoisted|error|0 < v < 1e-6
Against float64|action projection, first row of the noise|error|0 < v < 1e-6
END
shows 'what is hoisted' suffix "${tiny[@]}" --steps 1 --recipe bf16

shows 'Every step is one evaluation' schedule "${tiny[@]}" --reference 20 --plot p.svg --json=both.json
grep -q 'quadratic</text>' p.svg
result 'the chart names its curves' $?
mv both.json out
values schedule <<'END'
Where a schedule|linear, 10 steps|first_30_covers|abs(v - 30) < 1e-4
Where a schedule|cosine, 10 steps|first_30_covers|abs(v - 100 * (1 - math.cos(0.3 * math.pi / 2))) < 1e-4
Where a schedule|cosine, 10 steps|last_30_covers|abs(v - 100 * math.cos(0.7 * math.pi / 2)) < 1e-4
Where a schedule|cosine, 10 steps|evaluations_late|v == 10 # 1 of 10, where the report says 45 %
Where a schedule|cosine, 10 steps|largest_from|abs(v - math.cos(0.9 * math.pi / 2)) < 1e-6 # the last step
Where a schedule|quadratic, 10 steps|last_30_covers|abs(v - 51) < 1e-4
Where a schedule|quadratic, 10 steps|report_thor|v == "9 % early, 51 % late"
Times at which|step 5|quadratic|v == 0.75
Times at which|step 5|sigmoid|abs(v - 0.5) < 1e-6
Error of the actions|1|heun|v is None
Error of the actions|1|cosine|v == row(table, name)["error"] # a single step is the same whatever its name
Error of the actions|40|error|0 < v < 0.5
END
printf '1 0.5 0.25 0' >own.txt
shows 'own.txt, 3 steps' schedule "${tiny[@]}" --reference 2 --schedule own.txt --prompt 'pick up the red block' --views 1
printf '1 0.5 0.75 0' >own.txt
refuses 1 'own.txt' schedule "${tiny[@]}" --reference 20 --schedule own.txt
refuses 1 'gone.txt' schedule "${tiny[@]}" --reference 2 --schedule gone.txt
refuses 2 'reference: expected a whole number from 2' schedule "${tiny[@]}" --reference 1
refuses 1 'nowhere/p.svg' schedule "${tiny[@]}" --reference 2 --plot nowhere/p.svg
refuses 2 'prompt-tokens: the model has room for' schedule --model synth:tiny --prompt-tokens 99999
refuses 1 'gone.png' schedule "${tiny[@]}" --image base_0_rgb=gone.png
refuses 1 'none of its cameras|camera' schedule "${tiny[@]}" --image elbow=gone.png

shows '"name":' reuse "${tiny[@]}" --json
values reuse <<'END'
Steps taken|0 of 10 steps|error|v == 0 # the plain run, bit for bit
Steps taken|0 of 10 steps|moved_error|v is None
Steps taken|9 of 10 steps|error|v > row(table, "3 of 10 steps")["error"] > 0
To compare|the old chunk itself, in place of the next|error|v > 0
END
shows '"name":' reuse "${tiny[@]}" --change 0 --chunks 1 --steps 1 --json
values reuse <<'END'
Steps taken|0 of 1 steps|later_error|v == 0
END
refuses 2 'change: expected a whole number from 0 to 255' reuse "${tiny[@]}" --change 256

shows '"name":' graph "${tiny[@]}" --json
values graph <<'END'
Fused ops|a node at a time|error|v == 0
Fused ops|a node at a time, each waited for|error|v == 0
Fused ops|a node at a time, each waited for|submissions|v > 100
END
shows 'nodes a step, 1 steps' graph "${tiny[@]}" --steps 1

shows '^  20 ' steps "${tiny[@]}" --reference 20 --json=both.json
mv both.json out
is_lab steps

# A mask of zeros changes nothing and a causal one does; the rows of few bits are there, as far off as their bits say.
shows '"name":' attention "${tiny[@]}" --json
values attention <<'END'
10 queries|eager: scores, softmax, values through memory|error|1e-3 < v < 5e-3
10 queries|eager with an additive mask of zeros|error|v == row(table, "eager: scores, softmax, values through memory")["error"]
10 queries|fused, all keys, its own layout|error|1e-3 < v < 2.5e-3
10 queries|fused, a length in place of the mask|error|v == row(table, "fused, all keys, its own layout")["error"]
10 queries|fused, with explicit transposes|error|v == row(table, "fused, all keys, its own layout")["error"]
10 queries|causal among the action tokens (wrong)|error|v > 0.1
10 queries|causal among the action tokens (wrong)|cosine_shared_mean|v > 0.999 # and yet it is wrong
10 queries|causal among the action tokens (wrong)|error_shared_mean|v > 0.01
10 queries|causal among the action tokens (wrong)|median_ms|v > 0
END
shows '"name":' attention "${tiny[@]}" --recipe f32 --views 1 --prompt-tokens 3 --steps 1 --json
values attention <<'END'
10 queries on 19 + 10 keys|eager with an additive mask of zeros|error|v < 1e-6
10 queries on 19 + 10 keys|fused, with explicit transposes|error|v < 1e-6
END
refuses 2 'expected f32, bf16 or f16' attention --model synth:tiny --recipe e4m3

shows '"name":' mlp "${tiny[@]}" --json
values mlp <<'END'
Expert|bf16|error|1e-3 < v < 1e-2
Expert|f16|error|v < 1e-3
Expert|e4m3, dynamic scales|error|0.03 < v < 0.1
Expert|e4m3, static scales, fused|error|0.03 < v < 0.1
Expert|e4m3, static, f16 in between|error|0.03 < v < 0.1
Expert|the last one's conversions alone|error|v is None
Expert|4-bit weights, bf16 in registers|error|0.1 < v < 0.25
Prefix|4-bit weights, bf16 through memory|error|v == row(table, "4-bit weights, bf16 in registers")["error"]
Prefix|e4m3, static scales, fused|report_thor|v == "2.94x (TensorRT)"
END
shows '"name":' projections "${tiny[@]}" --json
values projections <<'END'
Products of|q|error|v < 3e-3
Products of|q, k, v, o one by one|nodes|v == 4
Products of|gate, up, down joined|error|v < 3e-3
END
shows 'joined ' projections "${tiny[@]}" --recipe f16

echo "$passed passed, $failed failed"
[ $failed = 0 ]
