"""Services, one segment at a time as a worker runs them: 64-byte UDP packets in 100,000 Zipf flows. ns a packet are in
extra_info.

The baseline is `writable`: one copy of all records, which every service that rewrites must make.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from streamcore.core.packets import Arena, PacketBatch, Segment
from streamcore.service.load import load
from streamcore.service.protocol import Effect, SegmentView, Service
from streamcore.service.view import View

PACKETS = 65_536
SEGMENT_PACKETS = 16_384
SEED = 20_241_122


class Writable(Service):
    """The copy alone."""

    name: ClassVar[str] = "writable"
    effect: ClassVar[Effect] = "rewrite"

    def process(self, segment: SegmentView) -> None:
        segment.writable()


def checksums(words: np.ndarray) -> np.ndarray:
    """RFC 1071 over rows of 16-bit words."""
    total = words.astype(np.uint64).sum(axis=1)
    for _ in range(3):
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).astype(">u2")


def batch_of_64_bytes(packets: int = PACKETS, flows: int = 100_000) -> PacketBatch:
    """A chunk as the reader leaves it: pcap records of 64-byte Ethernet frames without their check sequence."""
    rng = np.random.default_rng(SEED)
    pairs = rng.integers(0, 1 << 32, (flows, 2), np.uint64).astype(">u4").view(np.uint8).reshape(flows, 8)
    ports = rng.integers(1024, 65536, (flows, 2), np.uint16).astype(">u2").view(np.uint8).reshape(flows, 4)
    flow = rng.zipf(1.1, packets * 2) - 1
    flow = flow[flow < flows][:packets]
    assert len(flow) == packets
    records = np.zeros((packets, 80), np.uint8)
    records[:, 8] = records[:, 12] = 64
    frame = records[:, 16:]
    frame[:, 12:14] = 8, 0
    frame[:, 14:24] = 0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17
    frame[:, 26:34] = pairs[flow]
    frame[:, 34:38] = ports[flow]
    frame[:, 38:40] = 0, 30
    frame[:, 42:64] = rng.integers(0, 256, (packets, 22), np.uint8)
    frame[:, 24:26] = checksums(frame[:, 14:34].copy().view(">u2")).view(np.uint8).reshape(-1, 2)
    pseudo = np.concatenate([frame[:, 26:64], np.tile(np.array([0, 17, 0, 30], np.uint8), (packets, 1))], axis=1)
    frame[:, 40:42] = checksums(pseudo.view(">u2")).view(np.uint8).reshape(-1, 2)
    arena = Arena(1, records.size, packets)
    arena.set_link_type(0, 1)
    chunk = arena.acquire()
    batch = PacketBatch(chunk, packets, 0, [], parser=fill_headers)
    chunk.data[:] = records.reshape(-1)
    batch.offset[:] = np.arange(packets) * 80 + 16
    batch.captured_length[:] = batch.wire_length[:] = 64
    batch.timestamp_ns[:] = np.arange(packets) * 67
    batch.interface[:] = batch.record[:] = 0
    return batch


def fill_headers(batch: PacketBatch, groups: int) -> None:
    """The columns that parse/ fills, known here beforehand."""
    batch.groups |= groups
    frames = batch.data.reshape(-1, 80)[:, 16:]
    batch.ip_version[:], batch.protocol[:], batch.flags[:] = 4, 17, 32
    batch.l3_offset[:], batch.l4_offset[:], batch.payload_offset[:] = 14, 34, 42
    batch.source_port[:] = frames[:, 34:36].copy().view(">u2")[:, 0]
    batch.target_port[:] = frames[:, 36:38].copy().view(">u2")[:, 0]
    batch.fragment_offset[:] = 0
    for column, at in ((batch.source_address, 26), (batch.target_address, 30)):
        column[:] = 0
        column[:, 10:12] = 255
        column[:, 12:] = frames[:, at : at + 4]


@pytest.fixture(scope="module")
def batch() -> PacketBatch:
    made = batch_of_64_bytes()
    made.parser(made, 31)
    return made


def tell(benchmark: Any, packets: int) -> None:
    if benchmark.stats is None:  # --benchmark-disable
        return
    best_s = benchmark.stats.stats.min
    benchmark.extra_info["ns_per_packet"] = round(best_s / packets * 1e9, 1)
    benchmark.extra_info["million_packets_per_second"] = round(packets / best_s / 1e6, 1)


def measure(benchmark: Any, batch: PacketBatch, service: Service, segment_packets: int = SEGMENT_PACKETS) -> None:
    region = np.empty(len(batch.data), np.uint8)
    segments = [
        Segment(i, batch, at, at + segment_packets) for i, at in enumerate(range(0, batch.count, segment_packets))
    ]
    service.start()

    def work() -> None:
        for segment in segments:
            view = View(segment, region, [service])
            view.turn(service)
            service.process(view)
            view.result()

    work()  # fills the tables, as a run does in its first seconds
    benchmark(work)
    tell(benchmark, batch.count)


WORDS = "scan:text=needle-in-the-payload,in=packet,engine="


@pytest.mark.parametrize(
    "name", ["identity", "slice:16", "anonymise", "dedup", "count", WORDS + "hyperscan", WORDS + "re"]
)
def test_service(benchmark: Any, batch: PacketBatch, name: str) -> None:
    measure(benchmark, batch, load(name))


@pytest.mark.peer
def test_baseline_copy(benchmark: Any, batch: PacketBatch) -> None:
    measure(benchmark, batch, Writable())


def test_settle_of_dedup(benchmark: Any, batch: PacketBatch) -> None:
    """What runs in the main process: the window."""
    service = load("dedup:packets=65536")
    keys = np.random.default_rng(SEED).integers(0, 1 << 61, (batch.count, 2), np.uint64)
    benchmark(service.drop_by_keys, keys, batch.timestamp_ns)
    tell(benchmark, batch.count)


def test_merge_of_count(benchmark: Any, batch: PacketBatch) -> None:
    """What runs in the main process: folding reports in."""
    service = load("count")
    view = View(Segment(0, batch, 0, SEGMENT_PACKETS), None, [service])
    view.turn(service)
    service.process(view)
    report = view.result().reports[0][1]
    benchmark(service.merge, report)
    tell(benchmark, SEGMENT_PACKETS)
