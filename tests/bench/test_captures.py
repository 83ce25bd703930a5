"""The generated captures, read with dpkt and tcpdump: right checksums, the promised mixture, no two alike."""

import collections
import functools
import io
import itertools
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import dpkt
import numpy as np
import pytest

from bench import captures

CAPTURES = Path(captures.__file__)


def make(name: str, packets: int, **how: object) -> bytes:
    stream = io.BytesIO()
    size = captures.write(stream, captures.SHAPES[name], packets, **how)  # type: ignore[arg-type]
    assert size == len(stream.getvalue())
    return stream.getvalue()


made_once = functools.cache(make)  # drawing the flows takes longer than most of what is asked of them


def made(name: str, packets: int, **how: object) -> io.BytesIO:
    return io.BytesIO(made_once(name, packets, **how))


def records(stream: io.BytesIO) -> list[tuple[int, int, bytes]]:
    """(seconds, nanoseconds, frame) of a nanosecond pcap, by hand because dpkt turns stamps into floats."""
    data = stream.getvalue()
    found, at = [], 24
    while at < len(data):
        seconds, nanoseconds, captured, wire = struct.unpack_from("<IIII", data, at)
        assert captured == wire
        found.append((seconds, nanoseconds, data[at + 16 : at + 16 + captured]))
        at += 16 + captured
    return found


def ip_of(frame: bytes) -> dpkt.ip.IP | dpkt.ip6.IP6:
    ethernet = dpkt.ethernet.Ethernet(frame)
    assert isinstance(ethernet.data, dpkt.ip.IP | dpkt.ip6.IP6)
    return ethernet.data


def flow_of(frame: bytes) -> tuple[bytes, bytes, int, int, int]:
    ip = ip_of(frame)
    return ip.src, ip.dst, ip.p, ip.data.sport, ip.data.dport


def ones_complement_sum(data: bytes) -> int:
    total = 0
    for first, second in zip(data[::2], data[1::2] + b"\0" * (len(data) % 2), strict=True):
        total += first << 8 | second
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("name", sorted(captures.SHAPES))
def test_lengths_and_checksums_are_right(name: str) -> None:
    for _, frame in dpkt.pcap.Reader(made(name, 3000)):
        ip = ip_of(frame)
        at = 18 if frame[12:14] == b"\x81\x00" else 14
        if ip.v == 4:
            assert ones_complement_sum(frame[at : at + 20]) == 0xFFFF
            end = at + ip.len
            segment = frame[at + 20 : end]
        else:
            end = at + 40 + ip.plen
            segment = frame[at + 40 : end]
        assert end <= len(frame)
        assert end == len(frame) or (len(frame) == 60 and not any(frame[end:])), "only short frames are padded"
        pseudo_header = ip.src + ip.dst + struct.pack(">II", len(segment), ip.p)
        assert ones_complement_sum(pseudo_header + segment) == 0xFFFF
        if ip.p == 17:
            assert ip.data.ulen == len(segment)
            assert ip.data.sum != 0


def test_small64_is_udp_of_zipf_flows_in_both_directions() -> None:
    frames = [frame for _, frame in dpkt.pcap.Reader(made("small64", 20_000))]
    assert {len(frame) for frame in frames} == {60}
    directed = collections.Counter(flow_of(frame) for frame in frames)
    assert {flow[2] for flow in directed} == {17}
    reverse = [(target, source, number, there, here) for source, target, number, here, there in directed]
    assert sum(flow in directed for flow in reverse) > len(directed) / 10
    flows = collections.Counter(
        min((s, t, n, h, o), (t, s, n, o, h)) for s, t, n, h, o in (flow_of(frame) for frame in frames)
    )
    # Zipf with exponent 1 over 100,000 flows: the first gets 1 in 12.09 of the packets, the tenth a tenth of that.
    counts = [count for _, count in flows.most_common(10)]
    assert counts[0] == pytest.approx(20_000 / 12.09, rel=0.1)
    assert counts[9] == pytest.approx(counts[0] / 10, rel=0.3)


def test_imix_has_the_simple_mixture_with_ipv6_vlan_and_tcp() -> None:
    frames = [frame for _, frame in dpkt.pcap.Reader(made("imix", 12_000))]
    assert collections.Counter(map(len, frames)) == {60: 7000, 590: 4000, 1514: 1000}
    seen = collections.Counter((ip_of(f).v, f[12:14] == b"\x81\x00", ip_of(f).p) for f in frames)
    assert len(seen) == 8, "each of IPv4 and IPv6, tagged and not, TCP and UDP"
    assert min(seen.values()) > 100
    sizes = [len(frame) for frame in frames[:1200]]
    assert len({tuple(sizes[at : at + 12]) for at in range(0, 1200, 12)}) > 90, "the order is dealt anew in each group"


def test_tcp1514_counts_its_bytes_on() -> None:
    following: dict[tuple[bytes, bytes, int, int, int], int] = {}
    repeated = 0
    for _, frame in dpkt.pcap.Reader(made("tcp1514", 12_000)):  # more than one block
        assert len(frame) == 1514
        tcp = ip_of(frame).data
        assert isinstance(tcp, dpkt.tcp.TCP)
        flow = flow_of(frame)
        repeated += flow in following
        assert following.get(flow, tcp.seq) == tcp.seq
        following[flow] = (tcp.seq + len(tcp.data)) % (1 << 32)
        assert len(tcp.data) == 1460
    assert repeated > 1000


@pytest.mark.parametrize("name", sorted(captures.SHAPES))
def test_stamps_rise_at_line_rate_and_no_two_frames_are_alike(name: str) -> None:
    found = records(made(name, 12_000))
    stamps = [seconds * 10**9 + nanoseconds for seconds, nanoseconds, _ in found]
    assert all(earlier < later for earlier, later in itertools.pairwise(stamps))
    bits_on_the_wire = sum(8 * (len(frame) + 24) for _, _, frame in found[1:])
    assert bits_on_the_wire / (stamps[-1] - stamps[0]) == pytest.approx(10, rel=0.001)
    assert len({frame for _, _, frame in found}) == len(found)


def test_microseconds_are_the_same_stamps_cut() -> None:
    in_us = made("imix", 500, resolution="us")
    assert in_us.getvalue()[:4] == b"\xd4\xc3\xb2\xa1"
    for (s, ns, frame), (s_cut, us, same) in zip(records(made("imix", 500)), records(in_us), strict=True):
        assert (s, ns // 1000, frame) == (s_cut, us, same)


def test_pcapng_carries_what_pcap_does() -> None:
    in_pcapng = made("imix", 3000, format="pcapng")
    reader = dpkt.pcapng.Reader(in_pcapng)
    assert reader.datalink() == dpkt.pcap.DLT_EN10MB
    frames = [bytes(frame) for _, frame in reader]
    assert frames == [frame for _, _, frame in records(made("imix", 3000))]


@pytest.mark.parametrize("packets", [0, 1, 13, 30_000])
def test_any_number_of_packets_and_the_same_for_the_same_seed(packets: int) -> None:
    first = made("imix", packets)
    assert sum(1 for _ in dpkt.pcap.Reader(first)) == packets
    assert make("imix", packets) == first.getvalue()
    if packets:
        assert made("imix", packets, seed=2).getvalue() != first.getvalue()


def test_memory_does_not_grow_with_the_capture() -> None:
    blocks = captures.Generator(captures.SHAPES["imix"], 1).blocks(10**12, 20_000)
    for _ in range(3):
        sizes, classes = next(blocks)
        assert len(sizes) <= 20_000
        assert np.array_equal(np.sort(np.concatenate([rows for rows, _ in classes])), np.arange(len(sizes)))


@pytest.mark.parametrize("name", sorted(captures.SHAPES))
@pytest.mark.parametrize("ending", ["pcap", "pcapng"])
def test_the_command_writes_what_tcpdump_reads_without_complaint(tmp_path: Path, name: str, ending: str) -> None:
    if not shutil.which("tcpdump"):
        pytest.skip("tcpdump is not installed")
    path = tmp_path / f"made.{ending}"
    subprocess.run([sys.executable, CAPTURES, name, "--packets", "2000", path], check=True, timeout=60)
    told = subprocess.run(["tcpdump", "-nn", "-vv", "-r", path], check=True, capture_output=True, text=True).stdout
    assert told.count("proto ") + told.count("next-header") == 2000
    assert told.count("(correct)") + told.count("[udp sum ok]") == 2000
    assert not re.findall(r"\b(?:bad|wrong|incorrect|invalid|truncated)\b", told)
