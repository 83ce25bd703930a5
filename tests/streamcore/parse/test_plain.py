"""Ordinary packets, alone and in VXLAN or GTP, are read in one line: their columns are those of the walk."""

from __future__ import annotations

import random
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.core.packets import ALL_GROUPS, COLUMN_GROUPS, FLAGS, PacketBatch
from streamcore.headers import TUNNELS
from streamcore.headers._walk import explain
from streamcore.parse.parser import Parser
from tests.examples import examples
from tests.streamcore.batches import make_batch
from tests.streamcore.parse.packets_by_hand import ethernet, ip4, ip6, tcp, udp

OUTER = (
    "ip_version", "protocol", "flags", "l3_offset", "l4_offset", "payload_offset", "source_port", "target_port",
    "fragment_offset",
)  # fmt: skip
INNER = (
    "inner_ip_version", "inner_protocol", "inner_flags", "inner_l3_offset", "inner_source_port", "inner_target_port",
)  # fmt: skip
AROUND = ("depth", "vlan_count", "tunnel_kind", "tunnel_id")
NO_INNER = (0, 0, 0, 0xFFFF, 0, 0)


def ip(six: bool, protocol: int, payload: bytes) -> bytes:
    return ip6(protocol, payload) if six else ip4(protocol, payload)


def frame(six: bool, protocol: int, payload: bytes) -> bytes:
    return ethernet(0x86DD if six else 0x0800, ip(six, protocol, payload))


def some_packet(rng: random.Random) -> bytes:
    """Mostly in a tunnel, perhaps with one or two bytes changed where headers are, perhaps cut."""
    inside, outside = rng.random() < 0.4, rng.random() < 0.3
    data = bytes(rng.randrange(30))
    protocol, upper = 6, tcp(options=bytes(4 * rng.randrange(3)), data=data)
    if rng.random() < 0.5:
        protocol, upper = 17, udp(rng.choice((1, 2152, 4789)), rng.choice((2, 53, 6081)), data)
    kind = rng.choice(("", "vxlan", "vxlan", "gtp", "gtp", "geneve"))
    if kind == "":
        packet = frame(inside, protocol, upper)
    elif kind == "gtp":
        inner = ip(inside, protocol, upper)
        head = struct.pack(">BBHI", 0x30, 255, len(inner) - rng.choice((0, 0, 1, 20)), rng.randrange(1 << 32))
        packet = frame(outside, 17, udp(2152, rng.choice((2152, 9)), head + inner))
    else:
        head = b"\x08\0\0\0" if kind == "vxlan" else b"\0\0\x65\x58"
        inner = head + struct.pack(">I", rng.randrange(1 << 24) << 8) + frame(inside, protocol, upper)
        packet = frame(outside, 17, udp(55_555, 4789 if kind == "vxlan" else 6081, inner))
    changed = bytearray(packet)
    for _ in range(rng.choice((0, 1, 1, 2))):
        changed[rng.randrange(12, len(changed))] = rng.choice((0, 1, 5, 8, 0x20, 0x45, 0x81, 255))
    return bytes(changed[: len(changed) if rng.random() < 0.6 else rng.randrange(len(changed))])


@given(st.integers(0, 2**32), st.sampled_from(("outer", "inner", "both")))
@settings(max_examples=examples(100), deadline=None)
def test_columns_are_those_of_the_walk(seed: int, flow_key: str) -> None:
    rng = random.Random(seed)
    frames = [some_packet(rng) for _ in range(60)]
    whole, alone, headers = (make_batch(frames) for _ in range(3))
    flow = COLUMN_GROUPS["flow"]
    parser = Parser(7, stateless=True, flow_key=flow_key)
    for batch, groups in ((whole, ALL_GROUPS), (alone, flow), (headers, ALL_GROUPS & ~flow)):
        batch.chunk.arena.set_link_type(0, 1)
        parser(batch, groups)
    assert (whole.flow_hash == alone.flow_hash).all()  # two loops, of which one looks for nothing else
    for batch in (whole, headers):
        for packet, got, addresses in zip(frames, rows(batch), addresses_of(batch), strict=True):
            expected, places = walked(packet)
            assert got == expected, packet.hex()
            for version, at, address in zip(places[::2], places[1::2], addresses, strict=False):
                assert address == as_column(packet, version, at)


def walked(packet: bytes) -> tuple[list[int], list[int]]:
    """(the columns, IP version and place of the inner addresses if there are any)."""
    _, _, _, kind, number, fields = explain(packet, 1, shortcut=False)
    depth, _, vlan_count, *outer = fields[:12]
    inner = fields[12:]
    told = (*inner[:4], *inner[6:8]) if inner else NO_INNER
    kinds = {name: each for each, name in TUNNELS.items()}
    places = [inner[0], inner[10], inner[0], inner[11]] if inner else []
    return [*outer, *told, depth, vlan_count, kinds[kind], number], places


def rows(batch: PacketBatch) -> list[list[int]]:
    """The columns as `walked` has them. Whether the first fragment is known is not the walk's to say."""
    columns = [getattr(batch, name).tolist() for name in (*OUTER, *INNER, *AROUND)]
    for at in (OUTER.index("flags"), len(OUTER) + INNER.index("inner_flags")):
        columns[at] = [flags & ~FLAGS["orphan"] for flags in columns[at]]
    return [list(row) for row in zip(*columns, strict=True)]


def addresses_of(batch: PacketBatch) -> list[tuple[bytes, bytes]]:
    return [
        (source.tobytes(), target.tobytes())
        for source, target in zip(batch.inner_source_address, batch.inner_target_address, strict=True)
    ]


def as_column(packet: bytes, version: int, at: int) -> bytes:
    return packet[at : at + 16] if version == 6 else bytes(10) + b"\xff\xff" + packet[at : at + 4]
