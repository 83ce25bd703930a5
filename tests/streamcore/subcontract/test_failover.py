"""A provider that fails is replaced before a lease is over: bench/failover.py, at the end of the second stream."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
LEASE_MS = 2000
TRIES = 3  # a busy machine only makes an interruption longer


def interruptions_ms():
    """At most, of a provider that was killed and of one that was stopped."""
    command = [sys.executable, "bench/failover.py", "--rounds", "1", "--lease-ms", str(LEASE_MS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == ["killed", "stopped"]
    killed, stopped = (float(row[4]) for row in rows)
    assert killed > 0
    assert stopped > LEASE_MS / 2  # nobody is given up before its deadline
    return killed, stopped


def test_the_second_stream_is_interrupted_for_less_than_a_lease():
    for _ in range(TRIES):
        found_ms = interruptions_ms()
        if max(found_ms) < LEASE_MS:
            break
    assert max(found_ms) < LEASE_MS
