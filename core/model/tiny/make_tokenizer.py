#!/usr/bin/env python3
"""Makes tokenizer.model, the tokenizer of the tiny synthetic policy. Needs spm_train (SentencePiece 0.1.97).

The same kind of model as PaliGemma's: BPE with byte fallback, nothing normalised, no space put in front, every digit a
piece of its own, pad 0, eos 1, bos 2, unk 3. The text is every prompt that the words of tokenizer.txt allow.

    cd core/model/tiny && python3 make_tokenizer.py
"""
import itertools
import pathlib
import re
import subprocess


def sentences(text):
    """Lines of the form name = a | b | c are word lists; other lines are prompts in which {name} takes each word."""
    words = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if " = " in line:
            name, choice = line.split(" = ")
            words[name] = choice.split(" | ")
            continue
        names = re.findall(r"{(\w+)}", line)
        for picked in itertools.product(*(words[n] for n in names)):
            parts = iter(picked)
            yield re.sub(r"{\w+}", lambda _: next(parts), line)


def main():
    text = pathlib.Path("tokenizer.txt").read_text()
    corpus = pathlib.Path("tokenizer.corpus")
    corpus.write_text("\n".join(sentences(text)) + "\n")
    subprocess.run(
        ["spm_train", "--input=tokenizer.corpus", "--model_prefix=tokenizer", "--model_type=bpe",
         "--vocab_size=503", "--hard_vocab_limit=false", "--byte_fallback=true", "--character_coverage=1.0",
         "--normalization_rule_name=identity", "--add_dummy_prefix=false", "--remove_extra_whitespaces=false",
         "--split_digits=true", "--pad_id=0", "--eos_id=1", "--bos_id=2", "--unk_id=3", "--num_threads=1",
         "--minloglevel=1"], check=True)
    corpus.unlink()
    pathlib.Path("tokenizer.vocab").unlink()


main()
