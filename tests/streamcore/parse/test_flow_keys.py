"""What tells flows in tunnels apart: the outermost header, the innermost one, or both; a flow's columns; fragments.

The oracle is what the packets were made of.
"""

import struct
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.core.packets import COLUMN_GROUPS, FLAGS
from streamcore.headers import TUNNELS
from streamcore.parse._flows import FlowTable
from streamcore.parse.parser import FLOW_KEYS, Parser
from tests.examples import examples
from tests.streamcore.batches import make_batch
from tests.streamcore.parse.packets_by_hand import ethernet, fragment6, ip4, ip6, tcp, udp

FLOW = COLUMN_GROUPS["flow"]
A, B, C = (bytes([10, 0, 0, n]) for n in (1, 2, 3))
X, Y = bytes([172, 16, 0, 1]), bytes([172, 16, 0, 2])
A6, B6 = bytes(15) + b"\1", bytes(15) + b"\2"


@dataclass(frozen=True)
class Made:
    """A packet's fields: of the tunnel, of the packet within, and which of two entropy ports the tunnel's end chose."""

    outer: tuple = (X, Y)
    inner: tuple = ((A, 1000), (B, 80))
    number: int = 5
    kind: str = "vxlan"
    entropy: int = 50_000
    back: bool = False
    six: bool = False
    vlan: int | None = None

    def packet(self):
        (source, sport), (target, dport) = self.inner[::-1] if self.back else self.inner
        if self.six:
            inner = ip6(6, tcp(sport, dport), source=bytes(12) + source, target=bytes(12) + target)
        else:
            inner = ip4(6, tcp(sport, dport), source=source, target=target)
        near, far = self.outer[::-1] if self.back else self.outer
        vlans = () if self.vlan is None else (self.vlan,)
        if self.kind == "":
            return ethernet(0x86DD if self.six else 0x0800, inner, vlans)
        return ethernet(0x0800, ip4(*self.around(inner), source=near, target=far), vlans)

    def around(self, inner):
        """(protocol, payload) of the tunnel's packet."""
        frame = ethernet(0x86DD if self.six else 0x0800, inner)
        if self.kind == "vxlan":
            return 17, udp(self.entropy, 4789, struct.pack(">II", 0x08000000, self.number << 8) + frame)
        if self.kind == "gre":
            return 47, struct.pack(">HHI", 0x2000, 0x6558, self.number) + frame
        return (41 if self.six else 4), inner

    def key(self, by):
        """What must be equal for packets of one flow, and different for others."""
        inner, outer = frozenset(self.inner), frozenset(self.outer)
        if self.kind == "":
            return "", inner, self.six, self.vlan
        number = 0 if self.kind == "ip" else self.number
        if by == "outer":
            near, far = (self.outer[1], self.outer[0]) if self.back else self.outer
            ports = frozenset([(near, self.entropy), (far, 4789)]) if self.kind == "vxlan" else outer
            protocol = {"vxlan": 17, "gre": 47}.get(self.kind, 41 if self.six else 4)
            return protocol, ports, self.vlan
        if by == "inner":
            return self.kind, number, inner, self.six
        same_way = (self.inner == tuple(sorted(self.inner))) == (self.outer == tuple(sorted(self.outer)))
        lonely = len(inner) == 1 or len(outer) == 1
        return self.kind, number, inner, self.six, outer, lonely or same_way, self.vlan


MADE = st.builds(
    Made,
    outer=st.sampled_from([(X, Y), (Y, X), (X, A), (X, X)]),
    inner=st.sampled_from(
        [((A, 1000), (B, 80)), ((B, 80), (A, 1000)), ((A, 1000), (C, 80)), ((A, 7), (A, 7)), ((A, 1), (A, 2))]
    ),
    number=st.sampled_from([5, 6]),
    kind=st.sampled_from(["vxlan", "vxlan", "gre", "ip", ""]),
    entropy=st.sampled_from([50_000, 50_001]),
    back=st.booleans(),
    six=st.booleans(),
    vlan=st.sampled_from([None, None, 3]),
)  # fmt: skip


def batch_of(packets, **more):
    batch = make_batch(packets, **more)
    batch.chunk.arena.set_link_type(0, 1)
    return batch


def hashes(packets, by, groups=FLOW):
    batch = batch_of(packets)
    Parser(1, flow_key=by)(batch, groups)
    return batch.flow_hash.tolist()


def ids(packets, by, **more):
    return FlowTable(1000, 2, by=FLOW_KEYS[by], **more).find(batch_of(packets)).tolist()


@pytest.mark.parametrize("by", FLOW_KEYS)
@given(made=st.lists(MADE, min_size=1, max_size=40))
@settings(max_examples=examples(150), deadline=None)
def test_equal_flows_have_equal_hashes_and_ids_and_different_ones_do_not(by, made):
    packets = [each.packet() for each in made]
    keys = [each.key(by) for each in made]
    values, numbers = hashes(packets, by), ids(packets, by)
    assert hashes(packets, by, FLOW | COLUMN_GROUPS["headers"]) == values
    for value, number, key in zip(values, numbers, keys, strict=True):
        assert [v == value for v in values] == [k == key for k in keys]
        assert [n == number for n in numbers] == [k == key for k in keys]


def row_of(packets, by):
    table = FlowTable(1000, 2, by=FLOW_KEYS[by])
    table.find(batch_of(packets))
    return table.export()


@pytest.mark.parametrize("by", FLOW_KEYS)
def test_the_columns_are_of_the_first_packet_s_headers_whatever_tells_flows_apart(by):
    for made in (Made(), Made(back=True), Made(kind="gre"), Made(six=True, kind="ip"), Made(vlan=3)):
        (row,) = row_of([made.packet()] * 3, by)
        near, far = made.outer[::-1] if made.back else made.outer
        (source, sport), (target, dport) = made.inner[::-1] if made.back else made.inner
        assert (row["source_address"][12:].tobytes(), row["target_address"][12:].tobytes()) == (near, far)
        assert (row["ip_version"], row["packets"], row["packets_back"]) == (4, 3, 0)
        ports = (50_000, 4789) if made.kind == "vxlan" else (0, 0)
        assert (row["source_port"], row["target_port"]) == ports
        assert TUNNELS[int(row["tunnel_kind"])] == made.kind
        assert row["tunnel_id"] == (0 if made.kind == "ip" else 5)
        assert (row["inner_source_address"][12:].tobytes(), row["inner_source_port"]) == (source, sport)
        assert (row["inner_target_address"][12:].tobytes(), row["inner_target_port"]) == (target, dport)
        assert (row["inner_ip_version"], row["inner_protocol"]) == (6 if made.six else 4, 6)
        assert row["tcp_flags"] == (0 if by == "outer" else 0x18)
        assert row["vlan_count"] == (made.vlan is not None)
    (row,) = row_of([Made(kind="").packet()], by)
    assert not any(row[name].any() for name in row.dtype.names if name.startswith(("tunnel", "inner")))


def error(quoted: bytes) -> bytes:
    """An ICMP error about a packet, of its family, on Ethernet."""
    message = bytes(8) + quoted
    if quoted[0] >> 4 == 4:
        return ethernet(0x0800, ip4(1, b"\3\1" + message[2:], source=A, target=B))
    return ethernet(0x86DD, ip6(58, b"\1\0" + message[2:], source=A6, target=B6))


@pytest.mark.parametrize("by", FLOW_KEYS)
def test_tcp_flags_are_none_of_a_header_that_an_icmp_error_quotes(by):
    head = struct.pack(">II", 0x08000000, 5 << 8)
    for quoted in (ip4(6, tcp()), ip6(6, tcp()), ip4(6, tcp(), options=b"\1" * 4), ip4(4, ip4(6, tcp()))):
        within = ethernet(0x0800, ip4(17, udp(50_000, 4789, head + error(quoted)), source=X, target=Y))
        for packet in (error(quoted), within):
            (row,) = row_of([packet], by)
            assert row["tcp_flags"] == 0, (by, quoted)


@pytest.mark.parametrize("by", FLOW_KEYS)
def test_tcp_flags_stand_within_the_length_of_the_header_around_them(by):
    """Whether or not the packet is an ordinary one."""
    for vlans in ((), (3,), (3, 4)):
        for size, flags in ((33, 0), (34, 0x18), (45, 0x18)):
            (row,) = row_of([ethernet(0x0800, ip4(6, tcp(), total=size), vlans)], by)
            assert row["tcp_flags"] == flags, (vlans, size)


@pytest.mark.parametrize("by", ["inner", "both"])
def test_directions_are_those_within(by):
    (row,) = row_of([Made(back=True).packet(), Made(entropy=1).packet(), Made(entropy=2).packet()], by)
    assert (row["packets"], row["packets_back"], row["inner_source_address"][12:].tobytes()) == (1, 2, B)


def test_a_flow_that_begins_again_from_the_other_side():
    table = FlowTable(1000, 2, idle_ms=10, by=FLOW_KEYS["both"])
    packets = [Made().packet(), Made(back=True).packet(), Made().packet()]
    table.find(batch_of(packets, times_ns=[0, 10**9, 10**9 + 1]))
    (first,), (second,) = table.ended(), table.export()
    assert (first["inner_source_address"][12:].tobytes(), first["source_address"][12:].tobytes()) == (A, X)
    assert (second["inner_source_address"][12:].tobytes(), second["source_address"][12:].tobytes()) == (B, Y)
    assert (second["packets"], second["packets_back"]) == (1, 1)


def parts(payload, protocol, *, source=X, target=Y, identification=9):
    """An IPv4 datagram in three fragments."""
    cuts = [(0, payload[:64], 0x2000), (8, payload[64:128], 0x2000), (16, payload[128:], 0)]
    return [
        ip4(protocol, part, source=source, target=target, part=place | more, identification=identification)
        for place, part, more in cuts
    ]


@pytest.mark.parametrize("by", ["inner", "both"])
def test_later_fragments_of_a_tunnel_s_packet_are_where_the_first_one_was(by):
    made = Made()
    inner = ip4(6, tcp(1000, 80, data=bytes(200)), source=A, target=B)
    protocol, payload = made.around(inner)
    fragments = [ethernet(0x0800, part) for part in parts(payload, protocol)]
    other = Made(number=6).packet()
    packets = [other, made.packet(), *fragments, other]
    assert ids(packets, by) == [0, 1, 1, 1, 1, 0]
    values = hashes(packets, by)
    assert len(set(values)) == 2
    assert len(set(values[1:5])) == 1
    assert len(set(ids([fragments[1], *fragments], by))) == 2  # the first one had not come yet


@pytest.mark.parametrize("by", ["inner", "both"])
@pytest.mark.parametrize("six", [False, True])
def test_fragments_within_are_put_to_their_first_one_and_by_tunnel(by, six):
    def within(number, entropy):
        data = udp(1000, 80, bytes(200))
        if six:
            pieces = [
                ip6(44, fragment6(17, place, more, 7, piece), source=A6, target=B6)
                for place, more, piece in ((0, 1, data[:64]), (8, 0, data[64:]))
            ]
        else:
            pieces = parts(data, 17, source=A, target=B)
        head = struct.pack(">II", 0x08000000, number << 8)
        kind = 0x86DD if six else 0x0800
        return [
            ethernet(0x0800, ip4(17, udp(entropy + n, 4789, head + ethernet(kind, piece)), source=X, target=Y))
            for n, piece in enumerate(pieces)
        ]

    packets = within(5, 50_000) + within(6, 50_000)
    half = len(packets) // 2
    assert ids(packets, by) == [0] * half + [1] * half
    batch = batch_of(packets[1:half])
    Parser(1, flow_key=by)(batch, COLUMN_GROUPS["flow"] | COLUMN_GROUPS["inner"])
    assert (batch.inner_flags & FLAGS["orphan"]).all()


def test_a_table_of_few_flows_forgets_what_was_around_those_that_gave_way():
    table = FlowTable(4, 3, by=FLOW_KEYS["both"])
    made = [Made(number=n) if n % 3 else Made(kind="", inner=((A, n), (B, 80))) for n in range(200)]
    table.find(batch_of([each.packet() for each in made]))
    rows = np.concatenate([table.ended(), table.export()])
    rows.sort(order="id")
    assert len(rows) == 200
    assert [int(row["tunnel_id"]) for row in rows] == [n if n % 3 else 0 for n in range(200)]
    assert [bool(row["tunnel_kind"]) for row in rows] == [n % 3 != 0 for n in range(200)]


def test_other_values_are_refused():
    with pytest.raises(ValueError, match="fragment table"):
        FlowTable(10, by=3)
    with pytest.raises(KeyError):
        Parser(flow_key="middle")
