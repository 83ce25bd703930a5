"""Small captures in every form that is read, written by hand: what their readers' mutations begin with."""

from __future__ import annotations

import struct

from tests.streamcore.fuzz.inputs import packets

PCAP_MAGICS = (0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34)  # microseconds, nanoseconds, Kuznetzov's


def pcap(order: str, magic: int, records: list[tuple[int, bytes]]) -> bytes:
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, records[0][0])
    for i, (_, packet) in enumerate(records):
        data += struct.pack(order + "IIII", 1_700_000_000 + i, i, len(packet), len(packet) + i % 3)
        data += bytes(8) if magic == PCAP_MAGICS[2] else b""
        data += packet
    return data


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = 12 + len(body)
    return struct.pack(order + "II", kind, size) + body + struct.pack(order + "I", size)


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def pcapng(order: str, records: list[tuple[int, bytes]]) -> bytes:
    end = bytes(4)
    data = block(
        order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + option(order, 4, b"a program") + end
    )
    links = sorted({link for link, _ in records})
    for link in links:
        options = (
            option(order, 2, b"eth0") + option(order, 9, b"\x06") + option(order, 14, struct.pack(order + "q", 7)) + end
        )
        data += block(order, 1, struct.pack(order + "HHI", link, 0, 0) + options)
    for i, (link, packet) in enumerate(records):
        head = struct.pack(order + "IIIII", links.index(link), 0x60000, i, len(packet), len(packet))
        padded = packet + bytes(-len(packet) % 4)
        comment = (
            option(order, 1, b"a comment " * i) + option(order, 2, struct.pack(order + "I", 1)) + end if i % 2 else b""
        )
        data += block(order, 6, head + padded + comment)
    link, packet = records[0]
    data += block(order, 3, struct.pack(order + "I", len(packet)) + packet)
    data += block(order, 2, struct.pack(order + "HHIIII", 0, 0, 0, 5, len(packet), len(packet)) + packet)
    data += block(order, 4, struct.pack(order + "HH", 1, 9) + b"\x0a\1\2\3host\0" + bytes(3) + end)
    data += block(order, 5, struct.pack(order + "III", 0, 1, 2) + option(order, 4, bytes(8)) + end)
    data += block(order, 10, struct.pack(order + "II", 0x544C534B, 5) + b"CLIENT"[:5])
    return data + block(order, 0xBAD, struct.pack(order + "I", 32473) + b"custom")


def captures_of(kind: str) -> list[bytes]:
    by_link: dict[int, list[tuple[int, bytes]]] = {}
    for link, packet in packets():
        by_link.setdefault(link, []).append((link, packet[:120]))
    found = []
    for number, records in enumerate(by_link.values()):
        order = "<>"[number % 2]
        several = records[:6]
        if kind == "pcap":
            found += [pcap(order, magic, several) for magic in PCAP_MAGICS]
        else:
            found.append(pcapng(order, several + next(iter(by_link.values()))[:2]))
    return found
