"""Parse: the flow hash, every column, the flow table and a filter, beside the bare record walk and dpkt doing the same.

"cache": 128 KiB of packets again and again. "capture": a million packets in 100,000 flows, held in chunks; this is what
the flow table's prefetching is for.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dpkt
import pytest

from streamcore.core.packets import ALL_GROUPS, COLUMN_GROUPS, Arena, PacketBatch
from streamcore.headers import STANDARD_PORTS, UdpPorts
from streamcore.parse._flows import FlowTable
from streamcore.parse.filter import Filter
from streamcore.parse.parser import Parser
from streamcore.source._records import Walker
from streamcore.source.capture import CaptureSource

CHUNK_BYTES, ROWS_MAX = 4 << 20, 65_536
CACHED_BYTES = 128 << 10
DPKT_PACKETS = 2000
TIMES_DPKT_MIN = 50

Work = Callable[[PacketBatch], object]


def held(path: Path, chunk_bytes: int, chunk_count: int) -> list[PacketBatch]:
    """The first batches of a capture, each in a chunk of its own."""
    batches = []
    with CaptureSource(path, Arena(chunk_count, chunk_bytes, ROWS_MAX)) as source:
        for batch in source:
            batches.append(batch)
            if len(batches) == chunk_count:
                break
    return batches


@pytest.fixture(scope="module", params=["cache", "capture"])
def batches(request: pytest.FixtureRequest, small64: Path) -> list[PacketBatch]:
    if request.param == "cache":
        return held(small64, CACHED_BYTES, 1)
    return held(small64, CHUNK_BYTES, small64.stat().st_size // CHUNK_BYTES + 2)


def parse(groups: int, ports: UdpPorts = STANDARD_PORTS) -> Work:
    parser = Parser(seed=1, ports=ports)

    def work(batch: PacketBatch) -> None:
        batch.groups = 0
        parser(batch, groups)

    return work


def keep(expression: str) -> Work:
    chosen = Filter(expression)

    def work(batch: PacketBatch) -> None:
        batch.arranged, batch.row_count = False, batch.count
        chosen(batch)

    return work


def walk() -> Work:
    walker = Walker()
    walker.set_pcap(False, 1000, 262_144)

    def work(batch: PacketBatch) -> None:
        walker.begin(batch.chunk)
        walker.walk(batch.chunk, batch.span_start, batch.span_stop)

    return work


def adding(table: FlowTable) -> Work:
    """What the command `flows` calls; an older tree, which compare.py runs this file against, has `find` alone."""
    work: Work = getattr(table, "add", table.find)
    return work


WORKS: dict[str, Callable[[], Work]] = {
    "walk": walk,
    "flow-hash": lambda: parse(COLUMN_GROUPS["flow"]),
    "headers": lambda: parse(COLUMN_GROUPS["headers"]),
    "all": lambda: parse(ALL_GROUPS),
    "flow-table": lambda: adding(FlowTable(1 << 20, seed=1)),
    "filter-tcp-port-443": lambda: keep("tcp port 443"),
}


@pytest.mark.parametrize("name", WORKS)
def test_stage(
    benchmark: Any,
    per_packet: Callable[[int], None],
    chunk_by_chunk: Callable[..., None],
    batches: list[PacketBatch],
    name: str,
) -> None:
    def chunks() -> Iterator[int]:
        work = WORKS[name]()  # anew: a flow table that saw the capture before would meet times that run backwards
        for batch in batches:
            work(batch)
            yield len(batch)

    if len(batches) > 1:
        chunk_by_chunk(chunks)
    else:
        benchmark(WORKS[name](), batches[0])
        per_packet(len(batches[0]))


def in_vxlan(path: Path, packets: int) -> Path:
    """A capture of nothing but VXLAN: 60 bytes inside, addresses that differ."""
    record = struct.Struct("<IIII")
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1))
        for i in range(packets):
            inner = frame_of_udp(struct.pack(">I", i), 1000, 2000, bytes(18))
            frame = frame_of_udp(b"\x0b\0\0\1", 55_555, 4789, struct.pack(">II", 0x08000000, 7 << 8) + inner)
            file.write(record.pack(0, i, len(frame), len(frame)) + frame)
    return path


def frame_of_udp(source: bytes, source_port: int, target_port: int, data: bytes) -> bytes:
    udp = struct.pack(">HHHH", source_port, target_port, 8 + len(data), 0) + data
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0x4000, 64, 17, 0)
    return b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\0" + head + source + b"\x0b\0\0\2" + udp


@pytest.mark.parametrize("opened", [True, False], ids=["opened", "not-opened"])
@pytest.mark.parametrize("groups", ["headers", "headers-inner", "all"])
def test_tunnels(benchmark: Any, per_packet: Callable[[int], None], tmp_path: Path, groups: str, opened: bool) -> None:
    """A capture of nothing but VXLAN, and the same where no port is one of tunnels."""
    batch = held(in_vxlan(tmp_path / "vxlan.pcap", 900), CACHED_BYTES, 1)[0]
    bits = ALL_GROUPS if groups == "all" else sum(COLUMN_GROUPS[name] for name in groups.split("-"))
    benchmark(parse(bits, STANDARD_PORTS if opened else UdpPorts([])), batch)
    per_packet(len(batch))


def with_dpkt(packets: list[bytes]) -> list[tuple[Any, ...]]:
    """Addresses, protocol and ports of every packet."""
    found: list[tuple[Any, ...]] = []
    for packet in packets:
        ip = dpkt.ethernet.Ethernet(packet).data
        if isinstance(ip, dpkt.ip.IP | dpkt.ip6.IP6):
            upper = ip.data
            found.append((ip.src, ip.dst, ip.p, getattr(upper, "sport", 0), getattr(upper, "dport", 0)))
        else:
            found.append(())
    return found


def best_s(work: Callable[[], object], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return best


def test_times_dpkt(benchmark: Any, each_capture: Path) -> None:
    """Headers and addresses of the same packets, in turn; the ratio goes to extra_info and the output."""
    (batch,) = held(each_capture, CHUNK_BYTES, 1)
    packets = [batch.packet(row).tobytes() for row in range(min(DPKT_PACKETS, len(batch)))]
    work = parse(COLUMN_GROUPS["headers"] | COLUMN_GROUPS["addresses"])
    theirs_s = best_s(lambda: with_dpkt(packets), 5) / len(packets)
    benchmark(lambda: work(batch))
    ours_s = best_s(lambda: work(batch), 20) / len(batch)
    benchmark.extra_info["times_dpkt"] = theirs_s / ours_s
    print(f"\n{each_capture.name}: {theirs_s / ours_s:.0f} times dpkt")
    assert theirs_s / ours_s > TIMES_DPKT_MIN
