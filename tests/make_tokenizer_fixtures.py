#!/usr/bin/env python3
"""Makes tests/data/tokens.inc: texts and the ids SentencePiece itself gives them with core/model/tiny/tokenizer.model.

spm_encode (Debian: sentencepiece) does the texts of one line, and must agree with the Python module, which does all.

    python3 tests/make_tokenizer_fixtures.py
"""
import pathlib
import subprocess

import sentencepiece

TEXTS = [
    "", " ", "  ", "a", "pick up the red block and put it in the bowl", "Pick up the spoon and place it on the table.",
    "open the drawer", "fold the towel", "do nothing", "stack the green cup on top of the box", "\n", "\n\n", "a\nb",
    " leading", "trailing ", "two  spaces   three", "0123456789", "128", "-1", "State: 128 0 255 -1 12 34 56 78;",
    "Task: open the drawer, State: 24 152 134 84 135 78 105 176;\nAction: ",
    "Task: pick up the red block and put it in the bowl, State: 255 255 255 255 255 255 255 255;\nAction: ",
    "QZJ zebra quiz", "é", "Öffne die Schublade", "把红色的方块放进碗里", "🤖 robot", "naïve café",
    "\u2581", "a\u2581b", "<s>", "<unk>", "</s><pad>", "<0x41>", "tab\there", "\x01\x7f", "ﬁ Å 가", "e\u0301",
    "uncap_the_pen", "PICK UP THE RED BLOCK", "blockblockblock", "x" * 40, "\u00a0", "\r\n",
]


def c_string(text):
    out = "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode())
    return f'"{out}"'


def main():
    here = pathlib.Path(__file__).parent
    model = here.parent / "core" / "model" / "tiny" / "tokenizer.model"
    sp = sentencepiece.SentencePieceProcessor(model_file=str(model))
    one_line = [t for t in TEXTS if t and "\n" not in t and "\r" not in t]
    said = subprocess.run(["spm_encode", f"--model={model}", "--output_format=id"], input="\n".join(one_line) + "\n",
                          encoding="utf-8", capture_output=True, check=True).stdout
    by_program = dict(zip(one_line, said.split("\n")))
    lines = ["/* Made by make_tokenizer_fixtures.py. */", "static const struct text {", "    const char *text;",
             "    int n;", "    int32_t id[128];", "} texts[] = {"]
    for text in TEXTS:
        ids = sp.encode(text)
        assert text not in by_program or by_program[text].split() == [str(i) for i in ids], text
        lines += [f"    {{{c_string(text)},", f"     {len(ids)},", f"     {{{', '.join(map(str, ids)) or '0'}}}}},"]
    lines.append("};")
    (here / "data" / "tokens.inc").write_text("\n".join(lines) + "\n")


main()
