"""Options and fields of a known kind that are longer than that kind is, and fields that few packets have: no needle
that stands in them comes out.
"""

from __future__ import annotations

import ipaddress
import struct

import pytest
from packets_by_hand import make_segment, packets_of, run

from streamcore.service.anonymise import Anonymise

KEY = bytes(range(7, 39)).hex()
V4, V6 = bytes([203, 0, 113, 201]), ipaddress.ip_address("2001:db8:aaaa:bbbb:cccc:dddd:1234:5678").packed
MAC, NAME = bytes.fromhex("001b21a1b2c3"), b"zqalicezq"
ETHER = bytes.fromhex("020000000001 020000000002".replace(" ", ""))
ENDS4, ENDS6 = bytes([198, 51, 100, 1, 198, 51, 100, 2]), bytes(15) + b"\1" + bytes(15) + b"\2"
UDP = b"\0\4\0\5\0\10\0\0"


def four(protocol: int, body: bytes, options: bytes = b"") -> bytes:
    size = 20 + len(options) + len(body)
    head = struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0, size, 1, 0, 64, protocol, 0)
    return ETHER + b"\x08\0" + head + ENDS4 + options + body


def six(protocol: int, body: bytes) -> bytes:
    return ETHER + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(body), protocol, 64) + ENDS6 + body


def advertisement(kind: int, value: bytes) -> bytes:
    value += bytes(-(len(value) + 2) % 8)
    return six(58, b"\x86" + bytes(15) + bytes([kind, (len(value) + 2) // 8]) + value)


def tcp(options: bytes) -> bytes:
    head = struct.pack(">HHIIBBHHH", 4, 5, 1, 2, (20 + len(options)) * 4, 16, 99, 0, 0)
    return four(6, head + options)


def wifi(capture: bytes) -> bytes:
    data = b"\x08\1\0\0" + bytes(18) + b"\0\0\xaa\xaa\3\0\0\0\x08\0"
    return capture + data + four(17, UDP)[14:]


def datagram(source: int, target: int, body: bytes) -> bytes:
    return four(17, struct.pack(">HHHH", source, target, 8 + len(body), 0) + body)


def external(kind: int, tail: bytes) -> bytes:
    """An update of OSPFv3 with one link state whose prefix is 32 bits long."""
    state = struct.pack(">HHI", 1, kind, 0) + V4 + struct.pack(">IHH", 1, 0, 32 + len(tail)) + bytes(4) + b"\x20\0\0\0"
    body = struct.pack(">I", 1) + state + b"\x20\1\x0d\xb8" + tail
    return six(89, b"\3\4" + struct.pack(">H", 16 + len(body)) + V4 + bytes(8) + body)


def state2(kind: int) -> bytes:
    """An update of OSPFv2 with one link state, behind which stand metrics of types of service (RFC 1583)."""
    body = {
        1: struct.pack(">HH", 0, 1) + V4 * 2 + b"\1\4\0\1",
        3: bytes(8),
        4: bytes(8),
        5: bytes(8) + V4 + bytes(4),
        7: bytes(8) + V4 + bytes(4),
    }[kind] + V6
    state = struct.pack(">HBB", 1, 2, kind) + V4 * 2 + struct.pack(">IHH", 1, 0, 20 + len(body)) + body
    head = b"\2\4" + struct.pack(">H", 28 + len(state)) + V4 + bytes(16)
    return four(89, head + struct.pack(">I", 1) + state)


def kinds() -> dict[str, tuple[int, bytes]]:
    """Link type and packet."""
    made = {f"discovery {kind}": (1, advertisement(kind, bytes(6) + V6 * 3)) for kind in range(1, 42)}
    for bits in (0, 200):
        made[f"route of {bits} bits"] = 1, advertisement(24, bytes([bits]) + bytes(5) + V6)
    made["mobile prefix solicitation"] = 1, six(58, b"\x92" + bytes(7) + V6 + NAME)
    for kind in range(2, 256):
        value = V6[4:16]
        if kind != 68:  # times
            made[f"option {kind} of ipv4"] = 1, four(17, UDP, bytes([kind, 16, 4, 0]) + value)
        if kind not in (5, 15, 19, 29, 30, 34):  # numbers and digests of any length
            made[f"option {kind} of tcp"] = 1, tcp(bytes([kind, 14]) + value + b"\1\1")
        body = bytes([17, 2, kind, 20]) + bytes(4) + V6
        made[f"option {kind} of ipv6"] = 1, six(0, body + UDP)
        made[f"value {kind} of segment routing"] = (
            1,
            six(43, bytes([17, 5, 4, 0, 0, 0, 0, 0]) + V6 + bytes([kind, 22]) + V6 + bytes(6) + UDP),
        )
    for kind in range(16):
        head = struct.pack(">HHBBHBBHI", 4, 5, 11, 0, 0, kind << 1 | 1, 0, 0, 1)
        start = 16 + (8 if kind == 1 or 3 <= kind <= 9 else 0) + (4 if kind in (0, 1, 7) else 0)
        body = head + bytes(start - 16) + bytes([46, 16]) + V6[2:]
        made[f"dccp {kind}"] = 1, four(33, body + bytes(44 - len(body)))
    made["digest over an address"] = 1, tcp(bytes([30, 16, 0x30, 1]) + V4 + NAME[:8])
    made["digest, address and port"] = 1, tcp(bytes([30, 30, 0x30, 1]) + V6 + b"\0\7" + NAME[:8] + b"\1\1")
    made["ospf without authentication"] = 1, four(89, b"\2\1\0\x2c" + V4 + bytes(8) + V6[8:] + bytes(20))
    for kind in (0x2003, 0x4005, 0x2007):
        made[f"behind link state {kind:#x}"] = 1, external(kind, bytes(4) + V6 * 2)
    for kind in (1, 3, 4, 5, 7):
        made[f"types of service behind link state {kind} of ospf"] = 1, state2(kind)
    avs = struct.pack(">II", 0x80211002, 80) + bytes(64) + MAC + bytes(2)
    made["receiver of avs"], made["receiver of avs, prism"] = (163, wifi(avs)), (119, wifi(avs))
    for kind, numbers in ((2, 20), (3, 12), (4, 48), (5, 0), (6, 0), (7, 0), (8, 4), (9, 0), (30002, 0)):
        field = struct.pack("<HH", kind, numbers + len(NAME)) + bytes(numbers) + NAME
        made[f"field {kind} of ppi"] = 192, wifi(struct.pack("<BBHI", 0, 0, 8 + len(field), 105) + field)
    vendor = struct.pack("<BBHI", 0, 0, 8 + 6 + len(NAME), 1 << 30) + b"\1\2\3\0" + struct.pack("<H", len(NAME)) + NAME
    made["vendor of radiotap"] = 127, wifi(vendor)
    header = four(47, b"")[14:-8] + V4 * 2
    nflog = b"\2\0\0\0" + struct.pack("<HH", 4 + len(header), 16) + header
    packet = four(17, UDP)[14:]
    made["header of a tunnel's device"] = 239, nflog + struct.pack("<HH", 4 + len(packet), 9) + packet
    return made


KINDS = kinds()


def anonymised(link: int, packet: bytes, **options: str) -> bytes:
    service = Anonymise(key=KEY, **options)
    service.start()
    view = run(make_segment([packet], link_type=link), service)
    keep = view.result().keep
    return b"".join(each for i, each in enumerate(packets_of(view)) if keep is None or keep[i])


@pytest.mark.parametrize("options", [{"preset": "share"}, {"mac": "hash", "names": "replace"}])
def test_no_field_is_longer_than_its_kind(options):
    left = []
    for name, (link, packet) in KINDS.items():
        needles = [each for each in (V4, V6, V6[4:], V6[8:], MAC, NAME[:8]) if each in packet]
        assert needles, name
        out = anonymised(link, packet, **options)
        left += [name for needle in needles if needle in out]
    assert not left


def test_what_is_understood_stays():
    """Options as long as their kind says, and DCCP's known ones, are not touched."""
    dccp = struct.pack(">HHBBHBBHI", 4, 5, 7, 0, 0, 1, 0, 0, 1) + b"\0\0\0\7" + b"\x20\4\1\2\x29\4\1\2"
    for packet, start, checksum in (
        (four(17, UDP, b"\x94\4\0\0"), 34, 10),
        (tcp(b"\2\4\5\xb4\4\2\x08\x0a\1\2\3\4\5\6\7\x08\1\3\3\7"), 34, 16),
        (six(0, b"\x11\0\5\2\0\0\1\0" + UDP), 54, 14),
        (four(33, dccp), 34, 6),
        (advertisement(5, b"\0\0\0\0\5\xdc"), 54, 2),
    ):
        out, at = anonymised(1, packet, payload="zero"), start + checksum
        assert out[start:at] == packet[start:at]
        assert out[at + 2 :] == packet[at + 2 :]


def lease(sname: bytes, file: bytes, options: bytes) -> bytes:
    head = b"\2\1\6\0" + bytes(24) + MAC + bytes(10) + sname.ljust(64, b"\0") + file.ljust(128, b"\0")
    return datagram(67, 68, head + b"\x63\x82\x53\x63" + options)


@pytest.mark.parametrize("overload", [1, 2, 3])
def test_options_of_dhcp_in_the_fields_of_names(overload):
    option = b"\3\4" + V4 + b"\xff"
    sname, file = option if overload & 2 else b"server", option if overload & 1 else b"boot"
    out = anonymised(1, lease(sname, file, b"\x35\1\5\x34\1" + bytes([overload]) + b"\xff"))
    assert out
    assert V4 not in out
    assert (b"server" in out) == (not overload & 2)
    assert (b"boot" in out) == (not overload & 1)


TEXTS = {
    "sip, the rest of a message": (5060, b"203.0.113.201:5060;tag=zqalicezq\r\nCSeq: 1 BYE\r\n"),
    "sip, words": (5060, b"MESSAGE sip:bob SIP/2.0\r\n\r\nzqalicezq is at 203.0.113.201 now\r\n"),
    "http, another host": (80, b"CONNECT 203.0.113.201 HTTP/1.1\r\n\r\n"),
    "http, a proxy's header": (
        80,
        b"GET / HTTP/1.1\r\nX-Client-IP: 203.0.113.201\r\nTrue-Client-Ip: 203.0.113.201\r\n\r\n",
    ),
    "http, a line that goes on": (80, b"GET / HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4,\r\n 203.0.113.201\r\n\r\n"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_without_a_header_of_its_own(name):
    port, text = TEXTS[name]
    packet = tcp(b"")[:-20] + struct.pack(">HHIIBBHHH", port, 5, 1, 2, 80, 16, 99, 0, 0) + text
    packet = packet[:16] + struct.pack(">H", len(packet) - 14) + packet[18:]
    out = anonymised(1, packet, names="replace")
    assert len(out) == len(packet)
    assert b"203.0.113.201" not in out
    assert NAME not in out


@pytest.mark.parametrize("kind", [2, 5, 6, 12, 15, 33, 39])
def test_a_name_that_is_none_in_an_answer(kind):
    data = bytes(6) + b"\x3f" + NAME + V4 if kind == 33 else b"\0\5\x3f" + NAME if kind == 15 else b"\x3f" + NAME + V4
    body = struct.pack(">HHHHHH", 1, 0x8180, 0, 1, 0, 0) + b"\0" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data
    out = anonymised(1, datagram(53, 4000, body), names="replace")
    assert out
    assert NAME not in out
    assert V4 not in out
