"""What is mutated, and how: packets of every link type and tunnel, captures, frames; a few bytes changed, cut out,
doubled, cut off.

Everything follows from the random generator that is handed in, so that a seed repeats it.
"""

from __future__ import annotations

import logging
import random
import struct
from functools import cache
from itertools import product
from pathlib import Path

logging.getLogger("scapy").setLevel(logging.ERROR)

INPUT_BYTES_MAX = 2048
VALUES = (0, 1, 0x7F, 0x80, 0xFF)  # those tried at every place
WORDS = (0, 1, 2, 19, 20, 60, 255, 256, 1500, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
SHIPPED = Path(__file__).parents[3] / "examples" / "office.pcapng"


@cache
def packets() -> list[tuple[int, bytes]]:
    """(link type, packet): of every kind that the tests of the walk make, and of a real capture."""
    from streamcore import read
    from tests.streamcore.headers.made_packets import KINDS, Fields
    from tests.streamcore.headers.routing_packets import routing_packets

    found = []
    for link, make in KINDS.values():
        for six, (flag, extra, vlan) in product((False, True), ((False, 0, 7), (True, 3, 0))):
            found.append((link, make(Fields(six=six, flag=flag, extra=extra, vlan=vlan))))
    found += [(1, packet) for packet in routing_packets().values()]
    with read(SHIPPED) as reader:
        for batch in reader:
            link = reader.interfaces[0].link_type
            found += [(link, batch.packet(row).tobytes()) for row in range(0, len(batch), max(1, len(batch) // 300))]
    return [(link, packet[:INPUT_BYTES_MAX]) for link, packet in found]


@cache
def by_link() -> dict[int, list[bytes]]:
    links: dict[int, list[bytes]] = {}
    for link, packet in packets():
        links.setdefault(link, []).append(packet)
    return links


def some_of_a_link(rng: random.Random, count: int) -> tuple[int, list[bytes]]:
    """A link type, Ethernet half of the time, and packets of it, most of them mutated."""
    links = by_link()
    link = 1 if rng.random() < 0.5 else rng.choice(sorted(links))
    chosen = [rng.choice(links[link]) for _ in range(count)]
    return link, [mutated(rng, each) if rng.random() < 0.95 else each for each in chosen]


def mutated(rng: random.Random, data: bytes) -> bytes:
    """data with one to four changes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        size = len(changed)
        at = rng.randrange(size) if size else 0
        kind = rng.randrange(8)
        if size == 0 or kind == 0:
            changed[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind <= 2:
            changed[at] = rng.choice(VALUES) if kind == 1 else rng.randrange(256)
        elif kind == 3:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 4:
            changed[at : at + 2] = struct.pack(">H", rng.choice(WORDS))
        elif kind == 5:
            del changed[at:]
        elif kind == 6:
            del changed[at : at + rng.randrange(1, 17)]
        else:
            piece = changed[at : at + rng.randrange(1, 33)]
            to = rng.randrange(size)
            changed[to:to] = piece
    return bytes(changed[:INPUT_BYTES_MAX])
