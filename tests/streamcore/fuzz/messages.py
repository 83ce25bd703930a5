"""What travels between a run and its workers, as it should be: what the mutations begin with."""

from __future__ import annotations

import struct

import msgspec
import numpy as np

from streamcore.core.capture_form import Interface
from streamcore.core.packets import Arena, PacketBatch, Segment
from streamcore.disperse import envelope
from streamcore.disperse._inline import frame_bytes, pack_frame
from streamcore.disperse._results import write_result

PACKETS = [bytes(range(size)) for size in (60, 0, 1, 64, 90)]


def some_segment() -> Segment:
    """Five packets as pcap records."""
    arena = Arena(1, 4096, 16)
    batch = PacketBatch(arena.acquire(), len(PACKETS), 7, [Interface(1)])
    at = 0
    for i, packet in enumerate(PACKETS):
        record = struct.pack("<IIII", i, i, len(packet), len(packet)) + packet
        batch.chunk.data[at : at + len(record)] = np.frombuffer(record, np.uint8)
        batch.offset[i], batch.captured_length[i], batch.wire_length[i] = at + 16, len(packet), len(packet)
        batch.timestamp_ns[i], batch.interface[i], batch.record[i] = i, 0, 0
        at += len(record)
    return Segment(3, batch, 0, len(PACKETS), byte_count=sum(map(len, PACKETS)))


def frames(segment: Segment) -> list[bytes]:
    work = envelope.Work(3, 7, 1, 0, 0, 0, 4096, len(segment), 0, len(segment), len(segment), 0, 0, 0)
    done = envelope.Outcome(3, 1, envelope.DONE, 3, 295, 0, envelope.EXTRA, 0, 1000, envelope.NO_DIGEST)
    return [
        envelope.pack(envelope.HELLO, 1, 2),
        envelope.pack(envelope.WORK, 1, 2, [work, work]),
        envelope.pack(envelope.RESULT, 1, 2, [done]),
        envelope.pack(envelope.REFUSE, 1, 2),
    ]


def results(segment: Segment) -> tuple[list[tuple[bytes, int, int]], list[bytes]]:
    """(regions with their packed bytes and flags, segments that travel)."""
    batch, count = segment.batch, len(segment)
    records = int(batch.offset[-1]) + int(batch.captured_length[-1])
    whole = batch.data[:records].tobytes()
    lengths, keep = np.array([len(each) for each in PACKETS], np.uint32), np.array([1, 0, 1, 1, 0], np.uint8)
    keys, offset = np.arange(2 * count, dtype=np.uint64).reshape(count, 2), batch.offset[:count]
    laid = []
    for arrays in (
        (None, None, None, None, None), (None, None, None, None, keep), (keys, None, None, None, keep),
        (None, offset, lengths, lengths, None), (keys, offset, lengths, lengths, keep),
    ):  # fmt: skip
        region = np.zeros(1024, np.uint8)
        region[:records] = np.frombuffer(whole, np.uint8)
        flags = write_result(region, records, *arrays)
        laid.append((region.tobytes(), records, flags))
    frame = np.zeros(frame_bytes(segment), np.uint8)
    pack_frame(segment, np.array([1], np.uint16), frame)
    return laid, [frame.tobytes()]


def extras() -> list[bytes]:
    told = {"comments": {1: [b"a", b"b"]}, "reports": [(0, [1, {"x": b"y"}])], "drops": {"not_understood": (2, 60)}}
    return [msgspec.msgpack.encode(told), msgspec.msgpack.encode({"reports": [(0, list(range(50)))]})]
