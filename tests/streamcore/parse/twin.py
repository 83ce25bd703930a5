"""A slow, obvious twin of the parser: one packet at a time, struct and slices, nothing shared with the native code.

`parse(packet, link_type)` returns a Found. It reads like the RFCs and is wrong wherever they are read wrongly; the
corpus' truth is the other oracle.
"""

import struct
from dataclasses import dataclass, field

ABSENT = 65_535
LOCATED = 65_534  # headers are looked for in the bytes before this
DEPTH = 32  # IP headers in one another
LAYERS = 255  # headers of any kind; a run of VLAN tags or MPLS labels is one
ERRORS = {1: (3, 4, 5, 11, 12), 58: (1, 2, 3, 4)}  # ICMP types that quote a packet (RFC 792, RFC 4443)
VLAN = (0x8100, 0x88A8, 0x9100, 0x9200, 0x9300)


class Cut(Exception):
    """A header goes on beyond what was captured."""


class Bad(Exception):
    """A header contradicts itself."""


class Deep(Exception):
    """More headers than are followed."""


@dataclass
class Ip:
    version: int
    protocol: int
    l3: int
    source: bytes
    target: bytes
    l4: int = ABSENT
    payload: int = ABSENT
    ports: tuple[int, int] | None = None
    fragment: int = 0
    more: bool = False
    identification: int = 0

    @property
    def is_fragment(self):
        return bool(self.fragment or self.more)


@dataclass
class Found:
    vlans: list[int] = field(default_factory=list)
    ips: list[Ip] = field(default_factory=list)
    truncated: bool = False
    malformed: bool = False
    deep: bool = False
    known: bool = True
    layers: int = 0

    def another(self):
        if self.layers == LAYERS:
            raise Deep
        self.layers += 1


def take(data, at, size):
    if at + size > len(data):
        raise Cut
    return data[at : at + size]


def parse(packet, link_type):
    found = Found()
    data = packet[:LOCATED]
    try:
        at, data = link(data, link_type, found)
        while at is not None:
            if len(found.ips) == DEPTH:
                take(data, at, 1)
                raise Deep
            at, data = ip(data, at, found)
    except Cut:
        found.truncated = True
    except Bad:
        found.malformed = True
    except Deep:
        found.deep = True
    return found


def link(data, link_type, found):
    """Where the outermost IP header stands, or None; and the bytes that are trusted from there on."""
    if link_type in (12, 14, 101, 228, 229):
        return 0, data
    if link_type in (0, 1, 108, 113, 276):
        found.another()
    if link_type == 1:
        return ethernet(data, 14, struct.unpack(">H", take(data, 0, 14)[12:])[0], found)
    if link_type == 113:
        _, hardware, _, _, protocol = struct.unpack(">HHH8sH", take(data, 0, 16))
        return cooked(data, 16, hardware, protocol, found)
    if link_type == 276:
        protocol, _, _, hardware = struct.unpack(">HHIH", take(data, 0, 20)[:10])
        return cooked(data, 20, hardware, protocol, found)
    if link_type in (0, 108):
        family = int.from_bytes(take(data, 0, 4), "big")
        if family > 0xFFFF:
            family = int.from_bytes(data[:2], "little")
        if family in (2, 10, 23, 24, 26, 28, 30):
            return 4, data
        return ethernet(data, 4, family, found) if family > 1500 else (None, data)
    found.known = False
    return None, data


def cooked(data, at, hardware, protocol, found):
    if hardware == 824 or (protocol < 1536 and protocol != 4):
        return None, data
    return ethernet(data, at, protocol, found)


def ethernet(data, at, kind, found):
    while kind not in (0x0800, 0x86DD):
        if kind in VLAN:
            while kind in VLAN:
                tag, kind = struct.unpack(">HH", take(data, at, 4))
                if not found.ips:
                    found.vlans.append(tag & 0xFFF)
                at += 4
            found.another()
            continue
        if kind <= 1500:
            if data[at : at + 3] == b"\x06\x06\x03":
                found.another()
                return at + 3, data
            snap = data[at : at + 8]
            if len(snap) < 8 or snap[:6] not in (b"\xaa\xaa\x03\0\0\0", b"\xaa\xaa\x03\0\0\xf8"):
                return None, data
            found.another()
            size = 8
        elif kind in (0x8847, 0x8848):
            while not take(data, at, 4)[2] & 1:
                at += 4
            at += 4
            found.another()
            if at >= len(data):
                return None, data
            if data[at] >> 4 in (4, 6):
                return at, data
            if data[at] >> 4:
                return None, data
            found.another()
            found.another()
            size = 18
        elif kind == 0x8864:
            found.another()
            _, code, _, length = struct.unpack(">BBHH", take(data, at, 6))
            if code:
                return None, data
            found.another()
            data = data[: at + 6 + length] if length else data
            return (at + 8 if take(data, at, 8)[6:] in (b"\x00\x21", b"\x00\x57") else None), data
        else:
            sizes = {0x8926: 6, 0x893F: 8, 0x8909: 8, 0x88E7: 18, 0x8903: 16}
            if kind not in sizes:
                return None, data
            found.another()
            if kind in (0x88E7, 0x8903):
                found.another()
            size = sizes[kind]
        kind = int.from_bytes(take(data, at, size)[-2:], "big")
        at += size
    return at, data


def quoted(data, at, found):
    """The packet that an ICMP error is about. It fills no column, and what is wrong in it says nothing of this one."""
    aside = Found(ips=list(found.ips), layers=found.layers)
    try:
        while at is not None:
            at, data = ip(data, at, aside)
            del aside.ips[len(found.ips) :]
    except (Cut, Bad, Deep):
        return


def ip(data, at, found):
    """Parse one IP header; (where the next one stands or None, the bytes that are trusted from here on)."""
    if at >= len(data):
        raise Cut
    version = data[at] >> 4
    found.another()
    if version == 4:
        return ip4(data, at, found)
    if version == 6:
        return ip6(data, at, found)
    raise Bad


def ip4(data, at, found):
    if at + 20 > len(data):
        raise Cut
    first, _, total, identification, part, _, protocol, _, source, target = struct.unpack(
        ">BBHHHBBH4s4s", take(data, at, 20)
    )
    size = (first & 15) * 4
    if size < 20:
        raise Bad
    layer = Ip(4, protocol, at, source, target, fragment=part & 0x1FFF, more=bool(part & 0x2000))
    layer.identification = identification
    found.ips.append(layer)
    if total:
        if total < size:
            raise Bad
        data = data[: at + total]
    take(data, at, size)
    if layer.fragment:
        return None, data
    return upper(data, at + size, protocol, layer, found)


def ip6(data, at, found):
    if at + 40 > len(data):
        raise Cut
    _, length, protocol, _, source, target = struct.unpack(">IHBB16s16s", take(data, at, 40))
    layer = Ip(6, protocol, at, source, target)
    found.ips.append(layer)
    if length:
        data = data[: at + 40 + length]
    at += 40
    while layer.protocol in (0, 43, 44, 60):
        found.another()
        head = take(data, at, 8)
        was, layer.protocol = layer.protocol, head[0]
        if was == 44:
            part, layer.identification = struct.unpack(">HI", head[2:])
            layer.fragment, layer.more = part >> 3, bool(part & 1)
            if layer.fragment:
                return None, data
            at += 8
        else:
            at += (head[1] + 1) * 8
            if at > len(data):
                raise Cut
    return upper(data, at, layer.protocol, layer, found)


def upper(data, at, protocol, layer, found):
    while protocol == 51 or (layer.protocol == 51 and layer.version == 6 and protocol in (0, 43, 60)):
        found.another()
        if protocol == 51:
            size = (take(data, at, 12)[1] + 2) * 4
            if size < 12:
                raise Bad
        else:
            size = 8 * (take(data, at, 8)[1] + 1)
        take(data, at, size)
        protocol = data[at]
        at += size
    layer.l4 = at if at < len(data) else ABSENT
    if protocol in (4, 41):
        if at >= len(data):
            raise Cut
        if data[at] >> 4 != (4 if protocol == 4 else 6):
            raise Bad
        return at, data
    if protocol == 47:
        return gre(data, at, found)
    sizes = {6: 20, 17: 8, 136: 8, 132: 12, 33: 12, 1: 8, 58: 8}
    if protocol not in sizes:
        return None, data
    if protocol not in (1, 58) and at + 4 <= len(data):
        layer.ports = struct.unpack(">HH", data[at : at + 4])
    size = len(take(data, at, sizes[protocol]))
    if protocol in (6, 33):
        size = (data[at + 12] >> 4 if protocol == 6 else data[at + 4]) * 4
        if size < sizes[protocol]:
            raise Bad
    take(data, at, size)
    layer.payload = at + size
    if data[at] in ERRORS.get(protocol, ()) and at + size < len(data):
        quoted(data, at + size, found)
    return None, data


def gre(data, at, found):
    if at + 4 <= len(data) and data[at + 1] & 7:
        return None, data
    found.another()
    first = data[at] if at + 4 <= len(data) else 0
    size = 4 + 4 * sum(bool(first & bit) for bit in (0xC0, 0x20, 0x10))
    if first & 0x40:  # entries of family, offset, length and routes; an empty one is the last (RFC 1701)
        while at + size + 4 <= len(data) and data[at + size + 3]:
            size += 4 + data[at + size + 3]
        size += 4
    kind = int.from_bytes(take(data, at, size)[2:4], "big")
    at += size
    if kind == 0x6558:
        found.another()
        return ethernet(data, at + 14, int.from_bytes(take(data, at, 14)[12:], "big"), found)
    if kind < 1536:
        return None, data
    return ethernet(data, at, kind, found)
