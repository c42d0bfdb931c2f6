"""The examples run as their head comments say."""

import re
import subprocess
import sys

import pytest

from conftest import SOURCE

EXAMPLES = sorted((SOURCE / "examples" / "python").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path):
    command = re.search(r"^    python (.*synth:tiny.*)$", path.read_text(), re.M).group(1)
    done = subprocess.run(
        [sys.executable, *command.split()], cwd=SOURCE, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stderr == "", done
    assert done.stdout.count(" ms\n") == 4


def test_there_are():
    assert EXAMPLES
