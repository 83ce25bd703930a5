"""Every benchmark of bench/ runs, once and untimed: one that nobody has run is one that does not run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_benchmark_runs() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "bench", "--benchmark-disable", "-q", "-x", "-p", "no:xdist"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("words", ["placement.py --placements 20", "allocation.py --rounds 1 --segment-packets 8192"])
def test_every_comparison_with_the_market_runs(words: str) -> None:
    command = [sys.executable, *f"bench/{words}".split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
