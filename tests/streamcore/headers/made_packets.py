"""Packets of every link type and tunnel, made by scapy where it knows the header and by hand where it does not.

KINDS: name -> (link type, function of a Fields that gives the packet's bytes). Only for tests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header
from scapy.contrib.mpls import MPLS
from scapy.layers.dot11 import Dot11, Dot11QoS, RadioTap
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrSegmentRouting
from scapy.layers.l2 import GRE, LLC, SNAP, CookedLinux, Dot1Q, Ether
from scapy.layers.ppp import PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


@dataclass(frozen=True)
class Fields:
    """What varies."""

    number: int = 5  # a VNI, a key, a session: 24 bits
    ports: tuple[int, int] = (40_000, 50_000)
    six: bool = False  # the packet within is IPv6
    tcp: bool = True
    payload: bytes = b"some payload"
    vlan: int = 0  # of the frame within
    flag: bool = False  # optional fields of the tunnel are there
    extra: int = 0  # more of them, 0 to 3


def inner(fields: Fields) -> Packet:
    upper = (
        TCP(sport=fields.ports[0], dport=fields.ports[1])
        if fields.tcp
        else UDP(sport=fields.ports[0], dport=fields.ports[1])
    )
    ip = IPv6(src="2001:db8::1", dst="2001:db8::2") if fields.six else IP(src="10.1.2.3", dst="10.4.5.6", id=7)
    return ip / upper / Raw(fields.payload)


def frame(fields: Fields) -> Packet:
    ether = Ether(src=MAC, dst=OTHER_MAC)
    return (ether / Dot1Q(vlan=fields.vlan) if fields.vlan else ether) / inner(fields)


def over_ip(payload: Packet | bytes, protocol: int) -> bytes:
    return bytes(IP(src="192.0.2.1", dst="192.0.2.2", proto=protocol, id=1) / Raw(bytes(payload)))


def on_ether(payload: bytes, kind: int = 0x0800) -> bytes:
    return bytes(Ether(src=MAC, dst=OTHER_MAC, type=kind) / Raw(payload))


def over_udp(payload: Packet | bytes, port: int, source: int = 55_555) -> bytes:
    return on_ether(
        bytes(IP(src="192.0.2.1", dst="192.0.2.2", id=1) / UDP(sport=source, dport=port) / Raw(bytes(payload)))
    )


def ether_type(fields: Fields) -> int:
    return 0x86DD if fields.six else 0x0800


def gre(fields: Fields, payload: bytes, kind: int, **more: int) -> bytes:
    keyed = {"key_present": 1, "key": fields.number} if fields.flag else {}
    numbered = {"seqnum_present": 1, "sequence_number": 9} if fields.extra & 1 else {}
    summed = {"chksum_present": 1} if fields.extra & 2 else {}
    return on_ether(over_ip(GRE(proto=kind, **keyed, **numbered, **summed, **more) / Raw(payload), 47))


def gre_plain(payload: bytes, kind: int, sequence: bool) -> bytes:
    head = GRE(proto=kind, seqnum_present=1, sequence_number=3) if sequence else GRE(proto=kind)
    return on_ether(over_ip(head / Raw(payload), 47))


def gtp(fields: Fields) -> bytes:
    extended = b"\x01\x00\x00\x00" if fields.extra else b""  # a PDU session container of 4 bytes: no further header
    optional = struct.pack(">HBB", 7, 0, 0x85 if fields.extra else 0) if fields.flag or fields.extra else b""
    flags = 0x30 | (4 if fields.extra else 0) | (2 if fields.flag else 0)
    body = optional + extended + bytes(inner(fields))
    return over_udp(struct.pack(">BBHI", flags, 255, len(body), fields.number) + body, 2152, 2152)


def l2tp(fields: Fields) -> bytes:
    ppp = (b"\xff\x03" if fields.flag else b"") + (b"\x00\x57" if fields.six else b"\x00\x21") + bytes(inner(fields))
    flags = 2 | (0x4000 if fields.extra & 1 else 0) | (0x0800 if fields.extra & 2 else 0)
    head = struct.pack(">HH", 3, fields.number & 0xFFFF) + (bytes(4) if fields.extra & 2 else b"")
    size = struct.pack(">H", 2 + 2 + len(head) + len(ppp)) if fields.extra & 1 else b""
    return over_udp(struct.pack(">H", flags) + size + head + ppp, 1701, 1701)


def teredo(fields: Fields) -> bytes:
    packet = bytes(IPv6(src="2001::1", dst="2001:db8::2") / UDP(sport=1, dport=2) / Raw(fields.payload))
    origin = bytes.fromhex("0000ffff01020304") if fields.flag else b""
    return over_udp(origin + packet, 3544, 40_000)


def wifi(fields: Fields, radiotap: bool) -> bytes:
    body = LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0, code=ether_type(fields)) / inner(fields)
    to_ap = Dot11(type=2, subtype=8 if fields.flag else 0, FCfield=1, addr1=MAC, addr2=OTHER_MAC, addr3=MAC)
    packet = bytes(to_ap) + (bytes(Dot11QoS()) if fields.flag else b"") + bytes(body)
    return bytes(RadioTap()) + packet if radiotap else packet


def nflog(fields: Fields) -> bytes:
    packet = bytes(inner(fields))
    prefix = struct.pack("<HH", 5, 10) + b"\0" + bytes(3)  # a prefix, padded
    field = struct.pack("<HH", 4 + len(packet), 9) + packet + bytes(-len(packet) % 4)
    return bytes([10 if fields.six else 2, 0, 0, 0]) + (prefix if fields.flag else b"") + field


def mpls(fields: Fields) -> Packet:
    last = MPLS(label=max(fields.number & 0xFFFFF, 16), s=1, ttl=9)  # below stand labels with a meaning
    return MPLS(label=17, s=0, ttl=9) / last if fields.flag else last


def ppp(fields: Fields) -> bytes:
    number = (b"\x57" if fields.six else b"\x21") if fields.extra & 1 else (b"\0\x57" if fields.six else b"\0\x21")
    return (b"\xff\x03" if fields.flag else b"") + number + bytes(inner(fields))


def snap(fields: Fields) -> bytes:
    return b"\xaa\xaa\x03\0\0\0" + struct.pack(">H", ether_type(fields)) + bytes(inner(fields))


def erspan2(fields: Fields) -> bytes:
    return struct.pack(">HHI", 0x1005, fields.number & 1023, 0) + bytes(frame(fields))


def ipnet(fields: Fields) -> bytes:
    head = bytes([1, 26 if fields.six else 2, 0, 0]) + struct.pack(">I", len(inner(fields)))
    return head + bytes(16) + bytes(inner(fields))


def routed() -> Packet:
    segments = IPv6ExtHdrSegmentRouting(addresses=["2001:db8::7", "2001:db8::8"], segleft=1)
    return IPv6(src="2001:db8::9", dst="2001:db8::8") / segments / IPv6ExtHdrDestOpt()


def erspan3(fields: Fields) -> bytes:
    head = struct.pack(">HHIHH", 0x2005, fields.number & 1023, 77, 0, int(fields.flag))
    return head + (bytes(8) if fields.flag else b"") + bytes(frame(fields))


def nsh(fields: Fields) -> bytes:
    return struct.pack(">HBBI", 0x0FC2, 2, 2 if fields.six else 1, fields.number << 8 | 255)


def lisp(fields: Fields) -> bytes:
    head = struct.pack(">II", 0x08000000, fields.number << 8) if fields.flag else struct.pack(">II", 0x80000001, 0)
    return over_udp(head + bytes(inner(fields)), 4341)


def capwap(fields: Fields) -> bytes:
    return over_udp(b"\x00\x10\x02\x00\0\0\0\0" + bytes(frame(fields)), 5247)


def tzsp(fields: Fields) -> bytes:
    tags = b"\x0a\x01\x05" if fields.flag else b""
    return over_udp(b"\x01\x00\x00\x01" + tags + b"\x01" + bytes(frame(fields)), 37_008)


KINDS = {
    "gre": (1, lambda f: gre(f, bytes(inner(f)), ether_type(f))),
    "gre bridged": (1, lambda f: gre(f, bytes(frame(f)), 0x6558)),
    "gre mpls": (1, lambda f: gre(f, bytes(mpls(f) / inner(f)), 0x8847)),
    "gre ppp": (1, lambda f: gre_plain(b"\xff\x03" + ppp(Fields(six=f.six, payload=f.payload)), 0x880B, f.flag)),
    "erspan 1": (1, lambda f: gre_plain(bytes(frame(f)), 0x88BE, False)),
    "erspan 2": (1, lambda f: gre_plain(erspan2(f), 0x88BE, True)),
    "erspan 3": (1, lambda f: gre_plain(erspan3(f), 0x22EB, True)),
    "vxlan": (1, lambda f: over_udp(VXLAN(vni=f.number, flags=8) / frame(f), 4789)),
    "geneve": (1, lambda f: over_udp(GENEVE(vni=f.number, proto=0x6558) / frame(f), 6081)),
    "gtp": (1, gtp),
    "gtp by scapy": (1, lambda f: over_udp(GTP_U_Header(teid=f.number, gtp_type=255) / inner(f), 2152)),
    "l2tp": (1, l2tp),
    "teredo": (1, teredo),
    "lisp": (1, lisp),
    "capwap": (1, capwap),
    "tzsp": (1, tzsp),
    "mpls in udp": (1, lambda f: over_udp(mpls(f) / inner(f), 6635)),
    "gre in udp": (1, lambda f: over_udp(GRE(proto=ether_type(f)) / inner(f), 4754)),
    "mpls in ip": (1, lambda f: on_ether(over_ip(mpls(f) / inner(f), 137))),
    "etherip": (1, lambda f: on_ether(over_ip(b"\x30\x00" + bytes(frame(f)), 97))),
    "ip in ip": (1, lambda f: on_ether(over_ip(inner(f), 41 if f.six else 4))),
    "pim register": (1, lambda f: on_ether(over_ip(b"\x21\0\xde\xff\0\0\0\0" + bytes(inner(f)), 103))),
    "nsh": (1, lambda f: on_ether(nsh(f) + bytes(inner(f)), 0x894F)),
    "hsr": (1, lambda f: on_ether(b"\0\x40\0\1" + struct.pack(">H", ether_type(f)) + bytes(inner(f)), 0x892F)),
    "pppoe": (1, lambda f: on_ether(bytes(PPPoE(sessionid=f.number & 0xFFFF) / Raw(ppp(Fields(six=f.six)))), 0x8864)),
    "segment routing": (1, lambda f: on_ether(bytes(routed() / inner(f)), 0x86DD)),
    "ppp": (9, ppp),
    "ppp serial": (50, lambda f: b"\xff\x03" + ppp(Fields(six=f.six, payload=f.payload, tcp=f.tcp))),
    "hdlc in ppp serial": (50, lambda f: b"\x0f\0" + struct.pack(">H", ether_type(f)) + bytes(inner(f))),
    "hdlc": (104, lambda f: b"\x8f\0" + struct.pack(">H", ether_type(f)) + bytes(inner(f))),
    "frame relay": (107, lambda f: b"\x18\x41\x03" + (b"\x8e" if f.six else b"\xcc") + bytes(inner(f))),
    "802.11": (105, lambda f: wifi(f, False)),
    "radiotap": (127, lambda f: wifi(f, True)),
    "ppi": (192, lambda f: struct.pack("<BBHI", 0, 0, 8, 105) + wifi(f, False)),
    "nflog": (239, nflog),
    "cooked": (113, lambda f: bytes(CookedLinux(proto=ether_type(f)) / inner(f))),
    "fddi": (10, lambda f: b"\x50" + bytes(12) + snap(f)),
    "atm": (100, snap),
    "ipnet": (226, ipnet),
    "infiniband": (242, lambda f: bytes(40) + struct.pack(">HH", ether_type(f), 0) + bytes(inner(f))),
    "arcnet": (7, lambda f: b"\x01\x02" + (b"\xc4" if f.six else b"\xd4") + b"\0\0\1" + bytes(inner(f))),
    "arcnet of linux": (129, lambda f: b"\x01\x02\0\0" + (b"\xc4" if f.six else b"\xd4") + b"\0\0\1" + bytes(inner(f))),
    "juniper": (178, lambda f: b"MGC\x01" + bytes(frame(f))),
    "token ring": (6, lambda f: b"\x10\x40" + bytes(12) + snap(f)),
    "sun atm": (123, lambda f: b"\x02\0\0\x20" + snap(f)),
    "raw": (101, lambda f: bytes(inner(f))),
}  # fmt: skip
