#!/bin/bash
# The program as its users meet it: help, exit codes, the words of failures, JSON, and files whole or not there.
#   cli.sh <pivot>
# shellcheck source=program.sh
. "$(dirname "$0")/program.sh"

# is_json <schema>: of the last command's stdout
is_json() {
    sed -n 2p out | grep -q "\"schema\":[[:space:]]*\"$1\""
    result "schema $1 comes first" $?
    if command -v python3 >/dev/null; then
        python3 -m json.tool out >/dev/null 2>err
        result "$1 is JSON" $?
    fi
}

# safetensors <file> <header> <bytes of zeros>, with stdin behind them
safetensors() {
    local n=${#2}
    { printf "\\x$(printf %02x $((n % 256)))\\x$(printf %02x $((n / 256)))\0\0\0\0\0\0%s" "$2"
      head -c "$3" /dev/zero; cat; } >"$1"
}

base64 -d >a.png <<'PNG'
iVBORw0KGgoAAAANSUhEUgAAAAgAAAAGCAIAAABxZ0isAAAAiklEQVR42hXLIQ7CQBAF0O9wdXXNmppJHa5iE1z1iFUrcXXIrzhBHcnqkTjM
HgExeu6CB+xLHgAkIAMVINCADsRPIUhyyjJUGSlTk7nLEnIGFEmHrFPVhbo23bqW0Ov/J46ZS+WFLI175z34AAzJpmxrtUK7NTu6PcPegCP5
nH2rvtOP5q/uEf75AqtoMe0u1XyPAAAAAElFTkSuQmCC
PNG
head -c 60 a.png >cut.png
echo "no picture" >text.png
image=(--image base_0_rgb=a.png)
run=(run --model synth:tiny "${image[@]}")
ids=(--tokens "2,17,5")

# ---- the program ----

works '^Usage: pivot COMMAND' --help
works '^pivot [0-9]+\.[0-9]+\.[0-9]+$' --version
expect 2 'Usage: pivot COMMAND'
expect 2 "unknown command 'runn'; did you mean 'run'" runn
expect 2 "unknown command 'xyzzy'$" xyzzy
commands=$("$pivot" --help | sed -nE 's/^  ([a-z]+) .*/\1/p')
for command in $commands; do
    works "^pivot $command - " "$command" --help
    grep -q '^Example' out && grep -qE '^  --help ' out && grep -qE "^Usage: pivot $command " out
    result "pivot $command --help has usage, options and an example" $?
    works '^pivot [0-9.]+$' "$command" --version
    expect 2 "unknown option '--halp'; did you mean --help" "$command" --halp
    expect 2 "Try 'pivot $command --help'" "$command" --no-such-option
done
for command in bench inspect; do
    expect 2 'expected a model: --model' $command
    expect 2 "unexpected argument 'b': MODEL is 'a' already" $command a b
done
expect 2 'expected a model: --model' run "${image[@]}" --prompt a

# ---- run ----

works '^actions in robot units: 10 steps, 7 dims' "${run[@]}" "${ids[@]}"
cp out first
for part in '^prefix +19 tokens, 3 of them of the prompt' '^schedule +openpi, 10 steps; noise drawn from seed 0' \
    '^ +9( +-?[0-9.]+){7}$' '^  total '; do
    grep -qE "$part" first
    result "run prints '$part'" $?
done
actions() { sed -nE '/^actions/,/^time/p' "$1"; }
works 'actions' "${run[@]}" "${ids[@]}" --threads 1
cmp -s <(actions first) <(actions out)
result "one thread gives the same actions" $?
works 'seed 7' "${run[@]}" "${ids[@]}" --seed 7
! cmp -s <(actions first) <(actions out)
result "another seed gives other actions" $?
works '3 steps' "${run[@]}" "${ids[@]}" --steps 3 --schedule cosine
works '^model +synth:tiny' run synth:tiny "${image[@]}" "${ids[@]}" --horizon 4 --recipe bf16

works '"actions"' "${run[@]}" "${ids[@]}" --json --state 0,0,1,3,0,0,0.01,-0.01
is_json pivot.run/1
works '"seed":[[:space:]]*18446744073709551615' "${run[@]}" "${ids[@]}" --json --seed 18446744073709551615

works 'written +seen' "${run[@]}" "${ids[@]}" --dump-inputs seen --dump t.safetensors --plot a.svg
grep -q '"schema":[[:space:]]*"pivot.inputs/1"' seen/tokens.json && grep -qE '"ids":[[:space:]]*\[2, 17, 5\]' seen/tokens.json
result "tokens.json holds the ids" $?
grep -q '^<svg' a.svg || grep -q '<svg' a.svg
result "the plot is an SVG" $?
works 'a trace' inspect t.safetensors
for name in in.image.base_0_rgb.u8 in.image.right_wrist_0_rgb.u8 in.image_mask in.tokens in.token_mask in.noise \
    step9.time out.actions; do
    grep -qE "^  $name " out
    result "the dump holds $name" $?
done
works '56 x 56.*sees 56 x 56' run synth:tiny --image base_0_rgb=seen/base_0_rgb.png --noise t.safetensors "${ids[@]}"
cmp -s <(actions first) <(actions out)
result "the dumped picture and noise give the same actions" $?
"$pivot" "${run[@]}" "${ids[@]}" --schedule linear --dump s.safetensors >/dev/null 2>err
works 'sched.linear.actions' inspect s.safetensors
! grep -q 'out.actions' out
result "another schedule's actions are not out.actions" $?

printf '1 0.5,0.25\n0\n' >times.txt
printf ' [1, 0.5, 0.25, 0]' >times.json
works '4 times read from times.txt: 3 steps' "${run[@]}" "${ids[@]}" --schedule times.txt
cp out second
works '4 times read from times.json: 3 steps' "${run[@]}" "${ids[@]}" --schedule times.json
cmp -s <(actions second) <(actions out)
result "times as text and as JSON are the same" $?
printf '1 .75 .5 .25 0' >line.txt
works 'linear' "${run[@]}" "${ids[@]}" --schedule linear --steps 4
cp out second
works 'line.txt: 4 steps' "${run[@]}" "${ids[@]}" --schedule line.txt
cmp -s <(actions second) <(actions out)
result "a schedule's times from a file give its actions" $?
works 'openpi, 4 steps' "${run[@]}" "${ids[@]}" --steps 4
cp out second
works '3 steps' "${run[@]}" "${ids[@]}" --schedule times.txt --steps 3
! cmp -s <(actions second) <(actions out)
result "other times give other actions" $?
printf '1 0.5 x 0' >bad.txt
printf '1 0.5 0.5 0' >flat.txt
printf '[1, "0"]' >bad.json
printf '1' >one.txt
printf '1 .75 .5 .25' >short.txt
expect 0 'warning: the last of 4 times is 0.25, not 0' "${run[@]}" "${ids[@]}" --schedule short.txt
expect 1 "bad.txt: expected numbers; number 2 is 'x'" "${run[@]}" "${ids[@]}" --schedule bad.txt
expect 1 'flat.txt: timestep 2 of 4 is 0.5: expected times' "${run[@]}" "${ids[@]}" --schedule flat.txt
expect 1 'bad.json: expected an array.*element 1 is no number' "${run[@]}" "${ids[@]}" --schedule bad.json
expect 1 'one.txt: expected times' "${run[@]}" "${ids[@]}" --schedule one.txt
expect 2 '--steps 5, but times.txt has the 4 times of 3 steps' "${run[@]}" "${ids[@]}" --schedule times.txt --steps 5
expect 2 "'cosin': neither a file nor .*did you mean cosine" "${run[@]}" "${ids[@]}" --schedule cosin

# ---- what run dumps, verify accepts ----

for how in '' '--steps 4' '--schedule linear' '--schedule lerobot --steps 7' '--schedule line.txt' '--horizon 4'; do
    horizon=()
    [[ $how != --horizon* ]] || horizon=(--horizon 4)
    # shellcheck disable=SC2086
    "$pivot" run synth:tiny --image base_0_rgb=a.png --image right_wrist_0_rgb=a.png "${ids[@]}" $how --dump d.safetensors \
        >/dev/null 2>err
    works 'all within bounds' verify synth:tiny --trace d.safetensors "${horizon[@]}"
    grep -qE '^(out|sched) +[12] +[0-9.]+%  (out|sched.*).actions' out
    result "verify --trace sums up" $?
    works '"schema"' verify synth:tiny --trace d.safetensors "${horizon[@]}" --json
done
expect 1 'noise' verify synth:tiny --trace d.safetensors

# ---- devices ----

works '^cpu$' devices --backend cpu
grep -qE '^  0: .+' out && grep -qE '^    memory +.*, the host' out && grep -qE '^    vector instructions +' out && [ "$(wc -l <out)" -gt 4 ]
result "the CPU is told" $?
works '^(cuda|vulkan)' devices
grep -qE '^cuda(: not available: .+)?$' out && grep -qE '^vulkan(: not available: .+)?$' out
result "every backend is told" $?
works '"cores":[[:space:]]*[0-9]+' devices --backend cpu --json
is_json pivot.devices/1
works '"available"' devices --json
is_json pivot.devices/1
expect 4 "backend 'abacus' is unknown" devices --backend abacus
expect 4 "backend 'abacus' is unknown" devices --backend abacus --json
expect 2 "unexpected argument 'cpu'" devices cpu
expect 4 "device '7': there are 0 \(" "${run[@]}" "${ids[@]}" --device 7
works '^actions' "${run[@]}" "${ids[@]}" --device 0
if "$pivot" devices --backend vulkan --json >out 2>err; then
    is_json pivot.devices/1
    for line in 'subgroup size": *[0-9]+,' 'largest storage range": *[0-9]+,' '16-bit storage": *(true|false),' \
        'float16": *(true|false),' 'bfloat16": *(true|false),' 'cooperative matrix": *("|false)' '"Vulkan": *"1\.[0-9]+\.[0-9]+"' \
        '"driver": *"[^"]+"' '"uuid": *"[0-9a-f-]{36}"'; do
        grep -qE "$(sed 's/: \*/:[[:space:]]*/' <<<"$line")" out
        result "pivot devices tells $line" $?
    done
    if grep -qE '"software":[[:space:]]*true' out && ! grep -qE '"software":[[:space:]]*false' out; then # nothing but software
        for command in "run ${run[*]:1} ${ids[*]}" "bench synth:tiny --runs 1" "verify synth:tiny --against cpu" "inspect synth:tiny --plan"; do
            # shellcheck disable=SC2086 # words
            expect 4 'vulkan has nothing but software here \(.*llvmpipe.*used only when it is named' $command --backend vulkan
        done
        expect 4 'vulkan has nothing but software here' verify synth:tiny --against vulkan
        works '^actions' "${run[@]}" "${ids[@]}" --backend vulkan --device llvmpipe
        works 'all within bounds' verify synth:tiny --against vulkan --against-device 0 --views 1 --prompt-tokens 4 --steps 1
    fi
fi

# ---- one backend against another ----

verify=(verify synth:tiny)
works '^[0-9]+ tensors compared, ([0-9]+) of them with equal bytes, all within bounds' "${verify[@]}" --against cpu
same='^([0-9]+) tensors compared, \1 of them with equal bytes, all within bounds$'
grep -qE "$same" out && grep -qE '^cpu \(f32\) against cpu \(f32\), made-up inputs: 3 cameras, 23 prompt tokens, prefix of 71, 10 steps$' out &&
    grep -qE '^prefix.layer1.attn/softmax +softmax +0.00e\+00' out && grep -qE '^step.x_next +axpy +0.00e\+00 .* [0-9]+$' out
result "the CPU has its own bytes, op by op" $?
works "$same" "${verify[@]}" --against cpu --recipe bf16 --hold 1 --steps 2 --expand geglu,attention --expand all
grep -q 'in [2-9] rounds' out
result "what cannot be held at once takes rounds" $?
"$pivot" run synth:tiny "${image[@]}" "${ids[@]}" --dump d.safetensors >/dev/null 2>err
works "$same" "${verify[@]}" --against cpu --trace d.safetensors --steps 2
grep -q 'd.safetensors: 1 cameras, 3 prompt tokens, prefix of 19, 2 steps' out
result "the inputs are those of the trace" $?
works 'all within bounds' "${verify[@]}" --against cpu:f32 --recipe bf16 --bound 0.1 --views 1 --prompt-tokens 4
! grep -qE "$same" out
result "another recipe has other bytes" $?
"$pivot" "${verify[@]}" --against cpu:f32 --recipe bf16 --bound 1e-4 >out 2>err
came=$?
[ $came = 3 ] && tail -n 1 out | grep -qE '^[0-9]+ of [0-9]+ out of bounds; first: vision.layer0.attn_norm, by layer_norm \(relative L2'
result "verify --against names the first tensor beyond its bound, and its op (came $came)" $?
"$pivot" "${verify[@]}" --trace d.safetensors --recipe bf16 --bound 1e-6 >out 2>err
came=$?
[ $came = 3 ] && tail -n 1 out | grep -qE 'out of bounds; first: out.actions \(relative L2 .*, bound 1.00e-06, worst at element [0-9]+\)$'
result "verify --trace names the first tensor beyond its bound (came $came)" $?
works '"against"' "${verify[@]}" --against cpu --steps 2 --expand attention --json
is_json pivot.verify/1
grep -qE '"expanded":[[:space:]]*\["attention"\]' out && grep -qE '"passed":[[:space:]]*true' out && grep -qE '"same_bytes":[[:space:]]*true' out
result "verify --against in JSON" $?
works '^13 checks, all hold$' "${verify[@]}" --structure --steps 2
works '^9 checks, all hold; some left out$' "${verify[@]}" --structure --steps 2 --prompt-tokens 23 --views 1 --recipe bf16
works 'all hold' "${verify[@]}" --structure --trace d.safetensors --expand all
works '"passed":[[:space:]]*true' "${verify[@]}" --structure --steps 1 --json
is_json pivot.structure/1
expect 2 '--structure is judged to the bit: no --against' "${verify[@]}" --structure --against cpu
expect 2 '--views and --prompt-tokens are of made-up inputs' "${verify[@]}" --structure --trace d.safetensors --views 1

# ---- the page ----

cp d.safetensors '<i>&"d.safetensors'
echo '{"schema": "pivot.gate/1", "bounds": {"step.layer1.attn": {"from_start": 0}}}' >nothing.json
for how in "--against cpu --recipe bf16 --steps 2" "--against cpu:f32 --recipe bf16 --steps 1 --gate nothing.json" "--recipe bf16 --bound 1e-6"; do
    # shellcheck disable=SC2086
    "$pivot" "${verify[@]}" --trace '<i>&"d.safetensors' $how --html page.html >out 2>err
    grep -q '<svg' page.html && grep -q '&lt;i&gt;&amp;&quot;d.safetensors' page.html && ! grep -qE '<i>|<script|http|url\(' page.html &&
        grep -qF "$(tail -n 1 out | cut -d'(' -f1)" page.html
    result "verify $how --html" $?
    if command -v python3 >/dev/null; then
        python3 - page.html <<'END' 2>err
import html.parser, sys
class Page(html.parser.HTMLParser):
    open_tags = []
    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "path", "rect", "circle"):
            self.open_tags.append(tag)
    def handle_endtag(self, tag):
        if tag not in ("path", "rect", "circle") and self.open_tags.pop() != tag:
            sys.exit("closed where it is not open: " + tag)
Page().feed(open(sys.argv[1]).read())
sys.exit(bool(Page.open_tags))
END
        result "its tags match" $?
    fi
done
expect 1 'no/page.html' "${verify[@]}" --against cpu --steps 1 --html no/page.html
expect 2 '--structure is judged to the bit' "${verify[@]}" --structure --html page.html

# ---- gates ----

against=("${verify[@]}" --against cpu:f32 --recipe bf16 --steps 2)
works 'all within bounds' "${against[@]}" --write-gate gate.json
cp gate.json out
is_json pivot.gate/1
works 'all within bounds' "${against[@]}" --gate gate.json --bound 1e-12
sed 's/\("from_start":[[:space:]]*\)0\.00[0-9]*/\10.0000003/' gate.json >tight.json
"$pivot" "${against[@]}" --gate tight.json >out 2>err
came=$?
[ $came = 3 ] && tail -n 1 out | grep -qE 'out of bounds; first: vision.layer0.attn_norm, by layer_norm \(relative L2 .*, bound 3.00e-07, worst'
result "a tighter gate names the first tensor beyond it (came $came)" $?
echo '{"schema": "pivot.gate/1", "bounds": {"step.layer1.*": {"own": 0}, "*.attn/*": {"from_start": 0.5}}}' >own.json
works 'all within bounds' "${against[@]}" --gate own.json
echo '{"schema": "pivot.gate/1", "bounds": {"step.layer9.*": {"own": 0}}}' >none.json
"$pivot" "${against[@]}" --gate none.json >out 2>err
came=$?
[ $came = 3 ] && tail -n 1 out | grep -qE "tensors compared; gate none.json bounds 'step.layer9.\*', which was not$"
result "a gate on what is not compared is not kept (came $came)" $?
expect 1 'gate.json: the gate is for recipe bf16, this run has f32' "${verify[@]}" --against cpu --gate gate.json
expect 1 'gate.json: the gate is for against_recipe f32, this run has bf16' "${verify[@]}" --against cpu --recipe bf16 --gate gate.json
for bad in '[]' '{"schema": "x"}' '{"schema": "pivot.gate/1"}' '{"schema": "pivot.gate/1", "bounds": {}}' '{"schema": "pivot.gate/1", "bounds": {"a": 1}}' \
    '{"schema": "pivot.gate/1", "bounds": {"a": {}}}' '{"schema": "pivot.gate/1", "bounds": {"a": {"owm": 1}}}' \
    '{"schema": "pivot.gate/1", "bounds": {"a": {"own": -1}}}' '{"schema": "pivot.gate/1", "recipe": 3, "bounds": {"a": {"own": 1}}}'; do
    echo "$bad" >bad.json
    expect 1 'bad.json: .*expected' "${verify[@]}" --against cpu --gate bad.json
done
works 'all within bounds' "${verify[@]}" --trace d.safetensors --recipe bf16 --bound 1 --write-gate trace.json
works 'all within bounds' "${verify[@]}" --trace d.safetensors --recipe bf16 --gate trace.json

expect 2 'expected a trace \(--trace FILE\), a backend to compare with \(--against cpu\) or --structure' "${verify[@]}"
expect 2 "--against: expected BACKEND or BACKEND:RECIPE, came 'cpu:'" "${verify[@]}" --against cpu:
expect 2 'recipe bf16 has no bounds of its own; give one' "${verify[@]}" --trace d.safetensors --recipe bf16
works 'ops on the inputs they had: 0 beyond their budgets$' "${verify[@]}" --against cpu:f32 --recipe bf16 --steps 2
works '^step.layer2 +36 +0.0%' "${verify[@]}" --against cpu --recipe bf16 --steps 2
grep -qE '^tensor +op +own error +budget \| +from start +recipe +max/spread +centred cos +cosine +max abs +mean abs +worst at +step$' out
result "the recipe's error in a column of its own" $?
expect 2 '--views, --prompt-tokens, --steps, --hold and --against-device belong to --against' "${verify[@]}" --trace d.safetensors --steps 2
expect 2 '--views and --prompt-tokens are of made-up inputs' "${verify[@]}" --against cpu --trace d.safetensors --views 1
expect 2 '--dump is of a comparison with a trace' "${verify[@]}" --against cpu --dump x
expect 1 '--views: the model has 3 cameras, came 4' "${verify[@]}" --against cpu --views 4
expect 1 '--prompt-tokens: the model has room for 23, came 24' "${verify[@]}" --against cpu --prompt-tokens 24
expect 1 "recipe 'fp8': expected one of f32, bf16, openpi, lerobot" "${verify[@]}" --against cpu:fp8 --bound 1
expect 4 "backend 'abacus' is unknown" "${verify[@]}" --against abacus
expect 2 "--expand 'atention': no such op; expected some of attention, .*gated_norm.*did you mean attention" "${verify[@]}" --against cpu --expand atention
expect 2 "--expand 'linear': a primitive, which has no body; expected some of attention" "${verify[@]}" --against cpu --expand geglu,linear
expect 2 "--expand '': no such op" "${verify[@]}" --against cpu --expand geglu,

works "$same" "${verify[@]}" --against cpu --steps 1 --expand geglu
works 'actions' "${run[@]}" "${ids[@]}" --expand attention,geglu --expand gated_residual
cmp -s <(actions first) <(actions out)
result "expanded, the CPU runs what it runs anyway" $?
works '"expanded"' "${run[@]}" "${ids[@]}" --expand all --json
works '"expanded"' bench synth:tiny --runs 1 --expand geglu --json
works '^  denoise' bench synth:tiny --runs 1 --expand geglu --ops
for command in "run ${image[*]} ${ids[*]}" bench; do
    # shellcheck disable=SC2086
    expect 2 "--expand 'no': no such op; expected some of attention" $command synth:tiny --expand no
done

# ---- run, with words ----

if "$pivot" inspect synth:tiny | grep -q '^tokenizer *embedded'; then
    works 'actions in robot units' "${run[@]}" --prompt "pick up the cup"
    expect 1 'prompt: expected a task in words, came an empty text' "${run[@]}" --prompt ""
    expect 1 'prompt: expected a task in words, came blanks alone' "${run[@]}" --prompt "  "
    long="a b c d e f g h i j k l m n o p q r s t u v w x y z"
    expect 1 'prompt: [0-9]+ tokens, at most 23 fit' "${run[@]}" --prompt "$long"
    expect 0 'warning: the prompt is too long: cut at its end to 23 tokens' "${run[@]}" --prompt "$long" --allow-truncation
    expect 1 'state: this policy is told its state in the prompt; expected up to 8 numbers' "${run[@]}" --prompt a --discrete-state on
else
    expect 1 'no tokenizer.*--tokens' "${run[@]}" --prompt a
fi

# ---- synth: with other dimensions: what comes with it is left out where it does not fit ----

printf '{"vocab": 97, "action_dim": 5, "horizon": 3}' >other.json
expect 0 'embedded statistics: .*; left out' "${run[@]}" "${ids[@]}" --config other.json
grep -q '^actions in model units (no statistics): 3 steps, 5 dims' out
result "and the actions come in model units" $?
expect 1 'no tokenizer; give one \(--tokenizer FILE\)' "${run[@]}" --prompt a --config other.json

# ---- run, with bad input ----

expect 2 'expected --prompt' "${run[@]}"
expect 2 '--prompt and --tokens exclude each other' "${run[@]}" --prompt a "${ids[@]}"
expect 2 'expected --image' run synth:tiny "${ids[@]}"
expect 2 "expected CAM=FILE, came 'base_0_rgb'" run synth:tiny --image base_0_rgb "${ids[@]}"
expect 2 "--steps: expected a whole number from 1 to 100000, came '0'" "${run[@]}" "${ids[@]}" --steps 0
expect 2 "--steps: expected .*, came '3x'" "${run[@]}" "${ids[@]}" --steps 3x
expect 2 "--seed: expected .*, came '-1'" "${run[@]}" "${ids[@]}" --seed -1
expect 2 "--discrete-state: expected on or off, came 'yes'" "${run[@]}" "${ids[@]}" --discrete-state yes
expect 2 '--prompt: expected a value' "${run[@]}" --prompt
expect 2 '--json takes no value' "${run[@]}" "${ids[@]}" --json=1
expect 2 "unexpected argument 'more': MODEL is 'synth:tiny' already" "${run[@]}" "${ids[@]}" more
expect 2 "--tokens: expected whole numbers .*number 1 is '6e0'" "${run[@]}" --tokens 2,6e0
expect 2 "--state: expected numbers .*number 1 is ''" "${run[@]}" "${ids[@]}" --state 1,,2
expect 1 'token 1 is 503; the vocabulary has 0 to 502' "${run[@]}" --tokens 2,503
expect 1 'tokens: expected 1 to 23, came 24' "${run[@]}" --tokens "$(seq -s, 24)"
expect 1 'state: number 1 is -?nan' "${run[@]}" "${ids[@]}" --state 0,nan
expect 1 'state: number 0 is inf' "${run[@]}" "${ids[@]}" --state 1e999
expect 1 'state: expected 1 to 8 numbers.*came 9' "${run[@]}" "${ids[@]}" --state 0,0,1,3,0,0,0.01,-0.01,0
expect 0 'warning: 1 of 8 numbers of the state lie outside q01..q99.*number 2 is 99, not in 0.4..1.3' \
    "${run[@]}" "${ids[@]}" --state 0,0,99,3,0,0,0.01,-0.01
expect 1 "camera 'front': the model has base_0_rgb, left_wrist_0_rgb" run synth:tiny --image front=a.png "${ids[@]}"
expect 1 "camera 'base_0_rgb' has two pictures" "${run[@]}" "${image[@]}" "${ids[@]}"
expect 1 "camera 'base_0_rgb': none.png: cannot be opened" run synth:tiny --image base_0_rgb=none.png "${ids[@]}"
expect 1 "camera 'base_0_rgb': text.png: expected a JPEG or PNG" run synth:tiny --image base_0_rgb=text.png "${ids[@]}"
expect 1 "camera 'base_0_rgb': cut.png" run synth:tiny --image base_0_rgb=cut.png "${ids[@]}"
expect 1 'nowhere: no such folder or file' run nowhere "${image[@]}" "${ids[@]}"
expect 1 "recipe 'fp8': expected one of f32, bf16, openpi, lerobot" "${run[@]}" "${ids[@]}" --recipe fp8
for recipe in openpi lerobot; do
    works '^  total ' "${run[@]}" "${ids[@]}" --recipe $recipe
    works 'all within bounds' "${verify[@]}" --against cpu --recipe $recipe --steps 2
    works '^  total ' bench synth:tiny --runs 1 --recipe $recipe
    works '^  prefix.layer0.attn/softmax.* bf16' inspect synth:tiny --plan --recipe $recipe
    works 'checks, all hold' "${verify[@]}" --structure --steps 1 --recipe $recipe
done
expect 4 "backend 'abacus' is unknown" "${run[@]}" "${ids[@]}" --backend abacus
expect 4 "device '7'" "${run[@]}" "${ids[@]}" --device 7

safetensors other.safetensors '{"x":{"dtype":"F32","shape":[10,32],"data_offsets":[0,1280]}}' 1280 </dev/null
safetensors small.safetensors '{"noise":{"dtype":"F32","shape":[10,7],"data_offsets":[0,280]}}' 280 </dev/null
safetensors zero.safetensors '{"noise":{"dtype":"F32","shape":[10,32],"data_offsets":[0,1280]}}' 1280 </dev/null
printf '\0\0\xc0\x7f' | safetensors nan.safetensors '{"noise":{"dtype":"F32","shape":[10,32],"data_offsets":[0,1280]}}' 1276
works 'noise from zero.safetensors' "${run[@]}" "${ids[@]}" --noise zero.safetensors
expect 1 "other.safetensors: expected a tensor 'noise' F32 \[10, 32\], there is none" "${run[@]}" "${ids[@]}" --noise other.safetensors
expect 1 "small.safetensors: tensor 'noise': expected F32 \[10, 32\], came F32 .*\[10, 7\]" "${run[@]}" "${ids[@]}" --noise small.safetensors
expect 1 'noise: element 319 is -?nan' "${run[@]}" "${ids[@]}" --noise nan.safetensors

# ---- files that cannot be written: a status, and nothing left ----

nothing_left() { # folder
    [ -z "$(find "$1" -mindepth 1 2>/dev/null)" ]
    result "nothing half-written is left in $1" $?
}
mkdir new full
mkfifo pipe
ln -s nowhere link
expect 1 'pipe: expected a regular file or none' "${run[@]}" "${ids[@]}" --dump pipe
expect 1 'link: expected a regular file or none' "${run[@]}" "${ids[@]}" --plot link
expect 2 "--dump and --plot name the same file 'new/x'" "${run[@]}" "${ids[@]}" --dump new/x --plot new/x
[ -p pipe ] && [ -L link ]
result "a pipe and a link stay what they are" $?
expect 1 'new/none/t.safetensors.*cannot be created' "${run[@]}" "${ids[@]}" --dump new/none/t.safetensors
expect 1 'a.png: expected a folder' "${run[@]}" "${ids[@]}" --dump-inputs a.png
limited() ( # KiB, arguments: what would make a file longer fails, as on a full disk
    trap '' XFSZ
    ulimit -f "$1"
    exec "$pivot" "${@:2}"
)
for case in '1 --dump new/t.safetensors' '1 --plot new/a.svg' '0 --dump new/t.safetensors' '0 --plot new/a.svg' \
    '0 --dump-inputs new'; do
    read -r size option file <<<"$case"
    limited "$size" "${run[@]}" "${ids[@]}" "$option" "$file" 2>&1 | cat >err
    code=${PIPESTATUS[0]}
    [ "$code" = 1 ] && grep -q 'new/.*cannot be written' err
    result "$option with $size KiB left (came $code)" $?
    nothing_left new
done
if mount -t tmpfs -o size=8k none full 2>/dev/null; then
    expect 1 'full/t.safetensors: cannot be written: No space left' "${run[@]}" "${ids[@]}" --dump full/t.safetensors
    nothing_left full
    umount full
fi
if [ -c /dev/full ]; then
    "$pivot" "${run[@]}" "${ids[@]}" >/dev/full 2>err
    [ $? = 1 ] && grep -q 'standard output cannot be written' err
    result "standard output on a full disk" $?
fi

# ---- bench ----

works '^  total ' bench synth:tiny --runs 2 --ops
grep -qE '^  denoise +linear .*%' out && grep -qE '^  (planned|peak) +[0-9.]+ MiB' out
result "bench prints ops and memory" $?
grep -qE '^version .*, 20[0-9]{2}-[0-9]{2}-[0-9]{2}T' out && grep -qE '^rates .* GB/s measured with a copy, .* TFLOP/s measured' out &&
    grep -qE '^time .* p99\.9 .* floor' out && grep -qE '^  denoise .* [0-9]+ %$' out && grep -qE '^  host ' out
result "bench prints conditions, and floors beside the times" $?
works '"same_prompt":[[:space:]]*true' bench synth:tiny --runs 3 --bandwidth 1e6 --flops 1e-3 --same-prompt --ops --json
! command -v python3 >/dev/null || python3 - out <<'END'
import json, sys
b = json.load(open(sys.argv[1]))
flops = {s: sum(o["flops"] for o in b["ops"] if o["stage"] == s) for s in ("vision", "prefix", "denoise")}
for s, n in flops.items():
    assert n > 0 and abs(b["time_ms"][s]["floor"] / (n / 1e9 * 1e3) - 1) < 0.01, (s, n, b["time_ms"][s])
t = b["time_ms"]
assert all(t["total"][p] >= t["run"]["min"] for p in ("p50", "p999")) and t["total"]["p99"] <= t["total"]["p999"] <= t["total"]["max"]
assert b["rates"] == {"bytes_per_s": 1e15, "flops_per_s": 1e9, "bytes_given": True, "flops_given": True}
assert b["date"] and "git" in b and b["conditions"]["unknown"] == ""
weights = [o["bytes"] for o in b["ops"] if o["stage"] == "denoise" and o["op"] == "linear"][0]
assert 10 * 4e5 < weights < 10 * 4e6, weights # ten steps, each with the weights of the expert
END
result "floors are operations by the rate that was given" $?
works '^  total ' bench synth:tiny --runs 1 --json=bench.json
cp bench.json out && is_json pivot.bench/2
"$pivot" bench synth:tiny --runs 1 --json=no/bench.json >out 2>err
[ $? = 1 ] && grep -q 'no/bench.json' err && grep -q '^  total ' out
result "bench says what it measured although the file cannot be written" $?
expect 2 '--flops' bench synth:tiny --flops 0
expect 2 '--every' bench synth:tiny --every 0
began=$(date +%s%N)
works '"every_ms":[[:space:]]*250,' bench synth:tiny --runs 4 --warmup 1 --every 250 --json
[ $((($(date +%s%N) - began) / 1000000)) -ge 1000 ]
result "bench begins a run when it is due" $?
works '^runs .*, one every 20 ms$' bench synth:tiny --runs 2 --every 20
works '^  total ' bench synth:tiny --runs 2 --every 20 --ab recipe=f32,bf16
expect 2 '--sms' bench synth:tiny --sms 0
expect 4 '20 multiprocessors: the cpu backend has none' bench synth:tiny --sms 20
works '"time_ms"' bench synth:tiny --runs 1 --views 1 --prompt-tokens 3 --steps 2 --horizon 4 --ops --json
is_json pivot.bench/2
grep -qE '"prefix_tokens":[[:space:]]*19' out
result "bench has 16 tokens of a picture and 3 of the prompt" $?
planned=$("$pivot" inspect synth:tiny --memory --json | sed -nE 's/.*"(weights|state|scratch|io|const|host)":[[:space:]]*([0-9]+).*/\1 \2/p' | sort)
used=$("$pivot" bench synth:tiny --runs 1 --json | sed -nE '/memory_bytes/,/}/s/.*"(weights|state|scratch|io|const|host)":[[:space:]]*([0-9]+).*/\1 \2/p' | sort)
[ "$(wc -l <<<"$planned")" = 6 ] && [ "$planned" = "$used" ]
result "a session takes the bytes that the plan said" $?
expect 2 '--views: the model has 3 cameras, came 4' bench synth:tiny --views 4
works '^  all +[0-9.]+ m?s   from nothing to actions' bench synth:tiny --runs 6 --json=one.json --html=one.html --ops
grep -qE '^  load peak +[0-9.]+ [MG]iB +of the process while it loaded; weights and embedding are ' out &&
    grep -qE '^  rate +[0-9.]+ Hz' out && grep -qE '^  prefix +[0-9.]+ [KM]iB +[0-9.]+ +[0-9.]+ +[0-9.]+$' out
result "bench prints load peak, rate, bytes and FLOPs of stages" $?
! grep -qE 'https?:|<script|src=|NaN|nan|inf ' one.html && grep -q 'waterfall of the stages' one.html && grep -q 'waterfall of the cold start' one.html &&
    grep -q '<h2>Ops' one.html && tail -1 one.html | grep -q '</body></html>'
result "bench's page is whole and fetches nothing" $?
if command -v xmllint >/dev/null; then
    xmllint --html --noout one.html 2>err || true
    ! grep -vE 'Tag (svg|path|rect|text|title|figure|figcaption|main) invalid|^<|^ *\^|Unexpected end tag : p' err | grep -q 'error'
    result "bench's page is HTML" $?
fi
if command -v python3 >/dev/null; then
    python3 - one.json 2>err <<'END'
import json, sys
b = json.load(open(sys.argv[1]))
cold = b["cold_start_ms"]
parts = [cold[k] for k in ("open", "model", "plan", "weights", "record", "rest", "first")]
assert all(p >= 0 for p in parts) and abs(sum(parts) - cold["all"]) < 1e-3, cold
assert cold["weights"] > 0 and cold["plan"] > 0 and cold["first"] >= b["time_ms"]["total"]["min"]
assert abs(b["hz"] - 1e3 / b["time_ms"]["total"]["p50"]) < 0.01 * b["hz"]
m = b["memory_bytes"]
assert m["load_peak"] >= m["weights"] + m["host"] and m["peak"] >= m["load_peak"]
t = b["time_ms"]["vision"]
assert t["p25"] <= t["p50"] <= t["p75"] and abs(t["percent_of_floor"] - 100 * t["floor"] / t["p50"]) < 0.1
flops = sum(o["flops"] for o in b["ops"] if o["stage"] == "prefix")
assert abs(b["stages"]["prefix"]["flops"] - flops) < 1e-6 * flops
steady = json.loads(json.dumps(b)) # whatever else this machine does
for t in steady["time_ms"].values():
    if isinstance(t, dict):
        t["p25"], t["p75"] = 0.99 * t["p50"], 1.01 * t["p50"]
json.dump(steady, open("steady.json", "w"))
slow = json.loads(json.dumps(steady))
for t in slow["time_ms"].values():
    if isinstance(t, dict):
        for k in t:
            t[k] *= 3
slow["recipe"] = "bf16"
json.dump(slow, open("slow.json", "w"))
few = dict(b, runs=4)
json.dump(few, open("few.json", "w"))
del b["time_ms"]["host"]["p25"]
json.dump(b, open("less.json", "w"))
b["time_ms"]["host"] = dict(p25=3, p50=2, p75=1)
json.dump(b, open("order.json", "w"))
b["time_ms"] = 3
json.dump(b, open("flat.json", "w"))
END
    result "bench's cold start, stages and percentages agree with one another" $?
    works '^  total .* 1\.000 .*within the noise$' bench --compare one.json one.json
    works '^  total .* 3\.000 .*larger than the noise$' bench --compare steady.json slow.json
    grep -q '^  recipe  *A "f32", B "bf16"$' out
    result "bench --compare says what else differs" $?
    works 'too few runs to say' bench --compare few.json one.json
    works '"verdict":[[:space:]]*"different"' bench --compare steady.json slow.json --json
    is_json pivot.bench-compare/1
    expect 1 "less.json: 'time_ms.host.p25' is missing: expected what .pivot bench --json. writes" bench --compare one.json less.json
    expect 1 "order.json: 'time_ms.host': p25, p50 and p75 are not in order" bench --compare order.json one.json
    expect 1 "flat.json: 'time_ms' is missing" bench --compare one.json flat.json
fi
for json in '{}' '[1]' '3' '{"schema": 7}' '{"schema": "pivot.run/1"}' '{"schema": "pivot.bench/2"}' '{"schema": "pivot.bench/2", "runs": 0}' \
    '{"schema": "pivot.bench/2", "runs": 3}' '{"schema": "pivot.bench/2", "runs": 1e300}' '{"schema": "pivot.bench/2", "runs": 3, "time_ms": {}}' \
    '{"schema": "pivot.bench/2", "runs": 3, "time_ms": {"observe": {"p50": "x"}}}' ''; do
    printf '%s' "$json" >foreign.json
    expect 1 'foreign.json: ' bench --compare one.json foreign.json
done
expect 1 "nowhere.json: cannot be opened" bench --compare one.json nowhere.json
expect 2 '--compare: expected two files' bench --compare one.json
works '^  total .*(noise)$' bench synth:tiny --runs 6 --steps 1 --ab recipe=f32,bf16
grep -q '^A  *f32, 6 runs$' out && grep -q '^B  *bf16, 6 runs$' out
result "bench --ab says what ran" $?
works 'too few runs to say$' bench synth:tiny --runs 2 --rounds 2 --steps 1 --views 1 --ab "program=$pivot,$pivot"
works '"verdict"' bench synth:tiny --runs 1 --rounds 1 --steps 1 --ab "program=$pivot,$pivot" --json
expect 1 'false bench: ended with status 1' bench synth:tiny --rounds 1 --ab program=false,true
expect 1 'true' bench synth:tiny --rounds 1 --ab program=true,false
expect 1 'nowhere/pivot: cannot be started' bench synth:tiny --rounds 1 --ab program=nowhere/pivot,true
expect 1 "recipe 'fp3': expected one of" bench synth:tiny --ab recipe=f32,fp3
for ab in recipe=f32 recipe=,f32 recipe=a,b,c steps=1,2 f32,bf16; do
    expect 2 "--ab: expected recipe=A,B or program=A,B, came '$ab'" bench synth:tiny --ab "$ab"
done
expect 2 '--ops is of one bench' bench synth:tiny --ab recipe=f32,bf16 --ops
expect 2 '--compare runs nothing' bench synth:tiny --ab recipe=f32,bf16 --compare one.json
works '^  total ' bench synth:tiny --runs 5 --steps 1 --ab recipe=f32,f32 --html ab.html
works '^  total ' bench --compare one.json one.json --html pair.html
for page in ab.html pair.html; do
    ! grep -qE 'https?:|<script|src=|NaN|nan|inf ' $page && grep -q 'waterfall of both' $page && tail -1 $page | grep -q '</body></html>'
    result "bench's page of two, $page" $?
done
expect 2 '--ab names the recipes' bench synth:tiny --ab recipe=f32,bf16 --recipe f32
"$pivot" bench synth:tiny --runs 1 --html no/a.html >out 2>err
[ $? = 1 ] && grep -q 'no/a.html' err && grep -q '^  total ' out
result "bench says what it measured although the page cannot be written" $?
expect 2 '--prompt-tokens: the model has room for 23, came 24' bench synth:tiny --prompt-tokens 24
expect 4 'abacus' bench synth:tiny --backend abacus

# ---- inspect ----

works '^parameters +1,340,096' inspect synth:tiny
works '"layout"' inspect synth:tiny --json --tensors --plan --memory --graph text
is_json pivot.inspect/1
works '^camera +left_wrist_0_rgb +images/cam_left_wrist, may be missing' inspect --robot aloha
works '^camera +right_wrist_0_rgb +absent' inspect --robot libero
works '^pivot run --model of_lerobot' synth tiny --layout lerobot --out of_lerobot
works '^state +8 numbers' inspect of_lerobot
works 'policy_preprocessor.json, applied by the rules of lerobot' inspect of_lerobot
works '"rules"' inspect of_lerobot --json
works '^camera +base_0_rgb +observation.images.base_0_rgb' inspect --robot of_lerobot
first_action() {
    "$pivot" run --model of_lerobot --image base_0_rgb=of_lerobot/images/base_0_rgb.png --prompt x --json \
        --state 0.25,-0.02,0.9,3.1,0.1,-0.1,0.025,-0.025 | tr -d '\n\t ' | sed -E 's/.*"actions":\[\[([^],]*).*/\1/'
}
as_it_is=$(first_action)
sed -Ei 's/("enabled":[[:space:]]*)false/\1true/' of_lerobot/policy_p*processor.json
awk -v a="$as_it_is" -v b="$(first_action)" 'BEGIN { d = b - a - 0.25; exit !(d < 1e-5 && d > -1e-5) }'
result "run adds the state to lerobot's relative actions" $?
sed -i 's/"to_batch_processor"/"turn_processor"/' of_lerobot/policy_preprocessor.json
expect 1 "steps\[1\]: the step 'turn_processor' is not known here" inspect of_lerobot
expect 1 "the step 'turn_processor'" run --model of_lerobot --image base_0_rgb=of_lerobot/images/base_0_rgb.png --prompt x
expect 2 "expected --robot" serve --model synth:tiny
works '"state_dim"' inspect --robot droid --json
is_json pivot.robot/1
expect 1 "robot 'panda': neither built in \(libero, droid, aloha\)" inspect --robot panda
expect 2 'came both' inspect synth:tiny --robot droid
works '^# [0-9]+ nodes' inspect synth:tiny --graph text
[ "$(head -c 1 out)" = '#' ]
result "the graph stands alone" $?
works '^digraph pivot' inspect synth:tiny --graph dot --pass lower
works '^  lower +[0-9]+' inspect synth:tiny --plan
works 'embed_tokens.weight +bf16 +\[503, 160\] +.* +embedding table' inspect synth:tiny --tensors
expect 2 "--graph: expected text or dot, came 'svg'" inspect synth:tiny --graph svg
expect 2 "--pass 'melt': expected one of build, prune" inspect synth:tiny --graph text --pass melt
expect 2 'give them \(--config FILE\)' inspect zero.safetensors --plan
expect 1 'text.png' inspect text.png
works '"tensors"' inspect zero.safetensors --json
is_json pivot.inspect/1

# ---- replay: with recordings in serve.py ----

works 'what computes \(default: as recorded\)' replay --help

expect 2 'expected a recording or a folder' replay
expect 1 'none.safetensors: cannot be opened' replay none.safetensors
expect 1 "no 'format'" replay zero.safetensors
mkdir empty
expect 1 'empty: holds no .safetensors files' replay empty

echo "$passed passed, $failed failed"
[ $failed = 0 ]
