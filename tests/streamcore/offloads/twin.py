"""The slow and obvious twin of streamcore.offloads: super-packets made and cut with scapy, which fills in every length
and checksum by itself.
"""

import struct

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import GRE, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

NEEDS_CHECKSUM, TCP4, TCP6, UDP_SEGMENTS, ECN = 1, 1, 4, 5, 0x80
FIN, PSH, CWR = 0x01, 0x08, 0x80
LINKS = ("plain", "vlan", "two vlans", "vxlan", "vxlan of linux", "vxlan without checksum", "gre", "ip in ip")


def link(name):
    """The headers before the IP packet that is segmented."""
    ethernet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    outer = IP(src="192.0.2.1", dst="192.0.2.2", id=65534)
    inner = Ether(src="02:00:00:00:00:03", dst="02:00:00:00:00:04")
    return {
        "plain": ethernet,
        "vlan": ethernet / Dot1Q(vlan=5),
        "two vlans": ethernet / Dot1Q(vlan=5, type=0x8100) / Dot1Q(vlan=6),
        "vxlan": ethernet / outer / UDP(sport=50_000, dport=4789) / VXLAN(vni=7) / inner,
        "vxlan of linux": ethernet / outer / UDP(sport=50_000, dport=8472) / VXLAN(vni=7) / inner,
        "vxlan without checksum": ethernet / IPv6(src="2001:db8::1", dst="2001:db8::2")
        / UDP(sport=50_000, dport=4789, chksum=0) / VXLAN(vni=7) / inner,
        "gre": ethernet / outer / GRE(key_present=1, key=9),
        "ip in ip": ethernet / outer,
    }[name]  # fmt: skip


def packet(headers, version, tcp, payload, *, flags="A", sequence=1, options=(), identification=1, extension=False):
    """A whole packet in scapy's layers. The checksum field and all lengths are scapy's."""
    ip = IP(src="10.0.0.1", dst="10.0.0.2", id=identification) if version == 4 else IPv6(src="fe80::1", dst="fe80::2")
    if extension and version == 6:
        ip = ip / IPv6ExtHdrDestOpt()
    transport = (
        TCP(sport=1000, dport=80, seq=sequence, flags=flags, options=list(options))
        if tcp
        else UDP(sport=1000, dport=443)
    )
    return Ether(bytes(headers / ip / transport / Raw(payload)))


def partial(data, start, field):
    """The packet as its sender gives it to hardware: the field holds the sum of the pseudo-header, not inverted.

    As the whole sum is inverted, and what the field stands for is left out of it, that is the true sum less the rest.
    """
    (true,) = struct.unpack_from("!H", data, field)
    blank = data[:field] + b"\0\0" + data[field + 2 :]
    rest = sum(struct.unpack(f"!{(len(blank) - start + 1) // 2}H", blank[start:] + bytes((len(blank) - start) % 2)))
    pseudo = (0xFFFF ^ true) - rest
    pseudo %= 0xFFFF
    return data[:field] + struct.pack("!H", pseudo) + data[field + 2 :]


def identify(layers, number):
    """Every IPv4 header's identification goes on by one."""
    each = layers
    while each:
        if isinstance(each, IP):
            each.id = (each.id + number) % 65536
        each = each.payload


def rebuilt(layers):
    """With lengths and checksums by scapy again, because identifications were changed; a checksum of 0 in UDP stays."""
    each = layers
    while each:
        for name in ("chksum", "len", "plen"):
            if name in each.fields and not (isinstance(each, UDP) and name == "chksum" and each.chksum == 0):
                del each.fields[name]
        each = each.payload
    return layers


def cut(make, payload, segment_bytes):
    """The segments of make(payload, flags to leave out, sequence number, number), in order."""
    parts = [payload[at : at + segment_bytes] for at in range(0, len(payload), segment_bytes)]
    return [
        make(part, number * segment_bytes, number, first=number == 0, last=number == len(parts) - 1)
        for number, part in enumerate(parts)
    ]


def is_right(packet):
    """Whether an IPv4 packet of TCP or UDP has right checksums and lengths, summed word by word (RFC 1071)."""
    length = (packet[0] & 15) * 4
    transport = packet[length:]
    pseudo = packet[12:20] + bytes([0, packet[9]]) + struct.pack("!H", len(transport))
    return word_sum(packet[:length]) == word_sum(pseudo + transport) == 0xFFFF and len(packet) == int.from_bytes(
        packet[2:4], "big"
    )


def word_sum(data):
    """The one's complement sum of the 16-bit words: 0xFFFF over what includes its own right checksum."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total
