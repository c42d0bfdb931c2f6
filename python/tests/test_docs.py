"""The Python programs in README.md and docs/python.md run as they stand there."""

import re
import subprocess
import sys

import pytest

from conftest import SOURCE

PROGRAMS = {
    f"{file}, {n}": program
    for file in ("README.md", "docs/python.md")
    for n, program in enumerate(re.findall(r"^```python\n(.*?)^```$", (SOURCE / file).read_text(), re.M | re.S), 1)
}


def test_there_are():
    assert {name.split(",")[0] for name in PROGRAMS} == {"README.md", "docs/python.md"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS[name]], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stderr == "", done
    assert "(10, 7)" in done.stdout
