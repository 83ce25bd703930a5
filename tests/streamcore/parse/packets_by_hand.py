"""Packets for tests, made by hand: every link type and header that parse/ knows."""

import struct

SOURCE4, TARGET4 = bytes([10, 1, 2, 3]), bytes([192, 0, 2, 9])
SOURCE6, TARGET6 = bytes.fromhex("20010db8000000000000000000000001"), bytes.fromhex("20010db8000000000000000000000002")
ETHERNET, RAW, SLL, SLL2, NULL, LOOP = 1, 101, 113, 276, 0, 108


def tcp(source=1234, target=80, options=b"", data=b"hello", flags=0x18):
    return (
        struct.pack(">HHIIBBHHH", source, target, 1, 2, (5 + len(options) // 4) << 4, flags, 9, 0, 0) + options + data
    )


def udp(source=5353, target=53, data=b"question"):
    return struct.pack(">HHHH", source, target, 8 + len(data), 0) + data


def sctp(source=7, target=8):
    return struct.pack(">HHII", source, target, 1, 2) + b"chunk"


def dccp(source=9, target=10):
    return struct.pack(">HHBBHII", source, target, 4, 0, 0, 1, 2) + b"data"


def icmp():
    return struct.pack(">BBHHH", 8, 0, 0, 1, 2) + b"ping"


def ip4(protocol, payload, *, source=SOURCE4, target=TARGET4, options=b"", part=0, identification=77, total=None):
    size = 20 + len(options)
    total = size + len(payload) if total is None else total
    head = struct.pack(">BBHHHBBH", 0x40 | size // 4, 0, total, identification, part, 64, protocol, 0)
    return head + source + target + options + payload


def ip6(protocol, payload, *, source=SOURCE6, target=TARGET6, length=None):
    length = len(payload) if length is None else length
    return struct.pack(">IHBB", 6 << 28, length, protocol, 64) + source + target + payload


def extension(following, size=8):
    return bytes([following, size // 8 - 1]) + bytes(size - 2)


def fragment6(following, offset, more, identification, payload):
    return struct.pack(">BBHI", following, 0, offset << 3 | more, identification) + payload


def authentication(following, payload):
    return struct.pack(">BBHII", following, 4, 0, 1, 2) + bytes(12) + payload


def ethernet(kind, payload, vlans=(), tag=0x8100):
    tags = b"".join(struct.pack(">HH", tag, vlan) for vlan in vlans)
    return b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02" + tags + struct.pack(">H", kind) + payload


def sll(kind, payload):
    return struct.pack(">HHH8sH", 0, 1, 6, b"\2" * 6, kind) + payload


def sll2(kind, payload):
    return struct.pack(">HHIHBB8s", kind, 0, 3, 1, 0, 6, b"\2" * 6) + payload


def samples():
    """name -> (link type, packet)."""
    four, six = ip4(6, tcp()), ip6(17, udp())
    snap = b"\xaa\xaa\x03\0\0\0\x08\x00"
    whole = ethernet(0x0800, four)
    on_ethernet = {
        "tcp": four,
        "tcp options": ip4(6, tcp(options=bytes(12))),
        "ip options": ip4(17, udp(), options=b"\x01" * 8),
        "padding": four + bytes(6),
        "offloaded": ip4(6, tcp(), total=0),
        "sctp": ip4(132, sctp()),
        "dccp": ip4(33, dccp()),
        "udplite": ip4(136, udp()),
        "icmp": ip4(1, icmp()),
        "gre": ip4(47, bytes(20)),
        "first fragment": ip4(17, udp(), part=0x2000),
        "later fragment": ip4(17, b"rest", part=5),
        "authenticated": ip4(51, authentication(6, tcp())),
        "ip in ip": ip4(4, four),
        "six in four": ip4(41, six),
        "deep": ip4(4, ip4(4, ip4(4, four))),
        "bad header length": b"\x43" + four[1:],
        "bad total length": ip4(6, tcp(), total=12),
        "bad tcp": ip4(6, tcp()[:12] + b"\x10" + tcp()[13:]),
        "short total": ip4(6, tcp(), total=30),
    }
    on_six = {
        "udp6": six,
        "tcp6": ip6(6, tcp()),
        "chain": ip6(0, extension(60) + extension(43, 16) + extension(6, 24) + tcp()),
        "fragment6": ip6(44, fragment6(17, 0, 1, 9, udp())),
        "later fragment6": ip6(44, fragment6(17, 3, 0, 9, b"rest")),
        "atomic": ip6(44, fragment6(17, 0, 0, 9, udp())),
        "authenticated6": ip6(51, authentication(17, udp())),
        "four in six": ip6(4, four),
        "six in six": ip6(41, six),
        "icmp6": ip6(58, icmp()),
        "none": ip6(59, b""),
        "jumbo": ip6(17, udp(), length=0),
        "long chain": ip6(60, extension(60) * 20 + extension(17) + udp()),
    }
    table = {name: (ETHERNET, ethernet(0x0800, p)) for name, p in on_ethernet.items()}
    table |= {name: (ETHERNET, ethernet(0x86DD, p)) for name, p in on_six.items()}
    table |= {
        "vlan": (ETHERNET, ethernet(0x0800, four, [5])),
        "vlan6": (ETHERNET, ethernet(0x86DD, six, [6])),
        "two tags": (ETHERNET, ethernet(0x0800, four, [7, 8], 0x88A8)),
        "six tags": (ETHERNET, ethernet(0x0800, four, range(6))),
        "many tags": (ETHERNET, ethernet(0x0800, four, range(300))),
        "arp": (ETHERNET, ethernet(0x0806, bytes(28))),
        "snap": (ETHERNET, ethernet(len(snap + four), snap + four)),
        "llc ip": (ETHERNET, ethernet(3 + len(four), b"\x06\x06\x03" + four)),
        "stp": (ETHERNET, ethernet(38, b"\x42\x42\x03" + bytes(35))),
        "mpls": (ETHERNET, ethernet(0x8847, b"\0\1\0\x40\0\2\1\x40" + four)),
        "pseudowire": (ETHERNET, ethernet(0x8847, b"\0\1\1\x40" + bytes(4) + whole)),
        "pppoe": (ETHERNET, ethernet(0x8864, b"\x11\0\0\1\0\x40\0\x57" + six)),
        "etag": (ETHERNET, ethernet(0x893F, bytes(6) + b"\x08\0" + four)),
        "vntag": (ETHERNET, ethernet(0x8926, bytes(4) + b"\x08\0" + four)),
        "backbone": (ETHERNET, ethernet(0x88E7, bytes(4) + whole)),
        "raw4": (RAW, four),
        "raw6": (229, six),
        "raw bad": (228, b"\x50" + four[1:]),
        "sll": (SLL, sll(0x0800, four)),
        "sll vlan": (SLL, sll(0x8100, b"\0\5\x08\0" + four)),
        "sll2": (SLL2, sll2(0x86DD, six)),
        "null le": (NULL, b"\2\0\0\0" + four),
        "null be": (NULL, b"\0\0\0\x1e" + six),
        "loop": (LOOP, b"\0\0\0\x18" + six),
        "unknown": (147, four),
    }
    return table
