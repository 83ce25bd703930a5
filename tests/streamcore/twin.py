"""Captures written and read with `struct` alone: the slow, obvious twin of the native reader and writer."""

import struct
from typing import NamedTuple


class Packet(NamedTuple):
    """A packet as both twins see it. Ticks are of its interface; comment: of an enhanced block."""

    ticks: int
    data: bytes
    wire_length: int
    interface: int = 0
    options: tuple = ()  # (code, value as in a little-endian file)


class Interface(NamedTuple):
    """A pcapng interface."""

    link_type: int = 1
    resolution: int = 6
    snap_length: int = 0
    offset_s: int = 0
    name: str = ""


PCAP_MAGIC = {6: 0xA1B2C3D4, 9: 0xA1B23C4D, "kuznetzov": 0xA1B2CD34}


def pcap_bytes(packets, order="<", kind=6, link_type=1, snap_length=65535):
    """A pcap file; kind: 6, 9 or "kuznetzov"."""
    digits = 6 if kind == "kuznetzov" else kind
    parts = [struct.pack(order + "IHHiIII", PCAP_MAGIC[kind], 2, 4, 0, 0, snap_length, link_type)]
    for packet in packets:
        seconds, fraction = divmod(packet.ticks, 10**digits)
        parts.append(struct.pack(order + "IIII", seconds, fraction, len(packet.data), packet.wire_length))
        if kind == "kuznetzov":
            parts.append(struct.pack(order + "IHBB", 3, 0x0800, 4, 0))
        parts.append(packet.data)
    return b"".join(parts)


def block(order, kind, body):
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def option(order, code, value):
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section_bytes(order="<", name=b"twin"):
    body = struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + option(order, 4, name) + bytes(4)
    return block(order, 0x0A0D0D0A, body)


def interface_bytes(order, interface):
    body = struct.pack(order + "HHI", interface.link_type, 0, interface.snap_length)
    if interface.name:
        body += option(order, 2, interface.name.encode())
    body += option(order, 9, bytes([interface.resolution]))
    if interface.offset_s:
        body += option(order, 14, struct.pack(order + "q", interface.offset_s))
    return block(order, 1, body + bytes(4))


def enhanced_bytes(order, packet, kind=6):
    """An enhanced packet block, or with kind=2 an obsolete one."""
    head = struct.pack(order + "I", packet.interface) if kind == 6 else struct.pack(order + "HH", packet.interface, 77)
    body = head + struct.pack(
        order + "IIII", packet.ticks >> 32, packet.ticks & 0xFFFFFFFF, len(packet.data), packet.wire_length
    )
    body += packet.data + bytes(-len(packet.data) % 4)
    for code, value in packet.options:
        body += option(order, code, value if order == "<" or code == 1 else value[::-1])
    return block(order, kind, body + (bytes(4) if packet.options else b""))


def simple_bytes(order, packet):
    body = struct.pack(order + "I", packet.wire_length) + packet.data + bytes(-len(packet.data) % 4)
    return block(order, 3, body)


def nanoseconds(ticks, resolution, offset_s=0):
    """What the ticks of an interface mean, by whole numbers, clamped to 64 bits."""
    ns = ticks * 10**9 // (2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution)
    return max(-(2**63), min(2**63 - 1, ns + offset_s * 10**9))


class Read(NamedTuple):
    """A packet as it was read: (nanoseconds, wire length, captured bytes, link type)."""

    timestamp_ns: int
    wire_length: int
    data: bytes
    link_type: int


def read_pcapng(data, others=None):
    """(packets as Read, their options, interfaces of all sections) of little-endian sections. Asserts that it is whole.

    others: gets the kinds of blocks that are none of these; otherwise there may be only one section and no such block.
    Simple packet blocks have the time 0.
    """
    packets, options_of, interfaces, base = [], [], [], 0
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert size % 4 == 0
        assert size >= 12
        assert at + size <= len(data), "a torn block"
        assert struct.unpack_from("<I", data, at + size - 4)[0] == size
        body = data[at + 8 : at + size - 4]
        if kind == 0x0A0D0D0A:
            assert at == 0 or others is not None
            assert body[:4] == b"\x4d\x3c\x2b\x1a"
            base = len(interfaces)
        elif kind == 1:
            options = read_options(body[8:])
            link_type, snap_length = struct.unpack_from("<HxxI", body)
            first = dict(reversed(options))
            offset = struct.unpack("<q", first.get(14, bytes(8)))[0]
            name = first.get(2, b"").decode()
            interfaces.append(Interface(link_type, first.get(9, b"\x06")[0], snap_length, offset, name))
        elif kind == 6:
            number, high, low, captured, wire = struct.unpack_from("<IIIII", body)
            interface = interfaces[base + number]
            ns = nanoseconds(high << 32 | low, interface.resolution, interface.offset_s)
            packets.append(Read(ns, wire, body[20 : 20 + captured], interface.link_type))
            options_of.append(tuple(read_options(body[20 + (captured + 3) // 4 * 4 :])))
        elif kind == 3:
            wire = struct.unpack_from("<I", body)[0]
            snap = interfaces[base].snap_length
            captured = min(wire, snap) if snap else wire
            assert len(body) == 4 + (captured + 3) // 4 * 4
            packets.append(Read(0, wire, body[4 : 4 + captured], interfaces[base].link_type))
            options_of.append(())
        else:
            assert others is not None, f"a block of kind {kind}"
            others.append(kind)
        at += size
    return packets, options_of, interfaces


def read_options(data):
    options = []
    at = 0
    while at < len(data):
        code, size = struct.unpack_from("<HH", data, at)
        if code == 0:
            assert at + 4 == len(data)
            break
        options.append((code, data[at + 4 : at + 4 + size]))
        assert len(options[-1][1]) == size
        at += 4 + (size + 3) // 4 * 4
    return options


def read_pcap(data):
    """(packets as Read, digits of a second) of a little-endian pcap. Asserts that it is whole."""
    magic, major, minor, _, _, _, network = struct.unpack_from("<IHHiIII", data)
    digits = {0xA1B2C3D4: 6, 0xA1B23C4D: 9}[magic]
    assert (major, minor) == (2, 4)
    packets = []
    at = 24
    while at < len(data):
        seconds, fraction, captured, wire = struct.unpack_from("<IIII", data, at)
        assert at + 16 + captured <= len(data), "a torn record"
        ns = seconds * 10**9 + fraction * 10 ** (9 - digits)
        packets.append(Read(ns, wire, data[at + 16 : at + 16 + captured], network & 0xFFFF))
        at += 16 + captured
    return packets, digits
