"""Packets of routing protocols from Ethernet on, with right checksums: OSPF and VRRP by scapy, PIM by hand. Only for
tests.

Every address in them is one of ADDRESSES, which nothing else in them looks like.
"""

from __future__ import annotations

import ipaddress
import struct

from scapy.contrib import ospf
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vrrp import VRRP, VRRPv3
from scapy.packet import Packet, Raw
from scapy.utils import checksum

A4, B4, C4, D4 = "198.51.100.23", "203.0.113.77", "192.0.2.99", "198.18.7.65"
A6, B6, C6, D6 = (f"2001:db8:{n:x}:{n:x}::{n:x}{n:x}" for n in (0x1A, 0x2B, 0x3C, 0x4D))
ADDRESSES = [ipaddress.ip_address(each).packed for each in (A4, B4, C4, D4, A6, B6, C6, D6)]
ETHER = Ether(src="00:1b:21:3c:9d:f8", dst="00:1b:21:77:ab:cd")
OSPF, PIM = 89, 103


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def states2() -> list[Packet]:
    """One link state of each kind of version 2."""
    ids = {"id": C4, "adrouter": D4}
    return [
        ospf.OSPF_Router_LSA(
            id=D4,
            adrouter=D4,
            linklist=[ospf.OSPF_Link(id=C4, data=A4, type=2), ospf.OSPF_Link(id=B4, data="255.255.255.0")],
        ),
        ospf.OSPF_Network_LSA(**ids, routerlist=[A4, B4]),
        ospf.OSPF_SummaryIP_LSA(**ids),
        ospf.OSPF_SummaryASBR_LSA(**ids),
        ospf.OSPF_External_LSA(**ids, fwdaddr=B4, tag=7),
        ospf.OSPF_NSSA_External_LSA(**ids, fwdaddr=A4),
        ospf.OSPF_Area_Scope_Opaque_LSA(id="1.0.0.1", adrouter=D4, data=b"\0\1\0\4" + packed(C4)),
    ]  # fmt: skip


def states3() -> list[Packet]:
    """One of each kind of version 3."""
    prefix = ospf.OSPFv3_Prefix_Item(prefixlen=128, prefix=f"{D6}/128")
    return [
        ospf.OSPFv3_Router_LSA(adrouter=D4, linklist=[ospf.OSPFv3_Link(neighbor=C4), ospf.OSPFv3_Link(neighbor=B4)]),
        ospf.OSPFv3_Network_LSA(adrouter=D4, routerlist=[A4, B4]),
        ospf.OSPFv3_Inter_Area_Prefix_LSA(adrouter=D4, prefixlen=128, prefix=f"{C6}/128"),
        ospf.OSPFv3_Inter_Area_Router_LSA(adrouter=D4, id=C4, router=C4),
        ospf.OSPFv3_AS_External_LSA(adrouter=D4, flags=3, prefixlen=128, prefix=f"{C6}/128", fwaddr=D6, tag=5),
        ospf.OSPFv3_Link_LSA(adrouter=D4, lladdr=C6, prefixlist=[prefix, prefix]),
        ospf.OSPFv3_Intra_Area_Prefix_LSA(adrouter=D4, refadrouter=C4, prefixlist=[prefix]),
    ]  # fmt: skip


def heads(states: list[Packet], kind: type[Packet]) -> list[Packet]:
    return [kind(bytes(each)[:20]) for each in states]


def pim(six: bool, kind: int, body: bytes, covered: int | None = None) -> Packet:
    """covered: bytes that the checksum covers; None: all."""
    message = bytes([0x20 | kind, 0, 0, 0]) + body
    total = message[:covered]
    pseudo = packed(A6) + packed(B6) + struct.pack(">II", len(total), PIM) if six else b""
    message = message[:2] + struct.pack(">H", checksum(pseudo + total)) + message[4:]
    return (IPv6(src=A6, dst=B6, nh=PIM) if six else IP(src=A4, dst=B4, proto=PIM)) / Raw(message)


def pim_packets(six: bool) -> dict[str, Packet]:
    """Each type of message, with addresses of IPv4 or of IPv6 in it."""
    family = 2 if six else 1
    one, other = (packed(C6), packed(D6)) if six else (packed(C4), packed(D4))
    bits = len(one) * 8
    unicast = [bytes([family, 0]) + each for each in (one, other)]
    group, source = (bytes([family, 0, flags, bits]) + each for flags, each in ((0, one), (4, other)))
    option = struct.pack(">HHH", 1, 2, 105) + struct.pack(">HH", 24, len(unicast[0]) * 2) + unicast[0] + unicast[1]
    joins = unicast[0] + b"\0\1\0\xd2" + group + b"\0\1\0\1" + source + source
    inner = bytes((IPv6(src=C6, dst=D6) if six else IP(src=C4, dst=D4)) / UDP(sport=5, dport=6) / b"data")
    null = bytes(IPv6(src=C6, dst=D6, nh=59) if six else IP(src=C4, dst=D4, proto=PIM))
    return {
        "hello": pim(six, 0, option),
        "register": pim(six, 1, bytes(4) + inner, 8),
        "register summed up whole": pim(six, 1, bytes(4) + inner),
        "null register": pim(six, 1, b"\x40\0\0\0" + null, 8),
        "register-stop": pim(six, 2, group + unicast[1]),
        "join": pim(six, 3, joins),
        "bootstrap": pim(six, 4, b"\0\7\x1e\xc0" + unicast[0] + group + b"\2\2\0\0" + (unicast[1] + b"\0\x96\0\0") * 2),
        "assert": pim(six, 5, group + unicast[1] + bytes(8)),
        "graft": pim(six, 6, joins),
        "candidate": pim(six, 8, b"\1\xc0\0\x96" + unicast[0] + group),
        "state refresh": pim(six, 9, group + unicast[1] + unicast[0] + bytes(12)),
        "forwarder": pim(six, 10, unicast[0] + bytes(8) + unicast[1] + bytes(10)),
    }


def routing_packets() -> dict[str, bytes]:
    """name -> packet."""
    four, six = IP(src=A4, dst=B4, proto=OSPF), IPv6(src=A6, dst=B6, nh=OSPF)
    two, three = ospf.OSPF_Hdr(src=D4, area=C4), ospf.OSPFv3_Hdr(src=D4, area=C4)
    made: dict[str, Packet] = {
        "ospf hello": four / two / ospf.OSPF_Hello(router=C4, backup=D4, neighbors=[A4, B4]),
        "ospf description": four / two / ospf.OSPF_DBDesc(lsaheaders=heads(states2(), ospf.OSPF_LSA_Hdr)),
        "ospf request": four / two / ospf.OSPF_LSReq(requests=[ospf.OSPF_LSReq_Item(id=C4, adrouter=D4)] * 2),
        "ospf update": four / two / ospf.OSPF_LSUpd(lsalist=states2()),
        "ospf acknowledgement": four / two / ospf.OSPF_LSAck(lsaheaders=heads(states2(), ospf.OSPF_LSA_Hdr)),
        "ospf with a password": four
        / ospf.OSPF_Hdr(src=D4, area=C4, authtype=1, authdata=int.from_bytes(b"\0\0\0\0" + packed(C4), "big"))
        / ospf.OSPF_LSUpd(lsalist=states2()[:2]),
        "ospf 3 hello": six / three / ospf.OSPFv3_Hello(router=C4, backup=D4, neighbors=[A4, B4]),
        "ospf 3 description": six / three / ospf.OSPFv3_DBDesc(lsaheaders=heads(states3(), ospf.OSPFv3_LSA_Hdr)),
        "ospf 3 request": six / three / ospf.OSPFv3_LSReq(requests=[ospf.OSPFv3_LSReq_Item(adrouter=D4)] * 2),
        "ospf 3 update": six / three / ospf.OSPFv3_LSUpd(lsalist=states3()),
        "ospf 3 acknowledgement": six / three / ospf.OSPFv3_LSAck(lsaheaders=heads(states3(), ospf.OSPFv3_LSA_Hdr)),
        "vrrp 2": IP(src=A4, dst=B4) / VRRP(addrlist=[C4, D4], authtype=1, auth1=int.from_bytes(packed(C4), "big")),
        "vrrp 3": IP(src=A4, dst=B4) / VRRPv3(addrlist=[C4, D4]),
        "vrrp 3 over ipv6": IPv6(src=A6, dst=B6) / VRRPv3(addrlist=[C6, D6]),
    }
    for version, six_too in ((4, False), (6, True)):
        made |= {f"pim {name} over ipv{version}": packet for name, packet in pim_packets(six_too).items()}
    return {name: bytes(ETHER / packet) for name, packet in made.items()}
