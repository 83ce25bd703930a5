"""Segments made by hand from a list of packets, and what a view left of them as a list of packets again. For tests
only.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from streamcore.core.packets import Arena, PacketBatch, Segment
from streamcore.headers import STANDARD_PORTS, UdpPorts
from streamcore.service.protocol import Service
from streamcore.service.view import View

ETHERNET = 1
HEAD = 16  # bytes of a pcap record header


def make_batch(
    packets: Sequence[bytes],
    *,
    link_type: int = ETHERNET,
    wire_length: Sequence[int] | None = None,
    gap: int = 0,
    parser: Any = None,
) -> PacketBatch:
    """A batch of pcap records; `gap` bytes of something else stand between them."""
    wire = list(wire_length) if wire_length is not None else [len(packet) for packet in packets]
    size = sum(len(packet) + HEAD + gap for packet in packets) + 16
    arena = Arena(1, size, len(packets) + 1)
    arena.set_link_type(0, link_type)
    chunk = arena.acquire()
    batch = PacketBatch(chunk, len(packets), 0, [], parser=parser)
    at = 0
    for i, packet in enumerate(packets):
        record = struct.pack("<IIII", i, i, len(packet), wire[i]) + packet
        chunk.data[at : at + len(record)] = np.frombuffer(record, np.uint8)
        batch.offset[i] = at + HEAD
        batch.captured_length[i] = len(packet)
        batch.wire_length[i] = wire[i]
        batch.timestamp_ns[i] = i * 1_000_000
        batch.interface[i] = 0
        batch.record[i] = 0
        at += len(record) + gap
    return batch


def make_segment(packets: Sequence[bytes], rows: Sequence[int] | None = None, **options: Any) -> Segment:
    """All packets in order, or the rows given, as a segmenter arranges them."""
    batch = make_batch(packets, **options)
    if rows is None:
        return Segment(0, batch, 0, len(packets))
    batch.row_count = len(rows)
    batch.arranged = True
    batch.rows[:] = rows
    return Segment(0, batch, 0, len(rows))


def run(
    segment: Segment, *services: Service, region_bytes: int | None = None, ports: UdpPorts = STANDARD_PORTS
) -> View:
    """The view after all services did their work."""
    region = np.zeros(len(segment.batch.data) if region_bytes is None else region_bytes, np.uint8)
    view = View(segment, region, services, ports)
    for service in services:
        view.turn(service)
        service.process(view)
    return view


def packets_of(view: View) -> list[bytes]:
    """What a service at this place would see."""
    return [
        view.data[at : at + length].tobytes()
        for at, length in zip(view.offset.tolist(), view.captured_length.tolist(), strict=True)
    ]
