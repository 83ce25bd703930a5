"""Checksums that a sender left to its network card, which hold the sum of the pseudo-header: they stay just that. And
datagrams to and from a tunnel's port which do not pass the tunnel's checks.
"""

from __future__ import annotations

import struct

import pytest
from packets_by_hand import make_segment, packets_of, run

from streamcore.headers import STANDARD_PORTS, udp_ports
from streamcore.service.anonymise import Anonymise

KEY = bytes(range(7, 39)).hex()
ETHER = bytes.fromhex("020000000001020000000002")
TCP, UDP = 6, 17
BODY = b"what is said"


def added(data: bytes) -> int:
    """The sum of 16-bit words in ones' complement (RFC 1071)."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(ip: bytes, protocol: int, size: int) -> int:
    ends = ip[12:20] if ip[0] >> 4 == 4 else ip[8:40]
    return added(ends + struct.pack(">HH", protocol, size))


def header(family: int, protocol: int, size: int, options: bytes) -> bytes:
    if family == 4:
        total = 20 + len(options) + size
        head = struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0, total, 1, 0, 64, protocol, 0)
        return head + bytes([198, 51, 100, 1, 203, 0, 113, 9]) + options
    return struct.pack(">IHBB", 6 << 28, size, protocol, 64) + bytes(15) + b"\1" + b"\x20\1\x0d\xb8" + bytes(11) + b"\7"


def transport(protocol: int, checksum: int, body: bytes) -> bytes:
    if protocol == UDP:
        return struct.pack(">HHHH", 5000, 6000, 8 + len(body), checksum) + body
    return struct.pack(">HHIIBBHHH", 5000, 6000, 1, 2, 5 << 4, 16, 99, checksum, 0) + body


def place(packet: bytes, around: int) -> tuple[bytes, bytes]:
    """Of a made packet: the IP header and the transport's bytes."""
    ip = packet[around:]
    return ip, ip[4 * (ip[0] & 15) if ip[0] >> 4 == 4 else 40 :]


def anonymise(packets: list[bytes], ports: object = STANDARD_PORTS, **options: str) -> list[bytes]:
    service = Anonymise(key=KEY, **options)
    service.start()
    view = run(make_segment(packets), service, ports=ports)
    keep = view.result().keep
    return [each for i, each in enumerate(packets_of(view)) if keep is None or keep[i]]


def checksum_of(transport: bytes, protocol: int) -> int:
    at = 6 if protocol == UDP else 16
    return int.from_bytes(transport[at : at + 2], "big")


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("family", [4, 6])
def test_a_partial_checksum_stays_one(family, protocol):
    """Of ordinary packets, of those that are walked (with options, two tags, in a tunnel), of cut ones, with and
    without the length in it.
    """
    size = len(transport(protocol, 0, BODY))
    kind = b"\x08\0" if family == 4 else b"\x86\xdd"
    outer = header(4, 41 if family == 6 else 4, size + (20 if family == 4 else 40), b"")
    fronts = [
        (ETHER + kind, b""),
        (ETHER + b"\x81\0\0\5" + kind, b""),
        (ETHER + b"\x88\xa8\0\4\x81\0\0\5" + kind, b""),
        (ETHER + b"\x08\0" + outer, b""),
    ]
    fronts += [(ETHER + kind, b"\1" * 4)] if family == 4 else []
    for front, options in fronts:
        for counted in (size, 0):
            ip = header(family, protocol, size, options)
            packet = front + ip + transport(protocol, pseudo(ip, protocol, counted), BODY)
            for given in (packet, packet[:-5]):
                for payload in ("keep", "zero"):
                    (got,) = anonymise([given], payload=payload)
                    new, rest = place(got, len(front))
                    assert new[: 40 if family == 6 else 20] != ip[: 40 if family == 6 else 20]
                    assert checksum_of(rest, protocol) == pseudo(new, protocol, counted), (
                        front,
                        options,
                        counted,
                        payload,
                    )


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_right_checksum_that_is_the_pseudo_headers_sum_by_chance_stays_right(protocol):
    for options in (b"", b"\1" * 4):
        size = len(transport(protocol, 0, BODY))
        ip = header(4, protocol, size, options)
        base = pseudo(ip, protocol, size)
        # Wanted: a body so that the sum of everything, this checksum included, is 0xFFFF.
        rest = added(transport(protocol, base, BODY[:-2] + bytes(2)))
        missing = 0xFFFF - added(struct.pack(">HH", base, rest))
        body = BODY[:-2] + struct.pack(">H", missing)
        packet = ETHER + b"\x08\0" + ip + transport(protocol, base, body)
        assert added(struct.pack(">HH", base, added(place(packet, 14)[1]))) == 0xFFFF
        (got,) = anonymise([packet])
        new, data = place(got, 14)
        assert added(struct.pack(">HH", pseudo(new, protocol, size), added(data))) == 0xFFFF


def datagram(source: int, target: int, body: bytes) -> bytes:
    ip = header(4, UDP, 8 + len(body), b"")
    return ETHER + b"\x08\0" + ip + struct.pack(">HHHH", source, target, 8 + len(body), 0) + body


def test_a_clients_port_that_a_tunnel_has_too():
    """With an ordinary service at the other end, what is no tunnel is payload; between other ports it may be one in a
    form that is not read.
    """
    for source, target, passes in (
        (53, 4789, True), (4789, 443, True), (53, 8472, True), (6000, 37_008, True), (37_008, 6000, True),
        (4000, 4789, False), (50_000, 6081, False), (2152, 2152, False), (0, 4789, False), (5246, 6000, False),
    ):  # fmt: skip
        packet = datagram(source, target, BODY)
        got = anonymise([packet])
        assert bool(got) is passes, (source, target)
        assert not got or got[0][42:] == BODY
        assert [each[42:] for each in anonymise([packet], payload="zero")] == [bytes(len(BODY))]
    for decode_as in ("udp.port=4789,vxlan", "udp.port=53,gtp"):  # the user says that it is a tunnel
        assert anonymise([datagram(53, 4789, BODY)], udp_ports([decode_as])) == []
    vxlan = b"\x08\0\0\0\0\0\7\0" + ETHER + b"\x08\0" + header(4, UDP, 8, b"") + struct.pack(">HHHH", 1, 2, 8, 0)
    (got,) = anonymise([datagram(53, 4789, vxlan)])
    assert got[42:50] == vxlan[:8]
    assert got[42 + 8 + 14 + 12 :][:8] != vxlan[8 + 14 + 12 :][:8]  # it is one: the addresses within are replaced
