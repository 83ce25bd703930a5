"""Minutes of overload under each rule: memory stays flat and every packet is accounted for. Not part of the suite:
`make soak`; SOAK_S says for how long.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.streamcore.conftest import children, finish_run
from tests.streamcore.run.test_live_run import SLOW, start_live

SECONDS = float(os.environ.get("SOAK_S", "600"))
GROWTH_KIB_MAX = 8192
SENDER = """
import socket
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sender.bind(("near", 0))
number = 0
while True:
    for _ in range(40_000):
        number += 1
        sender.send(bytes(12) + b"\\x88\\xb5" + number.to_bytes(8, "big") + bytes(number % 1400 + 1))
"""

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.timeout(SECONDS * 2 + 120)]


def resident_kib(pid):
    """Of a process and its children, what is its own and what it shares (the arenas)."""
    total = 0
    for each in (pid, *children(pid)):
        lines = Path(f"/proc/{each}/status").read_text().splitlines()
        total += int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
    return total


@pytest.mark.parametrize("rule", ["drop", "pass", "spool"])
def test_memory_is_flat_under_overload(pair, tmp_path, rule):
    left, right = pair
    process = start_live(
        right, "-i", "far", "-w", "/dev/null", "-n", "1", "--service", f"{SLOW}:pause_ms=200",
        "--overload", rule, "--spool-bytes", str(256 << 20), "-B", "8192",
    )  # fmt: skip
    sender = left.start(sys.executable, "-c", SENDER, stdin=subprocess.DEVNULL)
    try:
        samples = []
        end_s = time.monotonic() + SECONDS
        while time.monotonic() < end_s:
            time.sleep(SECONDS / 200)
            samples.append(resident_kib(process.pid))
    finally:
        sender.kill()
        sender.wait()
    process.send_signal(signal.SIGINT)
    run = finish_run(process, timeout_s=SECONDS + 60)
    early, late = max(samples[50:100]), max(samples[100:])
    print(f"{rule}: {early} KiB, later {late} KiB; {run.json['live']}, {run.json['notes']}")
    assert late < early + GROWTH_KIB_MAX
    assert "unbalanced" not in run.json
    told = run.json["live"]
    assert told["received"] == run.json["packets"]["read"] + sum(told["dropped"].values())
    assert run.json["packets"]["read"] == run.json["packets"]["written"]
    expected = {"drop": told["dropped"], "pass": run.json["notes"], "spool": run.json["notes"]}[rule]
    name = {"drop": "kernel.dropped", "pass": "overload.passed_unprocessed", "spool": "overload.spooled"}[rule]
    assert expected[name] > 0
