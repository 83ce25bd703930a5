"""How runs end, and what their accounts say then: drained in time or not, interrupted with losses, on a full disk. And
errors of permissions, which name what is in the way.
"""

import errno
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from streamcore.core.config import Config
from streamcore.core.errors import SinkError
from streamcore.core.paths import in_the_way
from streamcore.run.pipeline import Pipeline
from tests.streamcore.conftest import read_pcap, udp_frame, write_pcap

SLOW = f"{Path(__file__).parents[1] / 'services_for_tests.py'}:Slow"
pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def capture(tmp_path):
    return write_pcap(tmp_path / "in.pcap", [udp_frame(i % 50, i, 600) for i in range(3_000)])


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1.5 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1536k", "none", folder]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("a small tmpfs can only be mounted by root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_drain_that_takes_too_long_says_so_stops_and_counts_what_is_left(capture, tmp_path):
    service = f"{SLOW}:pause_ms=100"
    config = Config(
        read=capture, write=tmp_path / "out.pcap", service=[service], workers=1, segment_packets=50, drain_s=2.2
    )
    pipeline = Pipeline(config)
    said = []
    pipeline.say_with(said.append)

    def end():
        while not pipeline.counters.packets("sink.written"):
            time.sleep(0.01)
        pipeline.drain()

    thread = threading.Thread(target=end)
    thread.start()
    account = pipeline.run()
    thread.join()
    assert account.exit_status == 3
    packets = account.json()["packets"]
    assert packets["dropped"] == {"pipeline.undelivered": packets["read"] - packets["written"]}
    assert 0 < packets["written"] == len(read_pcap(tmp_path / "out.pcap")) < packets["read"]
    assert "unbalanced" not in account.json()
    assert "interrupted, and not drained in time" in account.text()
    assert len(said) >= 2
    for line in said[:-1]:
        assert re.fullmatch(r"streamcore: draining, waits for .*not written; stops in [01] s", line)
    assert said[-1] == "streamcore: not drained in 2.2 s: stops, and counts what is left"


@pytest.mark.parametrize("ending", ["pcap", "pcap.gz"])
def test_a_full_disk_ends_in_an_account_that_adds_up(capture, small_disk, ending):
    out = small_disk / f"out.{ending}"
    config = Config(read=capture, write=out, workers=1, segment_packets=100)
    if ending == "pcap.gz":  # random bytes, for what is compressed must be too much, too
        write_pcap(capture, [udp_frame(1, i)[:42] + os.urandom(1000) for i in range(3_000)])
    pipeline = Pipeline(config)
    with pytest.raises(SinkError, match="no space left on device"):
        pipeline.run()
    account = pipeline.account_of_failure().json()
    packets = account["packets"]
    assert "unbalanced" not in account
    assert packets["read"] == packets["written"] + packets["dropped"]["pipeline.undelivered"]
    subprocess.run(["sh", "-c", f"zcat -f {out} > {capture}.back"], check=True)
    in_file = len(read_pcap(f"{capture}.back"))
    assert packets["written"] <= in_file < 3_000  # what fitted of the last write is in the file, too
    assert packets["written"] or ending == "pcap.gz"  # which gathers what is compressed together


def test_a_ring_on_a_disk_that_is_too_small_removes_its_oldest_files(tmp_path, small_disk):
    frames = [udp_frame(i % 50, i, 900) for i in range(6_000)]
    capture = write_pcap(tmp_path / "in.pcap", frames)
    out = small_disk / "out.pcap"
    pipeline = Pipeline(Config(read=capture, write=out, workers=1, rotate_mb=1, rotate_files=8, segment_packets=100))
    (small_disk / "others").write_bytes(bytes(1 << 20))  # for one file there is no room
    with pytest.raises(SinkError, match=r"no space left.*; a ring of 8 files of 1 million bytes needs more"):
        pipeline.run()
    for file in small_disk.iterdir():
        file.unlink()
    account = Pipeline(
        Config(read=capture, write=out, workers=1, rotate_mb=1, rotate_files=8, segment_packets=100)
    ).run()
    told = account.json()
    assert told["notes"]["sink.files_removed"] == 5
    assert account.exit_status == 0
    (left,) = small_disk.iterdir()
    kept = [frame for _, frame in read_pcap(left)]
    assert kept == frames[-len(kept) :]
    assert told["packets"]["written"] == 6_000 == told["notes"]["sink.replaced"] + len(kept)


def test_what_is_in_the_way_is_named(tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    path = closed / "deep" / "out.pcap"
    path.parent.mkdir(parents=True)
    denied = PermissionError(errno.EACCES, "no")
    seen = os.access
    monkeypatch.setattr(os, "access", lambda each, *rest, **more: Path(each) != closed and seen(each, *rest, **more))
    assert in_the_way(denied, path).startswith(f": the directory {closed} is closed to ")
    assert in_the_way(FileNotFoundError(errno.ENOENT, "no"), path) == ""
    assert in_the_way(denied, tmp_path / "other.pcap") == ""


def test_a_hangup_that_the_starter_ignores_is_ignored():
    from streamcore.command.run import hear_interrupts

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        hear_interrupts(None)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert callable(signal.getsignal(signal.SIGTERM))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
