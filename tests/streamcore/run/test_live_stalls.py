"""Runs on a veth pair that are stopped for a while, or read slow traffic from several senders: the kernel's ring keeps
what comes, as long as its bytes last, and what is read of a block that the kernel still fills is whole.
"""

import re
import signal
import subprocess
import sys
import time
import zlib

import pytest

from streamcore.source._port import PEEKED_MS, shape
from streamcore.source._ring import CAN_PEEK
from tests.streamcore.conftest import finish_run, read_pcap, udp_frame
from tests.streamcore.run.test_live_run import none_goes_on, send, start_live
from tests.streamcore.source.test_live import capturing

pytestmark = [
    pytest.mark.usefixtures("nothing_left", none_goes_on.__name__),
    pytest.mark.skipif(not CAN_PEEK, reason="on this processor rings do not peek"),
]

PCAP_HEAD_BYTES = 24
STOPPED_PACKETS = 600  # a millisecond apart, or more
SENDER = """
import random, socket, sys, time, zlib
draw = random.Random(int(sys.argv[1]))
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sender.bind(("near", 0))
for number in range(int(sys.argv[2])):
    body = bytes([int(sys.argv[1])]) + number.to_bytes(4, "big") + draw.randbytes(draw.randrange(60, 1400))
    sender.send(b"\\x02" * 12 + b"\\x88\\xb5" + zlib.crc32(body).to_bytes(4, "big") + body)
    if number % 10 == 0:
        time.sleep(0.001)
"""


def until(holds, seconds=30):
    deadline_s = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_a_run_that_is_stopped_for_a_while_loses_nothing_under_any_rule(pair, tmp_path):
    """With the default ring; a millisecond for each of its blocks would be over after a quarter of a second."""
    left, right = pair
    runs = {
        rule: start_live(
            right, "-i", "far", "-w", tmp_path / f"{rule}.pcap", "-n", "1", "--segment-ms", "1", "--overload", rule,
            *(("--spool-bytes", str(1 << 20)) if rule == "spool" else ()),
        )
        for rule in ("drop", "pass", "spool")
    }  # fmt: skip
    frames = [udp_frame(i % 7, i, 100) for i in range(STOPPED_PACKETS)]
    sockets = 2 * len(runs)  # each has a ring and a bell
    until(lambda: right.run("cat", "/proc/net/packet").stdout.count(" 0003 ") >= sockets)
    right.until_heard(runs["spool"])
    for process in runs.values():
        process.send_signal(signal.SIGSTOP)
    send(left, frames, pause_every=1)
    for rule, process in runs.items():
        process.send_signal(signal.SIGCONT)
        out = tmp_path / f"{rule}.pcap"
        until(lambda out=out: out.exists() and out.stat().st_size > PCAP_HEAD_BYTES)  # it reads: an interrupt drains
        process.send_signal(signal.SIGINT)
    for rule, process in runs.items():
        run = finish_run(process)
        assert run.json["live"] == {"received": len(frames), "dropped": {}}, rule
        assert [frame for _, frame in read_pcap(tmp_path / f"{rule}.pcap")] == frames, rule


def test_what_two_senders_send_at_once_is_whole_when_it_is_read_from_an_open_block(pair):
    """Each packet says what it must be. The ring goes round many times, so that open blocks have held other packets."""
    left, right = pair
    count = 2000
    seen = {1: [], 2: []}
    with capturing(right, segment_ms=1, buffer_kib=1024, chunks=4) as (source, counters):
        senders = [left.start(sys.executable, "-c", SENDER, sender, count, stdin=subprocess.DEVNULL) for sender in seen]
        early = 0
        while sum(map(len, seen.values())) < 2 * count and counters.packets("kernel.dropped") == 0:
            batch = next(source)
            for row in range(batch.count):
                packet = batch.packet(row).tobytes()
                assert zlib.crc32(packet[18:]).to_bytes(4, "big") == packet[14:18]
                seen[packet[18]].append(int.from_bytes(packet[19:23], "big"))
            early += time.time_ns() - int(batch.timestamp_ns[batch.count - 1]) < PEEKED_MS * 500_000
            del batch
        for sender in senders:
            assert sender.wait(30) == 0
        source.stop()
        list(source)
    if counters.packets("kernel.dropped") == 0:  # where the machine lets this process wait for long, the ring may fill
        assert seen == {1: list(range(count)), 2: list(range(count))}
    assert early > 10


def test_a_ring_lasts_for_the_time_that_the_manual_says():
    """Blocks times the time of each, for slow traffic: the table of docs/live.md."""
    told = {
        (kib, ms): round(each.blocks * each.retire_ms / 1000, 1)
        for kib, ms in ((32768, 1), (32768, 100), (1024, 1), (256, 1))
        for each in [shape(kib << 10, ms, 1)]
    }
    assert told == {(32768, 1): 128.0, (32768, 100): 16.0, (1024, 1): 4.0, (256, 1): 2.0}
    cooked = shape(32768 << 10, 100, 276)
    assert (cooked.peeks, cooked.blocks * cooked.retire_ms) == (False, 12_800)


def arrived(namespace):
    """Packets that its interface has received."""
    return int(re.search(r"end: *\d+ +(\d+)", namespace.run("cat", "/proc/net/dev").stdout)[1])


def test_without_services_a_bump_starts_no_worker_and_stops_at_once(bump):
    """Nor does it need one: a small segment would cost four wake-ups. Its account adds up in both ends of a run."""
    left, middle, right = bump
    for words, how in ((("--match", "inner", "len > 80"), "drain"), (("udp",), "stop")):  # we apply the first ourselves
        process = start_live(middle, "-i", "west", "-o", "east", "-n", "1", *words)
        frames = [udp_frame(i % 7, i, 10 + 60 * (i % 2)) for i in range(300)]
        send(left, frames, interface="end")
        before = 0 if how == "drain" else 150
        until(lambda before=before: arrived(right) > before)  # it reads: an interrupt drains
        process.send_signal(signal.SIGINT)
        if how == "stop":
            process.send_signal(signal.SIGINT)
        run = finish_run(process)
        assert run.json["workers"]["started"] == 0
        assert "unbalanced" not in run.json
        if how == "drain":
            assert run.status == 130, run.stderr
            assert run.json["packets"]["written"] == 150 == run.json["packets"]["dropped"]["filter.not_matched"]
