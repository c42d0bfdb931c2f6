#!/bin/bash
# The README's program is examples/infer.c (less its head comment), and every file it links to is there. Its Python program is
# run where the package is installed: python/tests/test_docs.py.
#   readme.sh <root of the source tree>
set -euo pipefail
cd "$1"
wrong=0
# shellcheck disable=SC2016 # backticks of Markdown
if ! diff <(sed -n '/^```c$/,/^```$/p' README.md | sed '1d;$d') <(sed 1d examples/infer.c); then
    echo "README.md: its program is not examples/infer.c"
    wrong=1
fi
links=0
while read -r file; do
    links=$((links + 1))
    if [ ! -e "$file" ]; then
        echo "README.md: links to $file, which is not there"
        wrong=1
    fi
done < <(grep -oE '\]\([^):#]+\)' README.md | sed 's/^](//; s/)$//')
[ $links -gt 5 ] || wrong=1
echo "$links links"
exit $wrong
