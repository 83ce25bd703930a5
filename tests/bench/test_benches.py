"""Every benchmark of bench/ runs, once and untimed: one that nobody has run is one that does not run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CAPTURE_BYTES = "6_000_000"  # some chunks: enough for one round of each, and made in a quarter of the time


def test_every_benchmark_runs(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["BENCH_CAPTURE_BYTES"] = CAPTURE_BYTES
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "bench", "--benchmark-disable", "-q", "-x", "-p", "no:xdist"]
    command.append(f"--junitxml={report}")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    ran = set()
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        reason = "" if skipped is None else skipped.get("message")
        assert reason is not None
        if reason:
            print(f"{case.get('name')} not run: {reason}")
        ran.add((case.get("classname"), str(case.get("name")).partition("[")[0]))
    written = {
        (f"bench.{path.stem}", name)
        for path in (ROOT / "bench").glob("bench_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert ran == written


@pytest.mark.parametrize("words", ["placement.py --placements 20", "allocation.py --rounds 1 --segment-packets 8192"])
def test_every_comparison_with_the_market_runs(words: str) -> None:
    command = [sys.executable, *f"bench/{words}".split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
