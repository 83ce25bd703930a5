"""Every target for a moment, and proof that a read of one byte too many is found. `make fuzz` runs them for longer.

With --all the targets run for longer, and as they are built with AddressSanitizer, if they are built (`make fuzz`).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.streamcore.fuzz.__main__ import SANITIZED
from tests.streamcore.fuzz.planted import PLANTED, build
from tests.streamcore.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[3]
SECONDS, SECONDS_WITH_ALL = 0.2, 3.0


def fuzz(*words, **environment):
    command = [sys.executable, "-m", "tests.streamcore.fuzz", *words]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)


@pytest.mark.timeout(900)
def test_a_short_run_of_every_target(pytestconfig):
    everything = pytestconfig.getoption("--all")
    words = ["--sanitized"] if everything and SANITIZED.is_dir() else []
    done = fuzz("--together", "--seconds", str(SECONDS_WITH_ALL if everything else SECONDS), *words)
    assert done.returncode == 0, done.stdout
    runs = re.findall(r"^(\w+) +([\d,]+) runs", done.stdout, re.MULTILINE)
    assert [target for target, _ in runs] == list(TARGETS)
    assert all(count != "0" for _, count in runs)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("sanitized", [False, True], ids=["guard pages", "AddressSanitizer"])
def test_a_read_of_one_byte_too_many_is_found_and_can_be_repeated(tmp_path, sanitized):
    if sanitized and not SANITIZED.is_dir():
        pytest.skip("the modules with AddressSanitizer are not built: make fuzz")
    build(tmp_path, sanitized)
    words = ["walk", "--seconds", "20", "--seed", "1", *(["--sanitized"] if sanitized else [])]
    done = fuzz(*words, **{PLANTED: str(tmp_path)})
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert ("AddressSanitizer" if sanitized else "Segmentation fault") in done.stdout
    assert ("too_far" in done.stdout) or not sanitized
    seed, batch = re.search(r"--seed (\d+) --batch (\d+)", done.stdout).groups()
    again = fuzz("walk", "--seed", seed, "--batch", batch, *words[5:], **{PLANTED: str(tmp_path)})
    assert again.returncode == 1
    assert f"--batch {batch}" in again.stdout
    fine = fuzz("walk", "--seed", seed, "--batch", batch, *words[5:])
    assert fine.returncode == 0, fine.stdout


def test_words_that_it_does_not_know():
    done = fuzz("no-such-target")
    assert done.returncode == 2
    assert "no target no-such-target" in done.stderr
