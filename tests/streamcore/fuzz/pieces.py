"""Datagrams cut into fragments: in order and not, some missing, some twice, some that overlap or lie."""

from __future__ import annotations

import random
import struct

from tests.streamcore.fuzz.inputs import mutated

ETHERNET4, ETHERNET6 = b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\0", b"\2\0\0\0\0\1\2\0\0\0\0\2\x86\xdd"


def pieces4(datagram: bytes, protocol: int, number: int, size: int) -> list[bytes]:
    """Ethernet and IPv4 around each `size` bytes (a multiple of 8); header checksums are zero."""
    found = []
    for at in range(0, len(datagram), size):
        part = datagram[at : at + size]
        more = 0x2000 if at + size < len(datagram) else 0
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(part), number, more | at // 8, 64, protocol, 0)
        found.append(ETHERNET4 + head + b"\x0a\1\2\3\x0a\4\5\6" + part)
    return found


def pieces6(datagram: bytes, protocol: int, number: int, size: int) -> list[bytes]:
    found = []
    for at in range(0, len(datagram), size):
        part = datagram[at : at + size]
        more = 1 if at + size < len(datagram) else 0
        head = struct.pack(">IHBB", 0x60000000, 8 + len(part), 44, 64) + bytes(15) + b"\1" + bytes(15) + b"\2"
        found.append(ETHERNET6 + head + struct.pack(">BBHI", protocol, 0, at | more, number) + part)
    return found


def datagrams_in_pieces(rng: random.Random, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        protocol = rng.choice((17, 6, 1, 58, 132, 47, 4))
        body = rng.randbytes(rng.randrange(8, 400))
        if protocol == 17:
            body = struct.pack(">HHHH", rng.choice((53, 67, 4789, 5000)), rng.randrange(65536), len(body) + 8, 0) + body
        elif protocol in (1, 58):
            body = bytes([rng.choice((8, 3, 128, 1)), 0, 0, 0]) + body
        cut = pieces4 if rng.random() < 0.5 else pieces6
        parts = cut(body, protocol, rng.randrange(8), 8 * rng.randrange(1, 20))
        if rng.random() < 0.5:
            rng.shuffle(parts)
        parts = [each for each in parts if rng.random() > 0.1]
        parts += [rng.choice(parts)] if parts and rng.random() < 0.3 else []
        found += [mutated(rng, each) if rng.random() < 0.3 else each for each in parts]
    return found[:count]
