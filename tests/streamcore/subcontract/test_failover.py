"""A provider that fails is replaced before a lease is over: bench/failover.py, at the end of the second stream."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
LEASE_MS = 2000


def test_the_second_stream_is_interrupted_for_less_than_a_lease():
    command = [sys.executable, "bench/failover.py", "--rounds", "1", "--lease-ms", str(LEASE_MS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == ["killed", "stopped"]
    at_most_ms = [float(row[4]) for row in rows]
    assert 0 < at_most_ms[0] < LEASE_MS
    assert LEASE_MS / 2 < at_most_ms[1] < LEASE_MS  # nobody is given up before its deadline
