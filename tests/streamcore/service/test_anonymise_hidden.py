"""Addresses in places where few look: behind the end of what a kind of option, parameter or message has, in packets
that errors quote, in check sequences and in checksums that were never computed. None of them comes out.
"""

from __future__ import annotations

import binascii
import ipaddress
import logging
import random
import struct
import zlib

import pytest
from packets_by_hand import make_segment, packets_of, run

from streamcore.service.anonymise import Anonymise
from streamcore.service.count import Count

logging.getLogger("scapy").setLevel(logging.ERROR)
s = pytest.importorskip("scapy.all", reason="scapy is not installed")

KEY = bytes(range(7, 39)).hex()
A4, B4, C4, D4 = "198.51.100.23", "203.0.113.77", "192.0.2.99", "198.18.7.65"
A6, B6, C6 = "2001:db8:1a::17", "2001:db8:2b::28", "2001:db8:3c::39"
NEEDLES = [ipaddress.ip_address(each).packed for each in (A4, B4, C4, D4, A6, B6, C6)]
C, D, E = NEEDLES[2], NEEDLES[3], NEEDLES[6]
MAC, MAC2 = "00:1b:21:3c:9d:f8", "00:1b:21:77:ab:cd"
ETHER, FOUR, SIX = s.Ether(src=MAC, dst=MAC2), s.IP(src=A4, dst=B4), s.IPv6(src=A6, dst=B6)
INNER = bytes(s.IP(src=C4, dst=D4) / s.UDP(sport=1, dport=2) / b"inner")


def anonymised(packets: list[bytes], link: int = 1, **options: str) -> list[bytes]:
    service = Anonymise(key=KEY, **options)
    service.start()
    view = run(make_segment(packets, link_type=link), service)
    keep = view.result().keep
    return [each for i, each in enumerate(packets_of(view)) if keep is None or keep[i]]


def be16(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}H", *numbers)


def igmp(body: bytes) -> bytes:
    return bytes(ETHER / s.IP(src=A4, dst=B4, proto=2) / s.Raw(body))


def icmp6(body: bytes) -> bytes:
    return bytes(ETHER / s.IPv6(src=A6, dst=B6, nh=58) / s.Raw(body))


def icmp(body: bytes) -> bytes:
    return bytes(ETHER / s.IP(src=A4, dst=B4, proto=1) / s.Raw(body))


def sctp(chunk: bytes) -> bytes:
    return bytes(ETHER / FOUR / s.SCTP() / s.Raw(chunk))


def init(*parameters: bytes) -> bytes:
    body = bytes(16) + b"".join(parameters)
    return sctp(b"\1\0" + be16(4 + len(body)) + body)


def quoted(packet: object) -> bytes:
    return bytes(ETHER / FOUR / s.ICMP(type=3, code=3) / packet)


def of_ppp(number: int) -> object:
    return s.IP(src=B4, dst=A4) / s.GRE(proto=0x880B) / s.Raw(b"\xff\3" + be16(number) + bytes(4) + INNER)


def tzsp(kind: int, what: int, body: bytes) -> bytes:
    head = struct.pack(">BBHB", 1, kind, what, 1)
    return bytes(ETHER / FOUR / s.UDP(sport=40_000, dport=37_008) / s.Raw(head + body))


def mobility(option: bytes) -> bytes:
    options = option + bytes(-(4 + len(option)) % 8)
    body = bytes([59, (12 + len(options)) // 8 - 1, 5, 0]) + bytes(8) + options
    return bytes(ETHER / s.IPv6(src=A6, dst=B6, nh=135) / s.Raw(body))


def nflog(*fields: tuple[int, bytes], order: str = "<") -> bytes:
    packed = [struct.pack(order + "HH", 4 + len(value), kind) + value for kind, value in fields]
    return b"\2\0\0\0" + b"".join(each + bytes(-len(each) % 4) for each in packed)


ERROR = b"\x0b\0\0\0\0\0\0\0"
ARP_HEAD = be16(778, 0x0800, 0x0404, 1)
PLAIN = bytes(s.IP(src=A4, dst=B4) / s.UDP(sport=1, dport=2) / b"data")
OBJECT = be16(16) + b"\2\4" + be16(1, 0) + C + bytes(4)  # RFC 5837: an interface's address
QUOTE = bytes(s.IP(src=B4, dst=A4) / s.UDP(sport=5, dport=6) / bytes(100)).ljust(128, b"\0")
LEASE = bytes(s.BOOTP(chaddr=bytes(6)))[:236] + b"\x63\x82\x53\x63"
LONG_BEACON = bytes(24 + 300) + C
HIDDEN: dict[str, tuple[int, bytes]] = {
    "a quoted later fragment": (1, quoted(s.IP(src=B4, dst=A4, proto=4, frag=1) / s.Raw(INNER[8:]))),
    "quoted, and nothing should follow": (
        1,
        bytes(ETHER / SIX / s.ICMPv6TimeExceeded() / s.IPv6(src=B6, dst=A6, nh=59) / s.Raw(INNER)),
    ),
    "quoted, a piece of a PPP packet": (1, quoted(of_ppp(0x003D))),
    "quoted, a compressed PPP packet": (1, quoted(of_ppp(0x00FD))),
    "behind the end of a quoted packet": (1, quoted(s.IP(src=B4, dst=A4, len=28) / s.UDP(sport=5, dport=6) / INNER)),
    "the same in a redirect": (
        1,
        bytes(ETHER / FOUR / s.ICMP(type=5, gw=A4) / s.IP(src=B4, dst=A4, len=24, proto=47) / s.Raw(bytes(4) + INNER)),
    ),
    "the same of IPv6": (
        1,
        bytes(ETHER / SIX / s.ICMPv6PacketTooBig() / s.IPv6(src=B6, dst=A6, plen=8) / s.UDP(sport=5, dport=6) / INNER),
    ),
    "the same in an option": (
        1,
        bytes(
            ETHER
            / SIX
            / s.ICMPv6ND_Redirect(tgt=A6, dst=B6)
            / s.ICMPv6NDOptRedirectedHdr(pkt=s.IPv6(src=B6, dst=A6, plen=4, nh=47) / s.Raw(bytes(4) + INNER + bytes(4)))
        ),
    ),
    "an extension with a wrong checksum": (1, icmp(ERROR + QUOTE + b"\x20\0\1\2" + OBJECT)),
    "an extension without checksum": (1, icmp(ERROR + QUOTE + b"\x20\0\0\0" + OBJECT)),
    "third word of a router's entry": (1, icmp(b"\x09\0\0\0\1\3\0\5" + C + bytes(4) + D)),
    "behind a router advertisement of ICMP": (1, icmp(b"\x09\0\0\0\1\2\0\5" + C + bytes(4) + D)),
    "behind an IGMP report": (1, igmp(b"\x16\0\0\0" + C + D)),
    "behind an IGMP query without sources": (1, igmp(b"\x11\0\0\0" + C + bytes(4) + D)),
    "behind a discovery of multicast routers": (1, igmp(b"\x31\0\0\0\0\0\0\0" + D)),
    "behind an MLD report": (1, icmp6(b"\x83\0\0\0\0\0\0\0" + bytes(16) + E)),
    "behind the sources of an MLD query": (1, icmp6(b"\x82\0\0\0\0\0\0\0" + bytes(16) + bytes(4) + E)),
    "behind an address parameter of SCTP": (1, init(be16(5, 12) + C + D, be16(6, 36) + E + E)),
    "behind a number of SCTP": (1, init(be16(9, 12) + bytes(4) + D)),
    "in a chunk of SCTP that has no body": (1, sctp(b"\x0b\0\0\x08" + D)),
    "behind the blocks of an acknowledgement of SCTP": (1, sctp(b"\3\0" + be16(20) + bytes(12) + D)),
    "behind an error cause of SCTP": (1, sctp(b"\x09\0" + be16(16) + be16(3, 12) + bytes(4) + C)),
    "behind a number of DHCP": (
        1,
        bytes(ETHER / FOUR / s.UDP(sport=67, dport=68) / s.Raw(LEASE + b"\1\x08" + bytes(4) + D + b"\xff")),
    ),
    "DHCP from a boot server": (
        1,
        bytes(ETHER / FOUR / s.UDP(sport=4011, dport=68) / s.Raw(LEASE[:16] + C + D + LEASE[24:] + b"\xff")),
    ),
    "DHCP between boot server and client": (
        1,
        bytes(ETHER / FOUR / s.UDP(sport=4011, dport=4011) / s.Raw(LEASE[:16] + C + D + LEASE[24:] + b"\xff")),
    ),
    "behind a number of DHCPv6": (
        1,
        bytes(ETHER / SIX / s.UDP(sport=547, dport=546) / s.Raw(b"\7\0\0\1" + be16(7, 17) + b"\0" + E)),
    ),
    "hardware of a tunnel in ARP": (
        1,
        bytes(s.Ether(src=MAC, dst=MAC2, type=0x0806) / s.Raw(ARP_HEAD + C + NEEDLES[0] + D + NEEDLES[1])),
    ),
    "TZSP with PPP": (1, tzsp(0, 4, b"\xff\3\0\x21" + INNER)),
    "TZSP with SLIP": (1, tzsp(0, 3, INNER)),
    "TZSP of another type": (1, tzsp(2, 1, bytes(ETHER)[:12] + b"\x08\0" + INNER)),
    "a binding's option that is too long": (1, mobility(b"\2\x12" + bytes(2) + E)),
    "behind an alternate address": (1, mobility(b"\3\x20" + E + E)),
    "a routing header of no known type": (
        1,
        bytes(ETHER / s.IPv6(src=A6, dst=B6, nh=43) / s.Raw(bytes([17, 2, 3, 1, 0, 0, 0, 0]) + E + be16(1, 2, 8, 0))),
    ),
    "an attribute behind the packet of NFLOG": (239, nflog((9, PLAIN), (18, C + D))),
    "the same of a big-endian machine": (239, nflog((10, b"ab\0\0"), (9, PLAIN), (18, C + D), order=">")),
    "a number of NFLOG that is too long": (239, nflog((2, bytes(20) + C), (9, PLAIN))),
    "behind the fields of radiotap": (
        127,
        b"\0\0" + struct.pack("<HI", 13, 2) + b"\0" + C + b"\x08\1\0\0" + bytes(20) + b"\xaa\xaa\3\0\0\0\x08\0" + PLAIN,
    ),
}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"preset": "share"}, {"names": "replace"}, {"unknown": "truncate"}])
def test_nothing_of_it_comes_out(options):
    for name, (link, packet) in HIDDEN.items():
        assert any(needle in packet for needle in NEEDLES), name
        for each in anonymised([packet], link, **options):
            assert not [needle for needle in NEEDLES if needle in each or needle[::-1] in each], name


def test_groups_whose_numbers_hold_a_prefix():
    """RFC 6034, RFC 4620: in the address of the group, and in the hardware address that follows from it."""
    frame = bytes(s.Ether(src=MAC, dst="01:00:5e:33:64:17") / s.IP(src=A4, dst="234.51.100.23") / s.UDP())
    names = bytes(s.Ether(src=MAC, dst="33:33:ff:11:22:33") / s.IPv6(src=A6, dst="ff02::2:ff11:2233") / s.UDP())
    for packet, needle in ((frame, b"\x33\x64\x17"), (names, b"\x11\x22\x33")):
        (got,) = anonymised([packet], preset="share")
        assert needle in packet
        assert needle not in got
    known = bytes(s.Ether(src=MAC, dst="01:00:5e:00:00:05") / s.IP(src=A4, dst="224.0.0.5") / s.UDP())
    assert anonymised([known], preset="share")[0][:6] == known[:6]


SENT = [
    ETHER / FOUR / s.TCP() / b"x",
    ETHER / s.Dot1Q() / FOUR / s.TCP() / b"x",
    ETHER / FOUR / s.TCP(options=[("MSS", 1400)]),
    ETHER / SIX / s.TCP() / b"xy",
]


@pytest.mark.parametrize("sent", SENT)
def test_a_checksum_that_was_never_computed_tells_nothing(sent):
    """One of zero is left to the network card. It stays zero: adjusted, it would be the difference of the addresses'
    sums. Where zero happens to be right, it is adjusted like any other.
    """
    packet = s.Ether(bytes(sent))
    packet[s.TCP].chksum = 0
    if s.IP in packet:
        packet[s.IP].chksum = 0
    got = s.Ether(anonymised([bytes(packet)])[0])
    assert got[s.TCP].chksum == 0
    assert s.IP not in got or got[s.IP].chksum == 0
    layer = s.IP if s.IP in packet else s.IPv6
    assert got[layer].src != packet[layer].src

    fresh = s.Ether(bytes(sent))
    fresh[s.TCP].seq = (fresh[s.TCP].seq + fresh[s.TCP].chksum) & 0xFFFFFFFF  # then zero is the right one
    del fresh[s.TCP].chksum
    fresh = s.Ether(bytes(fresh))
    assert fresh[s.TCP].chksum in (0, 0xFFFF)
    fresh[s.TCP].chksum = 0
    got = s.Ether(anonymised([bytes(fresh)])[0])
    again = s.Ether(bytes(got))
    del again[s.TCP].chksum
    assert got[s.TCP].chksum == s.Ether(bytes(again))[s.TCP].chksum != 0


def fcs(frame: bytes) -> bytes:
    return frame + struct.pack("<I", zlib.crc32(frame))


def crc16(data: bytes) -> bytes:
    """RFC 1662, bit by bit."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x8408 if value & 1 else 0)
    return struct.pack("<H", value ^ 0xFFFF)


WIFI = b"\x08\1\0\0" + bytes.fromhex("001b213c9df8001b2177abcd001b213c9df9") + b"\0\0\xaa\xaa\3\0\0\0\x08\0" + PLAIN
FRAMES = {
    "ethernet": (1, b"", bytes(ETHER / FOUR / s.TCP() / b"data")),
    "vlan": (1, b"", bytes(ETHER / s.Dot1Q(vlan=5) / SIX / s.UDP() / b"data")),
    "arp": (1, b"", bytes(ETHER / s.ARP(psrc=A4, pdst=B4, hwsrc=MAC)) + bytes(18)),
    "radiotap": (127, b"\0\0" + struct.pack("<HI", 9, 2) + b"\x10", WIFI),
    "erf": (197, bytes(8) + b"\2\4" + be16(18 + 70, 0, 70, 0), bytes(ETHER / FOUR / s.UDP() / bytes(24))),
}


@pytest.mark.parametrize("name", FRAMES)
def test_check_sequences_of_frames_are_made_anew(name):
    """By them whoever knows the rest could compute 32 bits of the addresses."""
    link, head, frame = FRAMES[name]
    for options in ({}, {"mac": "hash"}):
        (got,) = anonymised([head + fcs(frame)], link, **options)
        assert len(got) == len(head) + len(frame) + 4
        assert got[len(head) :] == fcs(got[len(head) : -4])
        assert got[-4:] != fcs(frame)[-4:]
    wrong = frame + b"\1\2\3\4"
    (got,) = anonymised([head + wrong], link)
    assert got[-4:] == (b"\0\0\0\0" if name == "radiotap" else b"\1\2\3\4")  # there it is known to be one


def test_check_sequences_of_ppp():
    line = b"\xff\3\0\x21" + PLAIN
    assert crc16(b"123456789") == b"\x6e\x90"  # the catalogue's value of this check
    (got,) = anonymised([line + crc16(line)], 9)
    assert got == got[:-2] + crc16(got[:-2]) != line + crc16(line)
    long = line + struct.pack("<I", binascii.crc32(line))
    (got,) = anonymised([long], 50)
    assert got[-4:] == struct.pack("<I", binascii.crc32(got[:-4]))


def test_services_behind_it_see_what_it_left():
    """What `count` reports is in the account, which goes with the capture."""
    packets = [bytes(ETHER / FOUR / s.TCP() / b"x"), bytes(ETHER / SIX / s.UDP() / b"x"), bytes(s.Ether(type=0x88CC))]
    service, counter = Anonymise(preset="share", key=KEY), Count()
    service.start()
    from streamcore.parse.parser import Parser

    view = run(make_segment(packets, parser=Parser(seed=1)), service, counter)
    for place, report in view.result().reports:
        (service, counter)[place].merge(report)
    told = counter.summary()
    shown = {address for flow in told["flows"]["top"] for address in flow["addresses"]}
    left = [s.Ether(each) for each in packets_of(view)[:2]]
    assert told["packets"] == 2
    assert shown == {left[0][s.IP].src, left[0][s.IP].dst, left[1][s.IPv6].src, left[1][s.IPv6].dst}
    assert not shown & {A4, B4, A6, B6}


def broken(rng: random.Random, packet: bytes) -> bytes:
    """The packet with bytes changed, checksums left out, something behind it, or its end cut off."""
    data = bytearray(packet)
    for _ in range(rng.randrange(3)):
        data[rng.randrange(12, len(data))] = rng.choice((0, 255, rng.randrange(256)))
    what = rng.randrange(6)
    if what == 0:
        data[24:26] = data[50:52] = b"\0\0"
    elif what == 1:
        data += rng.randbytes(rng.randrange(9))
    elif what == 2:
        return fcs(bytes(data))
    elif what == 3:
        return bytes(data[: rng.randrange(len(data) + 1)])
    return bytes(data)


def test_the_short_way_of_ordinary_packets_is_that_of_the_walk():
    """With names=replace no packet takes it."""
    rng = random.Random(16)
    uppers = (s.TCP(sport=1000, dport=2000), s.UDP(sport=1000, dport=2000), s.TCP(options=[("Timestamp", (1, 2))]))
    plain = [
        bytes(link / ip / upper / body)
        for link in (ETHER, ETHER / s.Dot1Q(vlan=5))
        for ip in (FOUR, SIX, s.IP(src="0.0.0.0", dst="255.255.255.255"))
        for upper in uppers
        for body in (b"", b"some payload")
    ]
    packets = [broken(rng, rng.choice(plain)) for _ in range(4000)]
    for options in ({}, {"mac": "hash", "special": "keep"}):
        assert anonymised(packets, **options) == anonymised(packets, names="replace", **options)


def test_nothing_behind_a_packet_is_read_wherever_it_is_cut():
    """A page without rights stands behind each: an over-read ends the process."""
    from tests.streamcore.fuzz.guarded import Guarded
    from tests.streamcore.fuzz.targets import AT_ONCE, INPUT_BYTES_MAX, run_service

    memory = Guarded(AT_ONCE, INPUT_BYTES_MAX)
    service = Anonymise(key=KEY)
    service.start()
    short = icmp6(b"\1\0\0\0")  # an error that quotes nothing
    for link, packet in (*HIDDEN.values(), (1, short)):
        sizes = range(max(0, len(packet) - AT_ONCE + 1), len(packet) + 1)
        run_service(memory, service, [packet[:size] for size in sizes], link)
