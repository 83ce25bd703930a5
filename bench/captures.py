"""Seeded captures to measure with: 64-byte UDP, simple IMIX and 1514-byte TCP at the spacing of a 10 Gb/s link.

Frames are made whole blocks at a time with numpy and written as they are made, so memory does not grow with the
capture. Lives here: what is in the frames. Not here: anything of streamcore; a generator shares no code with what
it tests.

    python bench/captures.py small64 --packets 25000000 /dev/shm/small64.pcap
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]

BLOCK_BYTES = 8 << 20  # what is made and written at a time; a few blocks' worth is the memory in use
FIRST_TIMESTAMP_S = 1_700_000_000
LINK_OVERHEAD_BYTES = 4 + 8 + 12  # what a frame takes on the wire beside what is captured: FCS, preamble, gap
TENTHS_OF_NS_PER_BYTE = 8  # 10 Gb/s
QUANTILES = 1 << 22  # Zipf draws come from a table of this many slots: the rarest of 100,000 flows still has three
PAYLOADS = 64  # different payloads in a capture
SERVER_PORTS = (443, 853, 5001, 8443, 9000)  # none behind which a dissector would find our payloads malformed
ETHERNET, VLAN_TAG, IPV4, IPV6, TCP, UDP = 14, 4, 20, 40, 20, 8  # header bytes
TCP_NUMBER, UDP_NUMBER = 6, 17


@dataclass(frozen=True)
class Shape:
    """What a capture is made of. Sizes are captured bytes, 4 fewer than on the wire because the FCS is not captured."""

    sizes: tuple[tuple[int, int], ...]  # (captured bytes, how many of them in a group that is dealt in random order)
    flows: int
    tcp_share: float  # of the flows
    vlan_share: float  # of the flows
    ipv6_share: float  # of the packets that have room: a 64-byte frame cannot hold IPv6 with ports and a tag


SHAPES = {
    "small64": Shape(((60, 1),), flows=100_000, tcp_share=0.0, vlan_share=0.0, ipv6_share=0.0),
    "imix": Shape(((60, 7), (590, 4), (1514, 1)), flows=100_000, tcp_share=0.5, vlan_share=0.25, ipv6_share=0.5),
    "tcp1514": Shape(((1514, 1),), flows=10_000, tcp_share=1.0, vlan_share=0.0, ipv6_share=0.0),
}


@dataclass(frozen=True)
class Kind:
    """Which headers a frame has, and from that where they stand."""

    ipv6: bool
    vlan: bool
    tcp: bool

    @property
    def ip(self) -> int:
        return ETHERNET + VLAN_TAG * self.vlan

    @property
    def transport(self) -> int:
        return self.ip + (IPV6 if self.ipv6 else IPV4)

    @property
    def payload(self) -> int:
        return self.transport + (TCP if self.tcp else UDP)

    @property
    def transport_checksum(self) -> int:
        return self.transport + (16 if self.tcp else 6)


class Endpoints:
    """The flows of one IP version: `headers[k]` holds, for every (flow, direction) of kind k, its header bytes.

    A line is one direction of one flow, line ^ 1 the other. Lengths, identification, sequence numbers and checksums
    stand at zero in the headers; `ip_sum` and `transport_sum` are what the rest adds to the checksums.
    """

    def __init__(self, shape: Shape, ipv6: bool, rng: np.random.Generator) -> None:
        flows = shape.flows
        lines = 2 * flows
        self.kind_of_flow = 2 * (rng.random(flows) < shape.vlan_share) + 1 * (rng.random(flows) < shape.tcp_share)
        client_port = rng.integers(32768, 61000, flows)  # Linux's ephemeral ports
        server_port = rng.choice(SERVER_PORTS, flows)
        client = rng.choice(1 << 24, flows, replace=False)  # no two flows have the same client: all 5-tuples differ
        server = rng.integers(0, 1 << 16, flows)
        self.kinds = tuple(Kind(ipv6, vlan, tcp) for vlan in (False, True) for tcp in (False, True))
        self.headers = []
        for number, kind in enumerate(self.kinds):
            if number not in self.kind_of_flow:
                self.headers.append(np.zeros((0, kind.payload), np.uint8))
                continue
            headers = np.zeros((lines, kind.payload), np.uint8)
            for direction in (0, 1):
                rows = headers[direction::2]
                there, back = (0, 6) if direction == 0 else (6, 0)
                rows[:, there : there + 6] = (2, 0, 0, 0, 0, 1)  # locally administered
                rows[:, back : back + 6] = (2, 0, 0, 0, 0, 2)
                if kind.vlan:
                    put(rows, 12, ">u2", 0x8100)
                    put(rows, 14, ">u2", 100 + np.arange(flows) % 16)
                put(rows, kind.ip - 2, ">u2", 0x86DD if ipv6 else 0x0800)
                self._put_addresses(rows, kind, direction, client, server)
                ports = (client_port, server_port) if direction == 0 else (server_port, client_port)
                put(rows, kind.transport, ">u2", ports[0])
                put(rows, kind.transport + 2, ">u2", ports[1])
                if kind.tcp:
                    put(rows, kind.transport + 12, ">u4", 0x5010_FFFF)  # 20 bytes of header, ACK, window 65535
            self.headers.append(headers)
        self.ip_sum = [word_sums(h[:, k.ip : k.transport]) for k, h in zip(self.kinds, self.headers, strict=True)]
        self.transport_sum = [
            word_sums(h[:, k.ip + (8 if ipv6 else 12) :]) + (TCP_NUMBER if k.tcp else UDP_NUMBER)
            for k, h in zip(self.kinds, self.headers, strict=True)
        ]
        self.next_sequence = rng.integers(0, 1 << 32, lines)

    @staticmethod
    def _put_addresses(rows: Bytes, kind: Kind, direction: int, client: Numbers, server: Numbers) -> None:
        number = TCP_NUMBER if kind.tcp else UDP_NUMBER
        if kind.ipv6:
            rows[:, kind.ip] = 0x60
            rows[:, kind.ip + 6] = number
            rows[:, kind.ip + 7] = 64
            source, target = (kind.ip + 8, kind.ip + 24) if direction == 0 else (kind.ip + 24, kind.ip + 8)
            for place, host in ((source, client), (target, (1 << 32) + server)):
                put(rows, place, ">u4", 0x2001_0DB8)  # RFC 3849: for documentation
                put(rows, place + 8, ">u8", host)
        else:
            rows[:, kind.ip] = 0x45
            rows[:, kind.ip + 8] = 64
            rows[:, kind.ip + 9] = number
            source, target = (kind.ip + 12, kind.ip + 16) if direction == 0 else (kind.ip + 16, kind.ip + 12)
            put(rows, source, ">u4", (10 << 24) + client)
            put(rows, target, ">u4", (192 << 24) + (168 << 16) + server)


class Generator:
    """Makes the frames of one capture, block after block; the same shape, seed and number of packets give the same."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        self.rng = np.random.default_rng(seed)
        self.endpoints = [Endpoints(shape, False, self.rng)]
        if shape.ipv6_share:
            self.endpoints.append(Endpoints(shape, True, self.rng))
        popularity = np.cumsum(1 / np.arange(1, shape.flows + 1))
        quantiles = (np.arange(QUANTILES) + 0.5) / QUANTILES * popularity[-1]
        up_to = np.searchsorted(
            quantiles, popularity, side="right"
        )  # so many quantiles fall to this flow or one before
        self.flow_by_popularity = np.repeat(np.arange(shape.flows, dtype=np.int32), np.diff(up_to, prepend=0))
        self.payloads = self.rng.integers(0, 256, (PAYLOADS, max(size for size, _ in shape.sizes)), np.uint8)
        self.payload_sums: dict[tuple[int, int], Numbers] = {}
        self.group = np.repeat([size for size, _ in shape.sizes], [count for _, count in shape.sizes])

    def blocks(self, packets: int, block_packets: int) -> Iterator[tuple[Numbers, list[tuple[Numbers, Bytes]]]]:
        """Yields (sizes, [(rows, frames)]): the frames of equal length and kind together, with their rows."""
        groups = max(1, block_packets // len(self.group))
        for first in range(0, packets, groups * len(self.group)):
            sizes = np.tile(self.group, (groups, 1))
            if len(self.group) > 1:
                sizes = self.rng.permuted(sizes, axis=1)
            sizes = sizes.ravel()[: packets - first]
            yield sizes, list(self._frames(sizes, first))

    def _frames(self, sizes: Numbers, first: int) -> Iterator[tuple[Numbers, Bytes]]:
        count = len(sizes)
        flow = self.flow_by_popularity[self.rng.integers(0, QUANTILES, count, np.int32)]
        line = 2 * flow + self.rng.integers(0, 2, count, np.int8)
        room = sizes >= Kind(True, True, True).payload
        version = room & (self.rng.random(count) < self.shape.ipv6_share)
        for is_ipv6, endpoints in enumerate(self.endpoints):
            kind_of_packet = endpoints.kind_of_flow[flow]
            for number, kind in enumerate(endpoints.kinds):
                of_kind = (kind_of_packet == number) & (version == is_ipv6)
                rows = np.flatnonzero(of_kind)
                if not len(rows):
                    continue
                sequence = self._sequence(endpoints, kind, line[rows], sizes[rows]) if kind.tcp else None
                for size, _ in self.shape.sizes:
                    chosen = sizes[rows] == size
                    if chosen.any():
                        numbers = None if sequence is None else (sequence[0][chosen], sequence[1][chosen])
                        these = rows[chosen]
                        yield these, self._make(endpoints, number, int(size), line[these], first + these, numbers)

    def _sequence(
        self, endpoints: Endpoints, kind: Kind, line: NDArray[np.int32], sizes: Numbers
    ) -> tuple[Numbers, Numbers]:
        """Sequence and acknowledgement numbers: each line's bytes are counted on, acknowledgements lag by a block."""
        acknowledged = endpoints.next_sequence[line ^ 1]
        carried = np.where(sizes <= 60, 0, sizes - kind.payload)
        order = np.argsort(line, kind="stable")
        before = np.cumsum(carried[order]) - carried[order]
        start = np.flatnonzero(np.diff(line[order], prepend=-1))
        since_start = before - np.repeat(before[start], np.diff(start, append=len(line)))
        sequence = np.empty(len(line), np.int64)
        sequence[order] = endpoints.next_sequence[line[order]] + since_start
        last = np.append(start[1:], len(line)) - 1
        endpoints.next_sequence[line[order[last]]] = (sequence[order[last]] + carried[order[last]]) & 0xFFFF_FFFF
        return sequence & 0xFFFF_FFFF, acknowledged

    def _make(
        self,
        endpoints: Endpoints,
        kind_number: int,
        size: int,
        line: NDArray[np.int32],
        numbers: Numbers,
        tcp_numbers: tuple[Numbers, Numbers] | None,
    ) -> Bytes:
        """Frames of one kind and size: a row each. UDP payloads open with the packet's number (64 bits, big-endian)."""
        kind = endpoints.kinds[kind_number]
        carried = 0 if kind.tcp and size <= 60 else size - kind.payload  # a short TCP frame is a bare ACK, padded
        segment_bytes = kind.payload - kind.transport + carried
        frames = np.empty((len(line), size), np.uint8)
        frames[:, : kind.payload] = endpoints.headers[kind_number][line]
        frames[:, kind.payload :] = 0
        transport_sum = endpoints.transport_sum[kind_number][line] + segment_bytes
        if carried:
            which = numbers % PAYLOADS
            frames[:, kind.payload :] = self.payloads[which, :carried]
            transport_sum += self._payload_sums(carried, skip=0 if kind.tcp else 8)[which]
        if tcp_numbers is not None:
            for place, value in zip((4, 8), tcp_numbers, strict=True):
                put(frames, kind.transport + place, ">u4", value)
                transport_sum += (value >> 16) + (value & 0xFFFF)
        else:
            put(frames, kind.payload, ">u8", numbers)
            transport_sum += (numbers >> 32) + (numbers >> 16 & 0xFFFF) + (numbers & 0xFFFF)
            put(frames, kind.transport + 4, ">u2", segment_bytes)
            transport_sum += segment_bytes
        checksum = folded(transport_sum)
        if not kind.tcp:
            checksum[checksum == 0] = 0xFFFF  # RFC 768: zero means that there is none
        put(frames, kind.transport_checksum, ">u2", checksum)
        if kind.ipv6:
            put(frames, kind.ip + 4, ">u2", segment_bytes)
        else:
            total_bytes = IPV4 + segment_bytes
            identification = numbers & 0xFFFF
            put(frames, kind.ip + 2, ">u2", total_bytes)
            put(frames, kind.ip + 4, ">u2", identification)
            put(frames, kind.ip + 10, ">u2", folded(endpoints.ip_sum[kind_number][line] + total_bytes + identification))
        return frames

    def _payload_sums(self, carried: int, skip: int) -> Numbers:
        key = (carried, skip)
        if key not in self.payload_sums:
            self.payload_sums[key] = word_sums(self.payloads[:, skip:carried])
        return self.payload_sums[key]


def put(rows: Bytes, place: int, dtype: str, value: Numbers | int) -> None:
    """Writes `value` into every row at byte `place` as one number of `dtype`."""
    rows[:, place : place + np.dtype(dtype).itemsize].view(dtype)[:, 0] = value


def word_sums(rows: Bytes) -> Numbers:
    """The sum of the big-endian 16-bit words of each row, not folded (RFC 1071)."""
    sums: Numbers = np.ascontiguousarray(rows).view(">u2").sum(axis=1, dtype=np.int64)
    return sums


def folded(sums: Numbers) -> Numbers:
    """Internet checksums (RFC 1071) of sums of 16-bit words."""
    for _ in range(2):
        sums = (sums & 0xFFFF) + (sums >> 16)
    return ~sums & 0xFFFF


def file_header(format: str, resolution: str) -> bytes:
    """What stands before the first record: pcap's header, or a section header and one Ethernet interface."""
    if format == "pcap":
        magic = 0xA1B23C4D if resolution == "ns" else 0xA1B2C3D4
        return struct.pack("<IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
    section = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    if_tsresol = struct.pack("<HHB3xHH", 9, 1, 9 if resolution == "ns" else 6, 0, 0)
    interface = struct.pack("<IIHHI", 1, 32, 1, 0, 65535) + if_tsresol + struct.pack("<I", 32)
    return section + interface


def record_fields(format: str, ticks: Numbers, ticks_per_s: int, size: int) -> tuple[list[Numbers | int], list[int]]:
    """The 32-bit fields before a record's bytes, and the ones after its padding."""
    if format == "pcap":
        return [ticks // ticks_per_s, ticks % ticks_per_s, size, size], []
    total = 28 + (size + 3) // 4 * 4 + 4
    return [6, total, 0, ticks >> 32, ticks & 0xFFFF_FFFF, size, size], [total]


def write(
    output: BinaryIO, shape: Shape, packets: int, *, format: str = "pcap", resolution: str = "ns", seed: int = 1
) -> int:
    """Writes a capture of `packets` frames to `output` and returns its size in bytes.

    `format` is pcap or pcapng (enhanced packet blocks), little-endian. With `resolution` "ns" every timestamp is later
    than the one before; "us" cuts them to microseconds, in which short frames at 10 Gb/s share one.
    """
    ticks_per_s, ns_per_tick = (10**9, 1) if resolution == "ns" else (10**6, 1000)
    header = file_header(format, resolution)
    output.write(header)
    written = len(header)
    generator = Generator(shape, seed)
    mean_size = float(generator.group.mean())
    tenths = 0  # of a nanosecond, since the first timestamp
    for sizes, classes in generator.blocks(packets, int(BLOCK_BYTES / (mean_size + 32))):
        durations = (sizes + LINK_OVERHEAD_BYTES) * TENTHS_OF_NS_PER_BYTE
        ends = tenths + np.cumsum(durations)
        tenths = int(ends[-1])
        ticks = FIRST_TIMESTAMP_S * ticks_per_s + ends // 10 // ns_per_tick
        before, after, multiple = (16, 0, 1) if format == "pcap" else (28, 4, 4)
        record_bytes = before + -(-sizes // multiple) * multiple + after
        offsets = np.cumsum(record_bytes) - record_bytes
        block = np.zeros(int(record_bytes.sum()), np.uint8)
        for rows, frames in classes:
            size = frames.shape[1]
            length = int(record_bytes[rows[0]])
            records = np.zeros((len(rows), length), np.uint8)
            ahead, behind = record_fields(format, ticks[rows], ticks_per_s, size)
            for place, value in enumerate(ahead):
                put(records, 4 * place, "<u4", value)
            for place, value in enumerate(behind):
                put(records, length - after + 4 * place, "<u4", value)
            records[:, before : before + size] = frames
            if len(rows) == len(sizes):
                block = records.reshape(-1)
            else:
                np.lib.stride_tricks.sliding_window_view(block, length, writeable=True)[offsets[rows]] = records
        output.write(block.data)
        written += len(block)
    return written


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write a seeded capture to measure with.")
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("output", metavar="OUT.pcap")
    parser.add_argument("--packets", type=int, default=5_000_000)
    parser.add_argument("--format", choices=["pcap", "pcapng"], help="default: by the name's ending")
    parser.add_argument("--resolution", choices=["ns", "us"], default="ns", help="of the timestamps (default: ns)")
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args(arguments)
    if flags.packets < 0:
        parser.error("--packets: a number from 0")
    format = flags.format or ("pcapng" if flags.output.endswith(".pcapng") else "pcap")
    with open(flags.output, "wb", buffering=0) as output:
        size = write(
            output, SHAPES[flags.shape], flags.packets, format=format, resolution=flags.resolution, seed=flags.seed
        )
    print(f"{flags.output}: {flags.packets:,} packets, {size:,} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
