"""`streamcore run -i` on a veth pair, overloaded, under each rule: every packet that the kernel had for us is accounted
for, and memory stays bounded.
"""

import gzip
import io
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import dpkt
import pytest

from tests.streamcore.conftest import COMMAND, MARK, finish_run, read_pcap, udp_frame
from tests.streamcore.parse.packets_by_hand import ethernet, ip4, tcp, udp

pytestmark = pytest.mark.usefixtures("nothing_left")

SLOW = f"{Path(__file__).parents[1] / 'services_for_tests.py'}:Slow"
FRAME_BYTES = 1000
STARTED = []


@pytest.fixture(autouse=True)
def none_goes_on():
    """What a failed test has left running is killed."""
    yield
    while STARTED:
        if (process := STARTED.pop()).poll() is None:
            process.kill()
            process.communicate()


def start_live(namespace, *arguments):
    environment = os.environ | dict([MARK.split("=")])
    process = namespace.start(
        *COMMAND, "run", "--json", *arguments,
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    STARTED.append(process)
    namespace.until_heard(process)
    return process


def send(namespace, frames, pause_every=0, interface="near"):
    with namespace.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sender.bind((interface, 0))
    with sender:
        for number, frame in enumerate(frames):
            sender.send(frame)
            if pause_every and number % pause_every == 0:
                time.sleep(0.001)


def peak_kib(process):
    return int(
        next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmHWM" in line).split()[
            1
        ]
    )


def overloaded(left, right, tmp_path, rule, *more, count=8_000):
    """Packets of 1 kB into a ring of 1 MiB and six small chunks, with a slow worker: (run, packets out, sent)."""
    out = tmp_path / "out.pcap"
    process = start_live(
        right, "-i", "far", "-w", out, "-n", "1", "--overload", rule, "--service", f"{SLOW}:pause_ms=60",
        "--segment-packets", "200", "-B", "1024", "--config", tmp_path / "small.toml", *more,
    )  # fmt: skip
    frames = [udp_frame(i % 50, i, FRAME_BYTES - 50) for i in range(count)]
    send(left, frames, pause_every=20)
    time.sleep(0.3)
    peak = peak_kib(process)
    process.send_signal(signal.SIGINT)
    run = finish_run(process)
    packets = [frame for _, frame in read_pcap(out)]
    assert run.json["live"]["received"] == len(frames)
    assert len(packets) == run.json["packets"]["written"] == run.json["packets"]["read"]
    assert run.json["packets"]["read"] + sum(run.json["live"]["dropped"].values()) == len(frames)
    assert "unbalanced" not in run.json
    assert run.json["workers"]["lost"] == 0
    assert peak < 150_000
    return run.json, packets, frames


@pytest.fixture(autouse=True)
def small(tmp_path):
    (tmp_path / "small.toml").write_text("chunks = 6\nchunk_bytes = 524288\nchunk_rows = 1024\n")


def test_tunnels_and_fragments_are_followed_live_as_in_a_capture(pair, tmp_path):
    """The kernel, which would know neither, lets them through; -c counts what matches."""
    left, right = pair
    web = ethernet(0x0800, ip4(6, tcp(1234, 80)))
    head = bytes.fromhex("0800000000000500")
    tunnel = ethernet(0x0800, ip4(17, udp(50_000, 4789, head + web)))
    data = udp(1000, 80, bytes(600))
    first = ethernet(0x0800, ip4(17, data[:400], part=0x2000, identification=5))
    later = ethernet(0x0800, ip4(17, data[400:], part=50, identification=5))
    frames = [tunnel, later, first, udp_frame(1, 1), later, web]
    words = ["--match", "inner", "--follow-fragments", "-c", "5", "-n", "1"]
    process = start_live(right, "-i", "far", "-w", tmp_path / "out.pcap", *words, "port 80")
    send(left, frames)
    run = finish_run(process)
    assert run.status == 0, run.stderr
    assert [frame for _, frame in read_pcap(tmp_path / "out.pcap")] == [tunnel, later, first, later, web]
    assert run.json["packets"]["dropped"] == {"filter.not_matched": 1}


def test_a_live_pcapng_says_what_was_captured_where(pair, tmp_path):
    """tshark's and capinfos's reading: name, filter, system, what the kernel received and dropped."""
    left, right = pair
    out = tmp_path / "out.pcapng"
    process = start_live(right, "-i", "far", "-w", out, "-n", "1", "-c", "5", "udp")
    tagged = udp_frame(7, 7)[:12] + bytes.fromhex("81000005") + udp_frame(7, 7)[12:]
    send(left, [*(udp_frame(i, i) for i in range(4)), b"\2" * 12 + b"\x88\xb5" + bytes(50), tagged])
    run = finish_run(process)
    assert (run.status, run.json["packets"]["written"]) == (0, 5), run.stderr
    blocks = subprocess.run(
        ["tshark", "-r", out, "-V", "-o", "frame.generate_md5_hash:FALSE"], capture_output=True, text=True, check=True
    ).stdout
    assert "Interface name: far" in blocks
    said = subprocess.run(["capinfos", out], capture_output=True, text=True, check=True).stdout
    assert os.uname().release in said
    assert re.search(r"Number of stat entries = 1", said)
    data = out.read_bytes()
    assert b"\x0b\0\x04\0\0udp" in data  # if_filter, as text
    at = data.rindex(b"\x05\0\0\0", 0, len(data) - 60)
    counts = dict(re.findall(rb"(?s)([\x04-\x06])\0\x08\0(.{8})", data[at + 20 :]))
    assert [int.from_bytes(counts[bytes([code])], "little") for code in (4, 5, 6)] == [5, 0, 5]


def test_a_live_run_takes_a_free_name(pair, tmp_path):
    left, right = pair
    for _ in range(2):
        process = start_live(right, "-i", "far", "-w", tmp_path / "out.pcap", "-n", "1", "-c", "2")
        send(left, [udp_frame(i, i) for i in range(2)])
        run = finish_run(process)
        assert run.status == 0, run.stderr
    assert "out-1.pcap" in run.stderr
    assert len(read_pcap(tmp_path / "out.pcap")) == len(read_pcap(tmp_path / "out-1.pcap")) == 2


def test_an_expression_that_fits_no_live_interface_is_refused_at_once(pair, tmp_path):
    _, right = pair
    command = [*COMMAND, "run", "-i", "far", "-w", str(tmp_path / "out.pcap"), "wlan type mgt"]
    process = right.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert "cannot hold for far" in said


def processed(frame):
    return frame[:-1] + bytes([frame[-1] ^ 0xFF])


def test_overload_drops_the_newest_and_counts_them(pair, tmp_path):
    told, packets, frames = overloaded(*pair, tmp_path, "drop", count=10_000)  # also where a busy machine sends slowly
    assert told["live"]["dropped"]["kernel.dropped"] > 1000
    assert packets[0] == processed(frames[0])
    assert set(packets) < set(map(processed, frames))


def test_overload_passes_what_waits_unprocessed(pair, tmp_path):
    told, packets, frames = overloaded(*pair, tmp_path, "pass")
    passed = told["notes"]["overload.passed_unprocessed"]
    assert passed > 1000
    whole = set(frames)
    assert sum(packet in whole for packet in packets) == passed
    order = {frame: number for number, frame in enumerate(frames)} | {
        processed(frame): number for number, frame in enumerate(frames)
    }
    numbers = [order[packet] for packet in packets]
    assert numbers == sorted(numbers)


def test_overload_spools_and_catches_up(pair, tmp_path):
    told, packets, frames = overloaded(*pair, tmp_path, "spool", "--spool-bytes", str(64 << 20))
    assert told["notes"]["overload.spooled"] > 1000
    assert packets == [processed(frame) for frame in frames]
    assert told["live"]["dropped"] == {}


def test_a_full_spool_drops_and_counts(pair, tmp_path):
    told, packets, frames = overloaded(*pair, tmp_path, "spool", "--spool-bytes", str(2 << 20), "--count", "7500")
    assert told["packets"]["read"] <= 7500
    assert sum(told["live"]["dropped"].values()) >= 500
    assert packets[0] == processed(frames[0])


def test_a_second_interrupt_ends_it_at_once_and_it_adds_up(pair, tmp_path):
    left, right = pair
    process = start_live(
        right, "-i", "far", "-w", tmp_path / "out.pcap", "-n", "1", "--service", f"{SLOW}:pause_ms=3000",
        "--segment-packets", "100", "-B", "1024", "--config", tmp_path / "small.toml",
    )  # fmt: skip
    send(left, [udp_frame(i, i, FRAME_BYTES) for i in range(8000)], pause_every=20)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    begin_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    run = finish_run(process)
    assert time.monotonic() - begin_s < 10
    assert run.status == 3  # interrupted, with losses
    assert "unbalanced" not in run.json
    assert run.json["packets"]["dropped"]["pipeline.undelivered"] > 0
    assert run.json["live"]["dropped"]["source.unread"] > 0
    assert run.json["live"]["received"] == 8000


def test_what_a_quiet_interface_brought_is_soon_in_a_compressed_file(pair, tmp_path):
    left, right = pair
    out = tmp_path / "out.pcap.gz"
    process = start_live(right, "-i", "far", "-w", out, "-n", "1", "--segment-ms", "1")
    frames = [udp_frame(i, i) for i in range(3)]
    for frame in frames:
        send(left, [frame])
        time.sleep(0.1)
    deadline = time.monotonic() + 20
    while len(packets := gzipped(out)) < 3:
        assert time.monotonic() < deadline, packets
        time.sleep(0.05)
    assert packets == frames
    process.send_signal(signal.SIGINT)
    assert finish_run(process).status == 130


def gzipped(path):
    """The packets that a reader finds in the file as it stands now."""
    if not path.exists() or not path.stat().st_size:
        return []
    return [frame for _, frame in dpkt.pcap.UniversalReader(io.BytesIO(gzip.decompress(path.read_bytes())))]
