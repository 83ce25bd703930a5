"""Workers that die, hang or lie, and a run that is killed: the output is what it would have been, or what was
delivered is whole.
"""

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from tests.streamcore.conftest import (
    children,
    finish_run,
    kill,
    read_pcap,
    run_command,
    start_run,
    udp_frame,
    write_pcap,
)

pytestmark = pytest.mark.usefixtures("nothing_left")

KILLS = int(os.environ["STREAMCORE_KILLS"])
SERVICES = Path(__file__).parents[1] / "services_for_tests.py"


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    frames = [udp_frame(i * 7919 % 300, i) for i in range(20_000)]
    return write_pcap(tmp_path_factory.mktemp("faults") / "in.pcap", frames)


def listens(pid):
    """Whether a worker process has bound the socket on which it takes segments."""
    try:
        held = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    except OSError:
        return False
    bound = re.findall(r"(\d+) @streamcore-[0-9a-f]{24}-[0-9a-f]{16}", Path("/proc/net/unix").read_text())
    return any(f"socket:[{inode}]" in held for inode in bound)


def wait_for_a_worker(run, timeout_s=5.0):
    """Until a worker listens for segments, or on a busy machine they would all die before they begin."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and not any(map(listens, children(run.pid))):
        time.sleep(0.002)


def flags(capture, output, service, *more):
    return ["-r", capture, "-w", output, "--service", f"{SERVICES}:{service}", *more]


def test_kill_9_of_workers_again_and_again_changes_nothing(capture, tmp_path):
    """With lanes. Without them, and every other moment: tests/streamcore/disperse/simulation.py."""
    more = ["-n", "2", "--policy", "flow", "--segment-packets", "20", "--restarts-max", str(2 * KILLS)]
    whole = run_command(*flags(capture, tmp_path / "whole.pcap", "Slow", *more))
    assert whole.status == 0
    process = start_run(*flags(capture, tmp_path / "out.pcap", "Slow:pause_ms=8", *more, "--json"))
    chance, killed = random.Random(1), set()
    while len(killed) < KILLS and process.poll() is None:
        wait_for_a_worker(process)
        time.sleep(chance.uniform(0.0, 0.1))
        workers = [pid for pid in children(process.pid) if pid not in killed]  # a dead one may not be reaped yet
        if workers and kill(pid := chance.choice(workers)):
            killed.add(pid)
    run = finish_run(process)
    assert run.status == 0, run.stderr
    assert len(killed) == KILLS
    assert (tmp_path / "out.pcap").read_bytes() == (tmp_path / "whole.pcap").read_bytes()
    assert run.json["segments"]["resent"] > 0
    assert run.json["workers"]["lost"] >= KILLS - 5  # some were idle at the end
    assert run.json["packets"] == {"read": 20_000, "written": 20_000, "dropped": {}}


def test_stopped_for_longer_than_the_lease_is_replaced(capture, tmp_path):
    more = ["-n", "2", "--segment-packets", "50", "--lease-ms", "400"]
    run_command(*flags(capture, tmp_path / "whole.pcap", "Slow", *more))
    begun = tmp_path / "begun"
    begun.mkdir()
    process = start_run(*flags(capture, tmp_path / "out.pcap", f"Slow:pause_ms=10,begun={begun}", *more, "--json"))
    while not (working := list(begun.iterdir())) and process.poll() is None:
        time.sleep(0.01)
    assert kill(int(working[0].name), signal.SIGSTOP)
    run = finish_run(process)
    assert run.status == 0, run.stderr
    assert (tmp_path / "out.pcap").read_bytes() == (tmp_path / "whole.pcap").read_bytes()
    assert run.json["segments"]["resent"] > 0
    assert run.json["workers"]["lost"] == 1


FAILURES = {
    "Raises": "not to my taste",
    "Hangs": "no result within 300 ms",
    "Dies": "the worker died",
    "TooMuch": "ResultTooLarge",
    "Undeclared": "EffectError",
    "Header": "record headers",
}


def pytest_generate_tests(metafunc):
    """Every failure with its segment dropped. The rule does not depend on the failure: passed on only for one."""
    if "rule" in metafunc.fixturenames:
        cases = [*((service, "drop") for service in FAILURES), ("Raises", "pass")]
        metafunc.parametrize(("service", "rule"), cases)


def test_a_segment_that_nobody_can_process_goes_to_the_dead_letters(capture, tmp_path, service, rule):
    output = tmp_path / "out.pcap"
    more = ["-n", "2", "--policy", "run", "--segment-packets", "1000", "--lease-ms", "300", "--on-failure", rule]
    run = run_command(*flags(capture, output, f"{service}:every=7001", *more))
    assert run.status == 3, run.stderr
    bad = {0, 7, 14}  # the segments of 1000 that hold packets 0, 7001 and 14002
    frames = [frame for _, frame in read_pcap(capture)]
    dead = [frame for i, frame in enumerate(frames) if i // 1000 in bad]
    kept = frames if rule == "pass" else [frame for i, frame in enumerate(frames) if i // 1000 not in bad]
    written = [frame for _, frame in read_pcap(output)]
    assert written == kept
    told = run.json
    assert told["segments"]["dead_lettered"] == 3
    assert told["segments"]["resent"] >= 6
    assert told["packets"]["read"] == told["packets"]["written"] + sum(told["packets"]["dropped"].values())
    assert any(FAILURES[service] in words for words in told["dead_letter"]["reasons"])
    with open(told["dead_letter"]["path"], "rb") as file:
        import dpkt

        assert sorted(frame for _, frame in dpkt.pcapng.Reader(file)) == sorted(dead)


def test_only_the_segment_that_ends_a_worker_is_blamed(capture, tmp_path):
    """Small segments share a message, and so do their results: those before it have not left when the process ends."""
    more = ["-n", "1", "--policy", "run", "--segment-packets", "20", "--attempts-max", "1", "--restarts-max", "99"]
    run = run_command(*flags(capture, tmp_path / "out.pcap", "Dies:every=3331", *more))
    assert run.status == 3, run.stderr
    frames = [frame for _, frame in read_pcap(capture)]
    bad = {number // 20 for number in range(0, 20_000, 3331)}
    assert run.json["segments"]["dead_lettered"] == len(bad)
    assert [frame for _, frame in read_pcap(tmp_path / "out.pcap")] == [
        frame for i, frame in enumerate(frames) if i // 20 not in bad
    ]


def test_no_worker_left_is_an_error_and_not_a_hang(capture, tmp_path):
    run = run_command(
        *flags(capture, tmp_path / "out.pcap", "Dies:every=1", "-n", "2", "--restarts-max", "0"), timeout_s=20
    )
    assert run.status == 1
    assert run.stderr.strip().splitlines() == ["streamcore: no worker is left: all ended without a result"]


def test_a_service_that_does_not_start_says_why(capture, tmp_path):
    run = run_command(*flags(capture, tmp_path / "out.pcap", "NoStart"), timeout_s=20)
    assert run.status == 1
    (line,) = run.stderr.strip().splitlines()
    assert "my licence has run out" in line


@pytest.mark.parametrize("form", ["pcap", "pcapng", "pcap.gz", "pcapng.zst", "pcap.lz4"])
def test_kill_9_of_the_run_leaves_whole_records(capture, tmp_path, form):
    chance = random.Random(form)
    for _ in range(KILLS // 6):
        output = tmp_path / f"out.{form}"
        process = start_run(*flags(capture, output, "Slow:pause_ms=2", "-n", "1", "--segment-packets", "100"))
        deadline = time.monotonic() + 10
        while not (output.exists() and output.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.3))
        kill(process.pid)
        process.communicate(timeout=10)
        time.sleep(0.3)  # the workers notice, and cut the file at its last whole record
        whole = run_command("-r", output, "-w", tmp_path / "again.pcap")
        assert whole.status == 0, whole.stderr  # damage would be 3
        frames = [frame[42:50] for _, frame in read_pcap(tmp_path / "again.pcap")]
        assert frames == [i.to_bytes(8, "big") for i in range(len(frames))]
        output.unlink()


def test_interrupt_drains(capture, tmp_path):
    output = tmp_path / "out.pcap"
    process = start_run(*flags(capture, output, "Slow:pause_ms=20", "--segment-packets", "100", "--json"))
    while not (output.exists() and output.stat().st_size > 100):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    run = finish_run(process)
    assert run.status == 130
    written = len(read_pcap(output))
    assert written == run.json["packets"]["written"] == run.json["packets"]["read"]
