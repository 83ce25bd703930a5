"""What the walk reports: layers, where each begins and ends, the outcome. Columns are tested in parse/."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.headers._walk import explain
from tests.examples import examples
from tests.streamcore.parse.packets_by_hand import ethernet, extension, icmp, ip4, ip6, samples, tcp, udp

FOUR = ip4(6, tcp())
ARP = bytes.fromhex("0001080006040001") + bytes(20)

# name -> (link type, packet, kinds of its layers with the offset of each, outcome, tunnel, its id)
PACKETS = {
    "tcp": (1, ethernet(0x0800, FOUR), "ethernet 0, ip4 14, tcp 34", "transport", "", 0),
    "tags": (1, ethernet(0x0800, FOUR, [1, 2]), "ethernet 0, vlan 14, ip4 22, tcp 42", "transport", "", 0),
    "old tags": (1, ethernet(0x0800, FOUR, [1], 0x9200), "ethernet 0, vlan 14, ip4 18, tcp 38", "transport", "", 0),
    "arp": (1, ethernet(0x0806, ARP), "ethernet 0, arp 14", "control", "", 0),
    "icmp": (1, ethernet(0x0800, ip4(1, icmp())), "ethernet 0, ip4 14, icmp4 34", "control", "", 0),
    "quoted": (
        101,
        ip4(1, b"\x03\x01" + bytes(6) + FOUR[:28]),
        "ip4 0, icmp4 20, ip4 28 quoted, tcp 48 quoted cut",
        "control",
        "",
        0,
    ),
    "options": (
        101,
        ip6(0, extension(60) + extension(6, 24) + tcp()),
        "ip6 0, extension 40, extension 48, tcp 72",
        "transport",
        "",
        0,
    ),
    "later fragment": (101, ip4(17, b"rest", part=5), "ip4 0", "fragment", "", 0),
    "nothing": (101, ip6(59, b""), "ip6 0", "nothing", "", 0),
    "six in four": (101, ip4(41, ip6(17, udp())), "ip4 0, ip6 20, udp 60", "transport", "ip", 0),
    "gre": (101, ip4(47, b"\0\0\x08\0" + FOUR), "ip4 0, tunnel 20, ip4 24, tcp 44", "transport", "gre", 0),
    "gre with a key": (
        101,
        ip4(47, b"\x20\0\x65\x58\0\0\1\2" + ethernet(0x0800, FOUR)),
        "ip4 0, tunnel 20, ethernet 28, ip4 42, tcp 62",
        "transport",
        "gre",
        258,
    ),
    "an unknown protocol": (101, ip4(253, bytes(8)), "ip4 0", "unknown", "", 0),
    "an unknown EtherType": (1, ethernet(0x1234, bytes(8)), "ethernet 0", "unknown", "", 0),
    "netlink": (113, b"\0\4\3\x38" + bytes(12), "capture 0", "unknown", "", 0),
    "cut": (1, ethernet(0x0800, FOUR)[:40], "ethernet 0, ip4 14, tcp 34 cut", "truncated", "", 0),
    "bad": (101, b"\x43" + FOUR[1:], "", "malformed", "", 0),
    "unknown link": (147, FOUR, "", "link unknown", "", 0),
}  # fmt: skip


def over(payload: bytes, port: int) -> bytes:
    return ethernet(0x0800, ip4(17, udp(55_555, port, payload)))


IN_TUNNELS = {
    "vxlan": over(b"\x08\0\0\0\0\0\7\0" + ethernet(0x0800, FOUR), 4789),
    "geneve": over(b"\0\0\x65\x58\0\0\7\0" + ethernet(0x86DD, ip6(17, udp())), 6081),
    "gtp": over(b"\x30\xff\0\x2d\0\0\0\7" + FOUR, 2152),
    "bridged": ethernet(0x0800, ip4(47, b"\0\0\x65\x58" + ethernet(0x0800, FOUR))),
    "vxlan in vxlan": over(b"\x08\0\0\0\0\0\7\0" + over(b"\x08\0\0\0\0\0\1\0" + ethernet(0x0800, FOUR), 4789), 4789),
}


@pytest.mark.parametrize("name", PACKETS)
def test_the_layers_of(name: str) -> None:
    link, packet, layers, outcome, tunnel, number = PACKETS[name]
    found, *rest, _ = explain(packet, link)
    texts = []
    for kind, offset, length, end, _, marks in found:
        texts.append(f"{kind} {offset} {marks}".rstrip())
        assert offset + length <= end <= len(packet)
    assert ", ".join(texts) == layers
    assert (rest[0], *rest[2:]) == (outcome, tunnel, number)


@pytest.mark.parametrize("name", samples())
def test_every_layer_begins_where_one_before_it_ends_however_the_packet_is_cut(name: str) -> None:
    link, packet = samples()[name]
    for size in range(len(packet) + 1):
        layers, outcome, at, *_ = explain(packet[:size], link)
        edge, end = 0, size
        for _, offset, length, layer_end, _, _ in layers:
            assert offset == edge
            assert offset + length <= layer_end <= end
            edge, end = offset + length, layer_end
        assert (layers[-1][1] if layers else 0) <= at <= size
        assert at == edge or outcome in ("truncated", "malformed")
        if outcome in ("transport", "control", "fragment", "nothing"):
            assert layers


@given(
    st.sampled_from(
        [
            "tcp",
            "tcp options",
            "udp6",
            "tcp6",
            "icmp6",
            "none",
            "chain",
            "sctp",
            "padding",
            "short total",
            "bad tcp",
            *IN_TUNNELS,
        ]
    ),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=3),
    st.integers(0, 160),
)
@settings(max_examples=examples(600), deadline=None)
def test_the_shortcut_reports_what_the_steps_do(name: str, changes: list[tuple[int, int]], size: int) -> None:
    packet = bytearray(IN_TUNNELS[name] if name in IN_TUNNELS else samples()[name][1])
    for at, value in changes:
        if at < len(packet):
            packet[at] = value
    cut = bytes(packet[:size])
    assert explain(cut, 1) == explain(cut, 1, shortcut=False)


def test_the_walk_ends_after_255_layers_and_32_ip_headers() -> None:
    packet = FOUR
    for _ in range(400):
        packet = ip4(4, packet)
    assert explain(packet, 101)[1] == "too deep"
    assert len(explain(packet, 101)[0]) == 32
    tags = b"".join(b"\0\0\0\0\x89\x26" for _ in range(500))
    layers, outcome, at, *_ = explain(ethernet(0x8926, tags), 1)
    assert (len(layers), outcome, at) == (255, "too deep", 14 + 254 * 6)


@pytest.mark.parametrize("name", ["l2tp", "teredo"])
def test_a_capture_may_cut_a_datagram_whose_tunnel_gives_a_length(name: str) -> None:
    """The UDP header says how long it was. A length beyond that is no tunnel's."""
    pytest.importorskip("scapy", reason="scapy makes the packets: pip install -e .[dev]")
    from tests.streamcore.headers.made_packets import KINDS, Fields

    packet = KINDS[name][1](Fields(extra=1, tcp=False))
    for size in range(len(packet) - 12, len(packet) + 1):
        layers, *_, tunnel, _, _ = explain(packet[:size], 1)
        assert tunnel == name, size
        assert [layer[0] for layer in layers].count("udp") == 2
    place = 42 + (2 if name == "l2tp" else 4)
    longer = packet[:place] + (len(packet) + 9).to_bytes(2, "big") + packet[place + 2 :]
    assert explain(longer, 1)[3] == ""
