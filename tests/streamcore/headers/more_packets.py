"""Packets of rarer kinds, as made_packets.py makes the others: link headers in all their forms, tags, tunnels' options.

UNKNOWN_TO_TSHARK: those whose link type tshark 4.0 does not read. Only for tests.
"""

from __future__ import annotations

import struct

from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.ppp import PPPoE
from scapy.packet import Packet, Raw

from tests.streamcore.headers.made_packets import (
    MAC,
    OTHER_MAC,
    Fields,
    ether_type,
    frame,
    gre_plain,
    inner,
    nsh,
    on_ether,
    over_ip,
    over_udp,
    snap,
    wifi,
)

SNAP = bytes.fromhex("aaaa03000000")
ADDRESSES = [bytes.fromhex(f"02000000000{n}") for n in range(1, 5)]


def be16(number: int) -> bytes:
    return struct.pack(">H", number)


def typed(fields: Fields) -> bytes:
    """EtherType and packet."""
    return be16(ether_type(fields)) + bytes(inner(fields))


def ppp_number(fields: Fields) -> bytes:
    return b"\0\x57" if fields.six else b"\0\x21"


def upper(fields: Fields, tcp: bool = False) -> Packet:
    source, target = fields.ports
    return (TCP(sport=source, dport=target) if tcp else UDP(sport=source, dport=target)) / Raw(fields.payload)


def mapped(fields: Fields) -> bytes:
    ip = IPv6(src=f"::ffff:1.2.3.{fields.number & 255}", dst="::ffff:9.8.7.6")
    return on_ether(bytes(ip / upper(fields, fields.tcp)), 0x86DD)


def wifi_header(control: int, fourth: bool = False, qos: bytes = b"") -> bytes:
    addresses = ADDRESSES[0] + ADDRESSES[1] + ADDRESSES[2] + b"\0\0" + (ADDRESSES[3] if fourth else b"")
    return struct.pack("<HH", control, 0) + addresses + qos


def one_of_a_msdu(fields: Fields) -> bytes:
    body = SNAP + typed(fields)
    return wifi_header(0x0188, qos=b"\x80\0") + ADDRESSES[0] + ADDRESSES[1] + be16(len(body)) + body


def four_addresses(fields: Fields) -> bytes:
    return wifi_header(0x0388 if fields.flag else 0x0308, True, bytes(2) if fields.flag else b"") + SNAP + typed(fields)


def with_fcs(fields: Fields) -> bytes:
    """Radiotap whose flags say that a check sequence follows and, perhaps, that the header was padded."""
    padded = bool(fields.extra & 1)
    said = (bytes(8) if fields.flag else b"") + bytes([0x30 if padded else 0x10])
    head = struct.pack("<BBHI", 0, 0, 8 + len(said), 3 if fields.flag else 2) + said
    return head + wifi_header(0x0188, qos=bytes(2)) + bytes(2 * padded) + SNAP + typed(fields) + bytes(4)


def geneve(fields: Fields) -> bytes:
    options = b"".join(struct.pack(">HBB", 0x0102, 0, n) + bytes(4 * n) for n in range(fields.extra + 1))
    body = bytes(inner(fields)) if fields.flag else bytes(frame(fields))
    number = ether_type(fields) if fields.flag else 0x6558
    return over_udp(struct.pack(">BBHI", len(options) // 4, 0, number, fields.number << 8) + options + body, 6081)


def gtp(fields: Fields) -> bytes:
    kinds = [0x85, 0xC0, 0x40, 0x20][: fields.extra + 1]
    chain = b"".join(bytes([1, 0, 5, following]) for following in [*kinds[1:], 0])
    body = struct.pack(">HBB", 7, 0, kinds[0]) + chain + bytes(inner(fields))
    head = struct.pack(">BBHI", 0x36 if fields.flag else 0x34, 255, len(body), fields.number)
    return over_udp(head + body, 2152, 2152)


def erf(fields: Fields, kind: int) -> bytes:
    body = b"\0\0" + bytes(frame(fields)) if kind == 2 else b"\xff\x03" + ppp_number(fields) + bytes(inner(fields))
    more = bytes(8) if fields.flag else b""
    head = bytes(8) + bytes([kind | (0x80 if fields.flag else 0), 4])
    return head + be16(16 + len(more) + len(body)) + bytes(2) + be16(len(body)) + more + body


def juniper(link: int, fields: Fields) -> bytes:
    extension = be16(6) + bytes.fromhex("010102040100") if fields.flag else b""
    body = {
        178: lambda: bytes(frame(fields)),
        179: lambda: b"\xff\x03" + ppp_number(fields) + bytes(inner(fields)),
        180: lambda: b"\x18\x41\x03" + (b"\x8e" if fields.six else b"\xcc") + bytes(inner(fields)),
        181: lambda: b"\x0f\0" + typed(fields),
    }[link]()
    return b"MGC" + bytes([0x81 if fields.flag else 0x01]) + extension + body


def tagged(fields: Fields, tag: bytes) -> bytes:
    """A switch's tag behind the addresses."""
    packet = bytes(frame(fields))
    return packet[:12] + tag + packet[12:]


def pktap(fields: Fields) -> bytes:
    head = struct.pack("<IIII", 108, 1, 1 if fields.flag else 12, 0) + bytes(92)
    return head + bytes(frame(fields) if fields.flag else inner(fields))


def family(fields: Fields, number: int, order: str) -> bytes:
    return struct.pack(f"{order}I", number if fields.six else 2) + bytes(inner(fields))


def gpe(fields: Fields) -> bytes:
    following = 3 if fields.flag else 2 if fields.six else 1
    head = bytes([0x0C, 0, 0, following]) + struct.pack(">I", fields.number << 8)
    return over_udp(head + bytes(frame(fields) if fields.flag else inner(fields)), 4790)


def teredo(fields: Fields) -> bytes:
    packet = bytes(IPv6(src="2001::1", dst="2001:db8::2") / upper(fields))
    authentication = b"\0\1" + bytes([fields.extra, 0]) + bytes(fields.extra + 9)
    origin = bytes.fromhex("0000ffff01020304") if fields.flag else b""
    return over_udp(authentication + origin + packet, 3544, 40_000)


def extensions(fields: Fields) -> bytes:
    packet = IPv6(src="2001:db8::9", dst="2001:db8::8")
    packet = packet / IPv6ExtHdrHopByHop() if fields.flag else packet
    packet = packet / IPv6ExtHdrRouting(addresses=["2001:db8::7"], segleft=0) if fields.extra & 1 else packet
    packet = packet / IPv6ExtHdrFragment(offset=0, m=0, id=7) if fields.extra & 2 else packet
    return on_ether(bytes(packet / IPv6ExtHdrDestOpt() / upper(fields, fields.tcp)), 0x86DD)


def isl(fields: Fields) -> bytes:
    packet = bytes(frame(fields))
    head = bytes.fromhex("01000c000000") + ADDRESSES[1] + be16(len(packet) + 16) + SNAP[:3] + b"\0\0\x0c"
    return head + be16(10) + bytes(4) + packet + bytes(4)


def macsec(fields: Fields) -> bytes:
    sci = bytes(8) if fields.flag else b""
    return on_ether(bytes([0x20 if fields.flag else 0, 0]) + bytes(4) + sci + typed(fields) + bytes(16), 0x88E5)


def l2tp(fields: Fields) -> bytes:
    ppp = (b"\xff\x03" if fields.flag else b"") + ppp_number(fields) + bytes(inner(fields))
    head = struct.pack(">HHHH", 0x0202, 3, fields.number & 0xFFFF, fields.extra)
    return over_udp(head + bytes(fields.extra) + ppp, 1701, 1701)


def labels(fields: Fields) -> bytes:
    stack = MPLS(label=100, s=0, ttl=9) / MPLS(label=7, s=0) / MPLS(label=5000, s=1)
    return on_ether(bytes(stack) + bytes(inner(fields)), 0x8847)


def routed_ring(fields: Fields) -> bytes:
    return b"\x10\x40" + ADDRESSES[0] + b"\x82" + ADDRESSES[1][1:] + bytes.fromhex("063000110020") + snap(fields)


def in_six(fields: Fields, number: int, payload: bytes) -> bytes:
    return on_ether(bytes(IPv6(src="2001:db8::9", dst="2001:db8::8", nh=number) / Raw(payload)), 0x86DD)


def vxlan_in_six(fields: Fields) -> bytes:
    data = b"\x08\0\0\0" + struct.pack(">I", fields.number << 8) + bytes(frame(fields))
    return in_six(fields, 17, bytes(UDP(sport=5555, dport=4789, len=8 + len(data)) / Raw(data)))


def of_length(body: bytes) -> bytes:
    """An IEEE 802.3 frame."""
    return ADDRESSES[0] + ADDRESSES[1] + be16(len(body)) + body


def mesh(fields: Fields) -> bytes:
    """A frame of a mesh, with further addresses."""
    more = fields.extra % 3
    control = bytes([more, 9]) + bytes(4 + 6 * more)
    return wifi_header(0x0388, True, b"\0\1") + control + SNAP + typed(fields)


def batman(fields: Fields) -> bytes:
    head = [b"\x40\x0f\x32\0", b"\x42\x0f\x32\0", b"\1\x0f\x32\0", b"\3\x0e\x32\0"][fields.extra]
    more = [6, 14, 10, 6][fields.extra]
    return on_ether(head + bytes(more) + bytes(frame(fields)), 0x4305)


def bridged_nflog(fields: Fields) -> bytes:
    packet = bytes(inner(fields))
    head = struct.pack("<HH", 8, 1) + be16(ether_type(fields)) + bytes(2)
    return b"\7\0\0\0" + head + struct.pack("<HH", 4 + len(packet), 9) + packet + bytes(-len(packet) % 4)


def record_of_erf(kind: int, body: bytes) -> bytes:
    return bytes(8) + bytes([kind, 4]) + be16(16 + len(body)) + bytes(2) + be16(len(body)) + body


def only_four(fields: Fields) -> bytes:
    return bytes(IP(src="10.1.2.3", dst="10.4.5.6") / upper(fields))


MORE_KINDS = {
    "mapped addresses": (1, mapped),
    "802.11 a-msdu": (105, one_of_a_msdu),
    "802.11 four addresses": (105, four_addresses),
    "802.11 ht control": (105, lambda f: wifi_header(0x8188, qos=bytes(6)) + SNAP + typed(f)),
    "radiotap with fcs": (127, with_fcs),
    "avs": (163, lambda f: struct.pack(">II", 0x80211001, 64) + bytes(56) + wifi(f, False)),
    "prism": (119, lambda f: struct.pack("<II", 0x44, 144) + bytes(136) + wifi(f, False)),
    "ppp with fcs": (9, lambda f: b"\xff\x03" + ppp_number(f) + bytes(inner(f)) + b"\xab\xcd"),
    "ppp pppd": (166, lambda f: bytes([f.flag, 3]) + ppp_number(f) + bytes(inner(f))),
    "ppp with direction": (204, lambda f: bytes([f.flag]) + b"\xff\x03" + ppp_number(f) + bytes(inner(f))),
    "hdlc with direction": (205, lambda f: bytes([f.flag]) + b"\x0f\0" + typed(f)),
    "frame relay with direction": (206, lambda f: bytes([f.flag]) + b"\x18\x41\x03\0\x80\0\0\0" + typed(f)),
    "frame relay of four bytes": (107, lambda f: b"\x18\x40\x40\x41\x03\xcc" + only_four(f)),
    "frame relay snap": (107, lambda f: b"\x18\x41\x03\0\x80\0\0\0" + typed(f)),
    "geneve options": (1, geneve),
    "gtp extensions": (1, gtp),
    "erf ethernet": (197, lambda f: erf(f, 2)),
    "erf hdlc": (197, lambda f: erf(f, 1)),
    **{f"juniper {link}": (link, lambda f, link=link: juniper(link, f)) for link in (178, 179, 180, 181)},
    "broadcom": (281, lambda f: tagged(f, b"\0\0\0\3")),
    "broadcom in front": (282, lambda f: b"\0\0\0\3" + bytes(frame(f))),
    "dsa": (284, lambda f: tagged(f, b"\xc0\x08\0\5")),
    "edsa": (285, lambda f: tagged(f, b"\xda\xda\0\0\xc0\x08\0\5")),
    "pktap": (258, pktap),
    "null of netbsd": (0, lambda f: family(f, 24, "<")),
    "null of freebsd": (0, lambda f: family(f, 28, "<")),
    "null of macos, big": (0, lambda f: family(f, 30, ">")),
    "loop": (108, lambda f: family(f, 24, ">")),
    "firewire": (138, lambda f: bytes(16) + typed(f)),
    "enc": (109, lambda f: struct.pack("<III", 24 if f.six else 2, 0x1234, 0) + bytes(inner(f))),
    "pflog": (117, lambda f: bytes([61, 24 if f.six else 2]) + bytes(62) + bytes(inner(f))),
    "token ring, routed": (6, routed_ring),
    "cooked 2": (276, lambda f: struct.pack(">HHIHBB8s", ether_type(f), 0, 3, 1, 0, 6, bytes(6)) + bytes(inner(f))),
    "classical ip": (106, lambda f: bytes(inner(f))),
    "llc snap": (1, lambda f: of_length(snap(f))),
    "llc ip": (1, lambda f: of_length(b"\x06\x06\x03" + only_four(f))),
    "provider backbone": (1, lambda f: on_ether(struct.pack(">I", f.number) + bytes(frame(f)), 0x88E7)),
    "r-tag": (1, lambda f: on_ether(b"\0\0\0\7" + typed(f), 0xF1C1)),
    "vn-tag": (1, lambda f: on_ether(b"\0\0\0\7" + typed(f), 0x8926)),
    "e-tag": (1, lambda f: on_ether(b"\0\0\0\7\0\0" + typed(f), 0x893F)),
    "two tags": (1, lambda f: on_ether(be16(7) + be16(0x9100 if f.flag else 0x8100) + be16(8) + typed(f), 0x88A8)),
    "isl": (1, isl),
    "macsec in clear": (1, macsec),
    "trill": (1, lambda f: on_ether(b"\0\x3f\0\1\0\2" + bytes(frame(f)), 0x22F3)),
    "vxlan-gpe": (1, gpe),
    "vxlan in ipv6": (1, vxlan_in_six),
    "teredo with authentication": (1, teredo),
    "wccp": (1, lambda f: gre_plain((b"\0\1\0\1" if f.flag else b"") + only_four(f), 0x883E, False)),
    "extension headers": (1, extensions),
    "authentication header": (1, lambda f: on_ether(over_ip(bytes([17, 4]) + bytes(22) + bytes(upper(f)), 51))),
    "ip options": (
        1,
        lambda f: on_ether(bytes(IP(src="10.1.2.3", dst="10.4.5.6", options=[IPOption_NOP()] * 4) / upper(f))),
    ),
    "tzsp 802.11": (1, lambda f: over_udp(b"\x01\0\0\x12\x01" + wifi(f, False), 37_008)),
    "entropy label": (1, labels),
    "aruba": (1, lambda f: gre_plain(wifi(f, False), 0x8200 + 0x10 * f.extra, False)),
    "ethernet in ipv6": (1, lambda f: in_six(f, 143, bytes(frame(f)))),
    "associated channel": (
        1,
        lambda f: on_ether(b"\0\1\0\xff\0\0\xd1\xff\x10\0" + ppp_number(f) + bytes(inner(f)), 0x8847),
    ),
    "batman": (1, batman),
    "ethernet in ethernet": (1, lambda f: on_ether(bytes(frame(f)), 0x6558)),
    "802.11 mesh": (105, mesh),
    "nflog of a bridge": (239, bridged_nflog),
    "cooked ppp": (
        113,
        lambda f: be16(0) + be16(512) + bytes(10) + be16(7) + b"\xff\3" + ppp_number(f) + bytes(inner(f)),
    ),
    "ppp in llc": (100, lambda f: b"\xfe\xfe\3\xcf" + ppp_number(f) + bytes(inner(f))),
    "sun atm, not said": (123, lambda f: (b"\0" if f.flag else b"\4") + b"\0\0\x20" + snap(f)),
    "erf aal5": (197, lambda f: record_of_erf(4, bytes(4) + snap(f))),
    "erf channels": (197, lambda f: record_of_erf(17 if f.flag else 5, bytes(4) + b"\x0f\0" + typed(f))),
    "erf colours": (197, lambda f: record_of_erf([10, 15, 19, 1][f.extra], b"\x0f\0" + typed(f))),
    "juniper without a link": (178, lambda f: b"MGC\3" + bytes([6 if f.six else 2]) + bytes(3) + bytes(inner(f))),
    "juniper multilink": (130, lambda f: b"MGC\1" + bytes(2 * f.flag) + ppp_number(f) + bytes(inner(f))),
    "juniper atm 1": (137, lambda f: b"MGC\1" + bytes(4) + snap(f)),
    "juniper atm 2": (135, lambda f: b"MGC\1" + bytes(8) + (ppp_number(f) + bytes(inner(f)) if f.flag else snap(f))),
    "nsh in gre": (1, lambda f: gre_plain(nsh(f) + bytes(inner(f)), 0x894F, False)),
    "nsh ethernet": (
        1,
        lambda f: on_ether(
            struct.pack(">HBBI", 0x0FC6, 1, 3, f.number << 8 | 255) + bytes(16) + bytes(frame(f)), 0x894F
        ),
    ),
    "l2tp with an offset": (1, l2tp),
    "pppoe in a tag": (
        1,
        lambda f: bytes(
            Ether(src=MAC, dst=OTHER_MAC) / Dot1Q(vlan=5) / PPPoE(sessionid=3) / Raw(ppp_number(f) + bytes(inner(f)))
        ),
    ),
    "gre in ipv6": (1, lambda f: in_six(f, 47, b"\0\0" + typed(f))),
}
UNKNOWN_TO_TSHARK = (
    "ppp pppd", "hdlc with direction", "frame relay with direction", "broadcom", "broadcom in front", "dsa", "edsa",
)  # fmt: skip
