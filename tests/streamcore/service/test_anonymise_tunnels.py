"""Packets of link types and tunnels that are read: none of their addresses comes out. What is dropped is named."""

from __future__ import annotations

import ipaddress
import shutil
from itertools import product
from pathlib import Path

import pytest
from packets_by_hand import make_segment, packets_of, run
from test_anonymise_needles import verdicts

from streamcore.headers import udp_ports
from streamcore.service.anonymise import Anonymise

pytest.importorskip("scapy", reason="scapy makes the packets: pip install -e .[dev]")
from tests.streamcore.headers.made_packets import (
    KINDS,
    MAC,
    OTHER_MAC,
    Fields,
    frame,
    gre_plain,
    inner,
    on_ether,
    over_ip,
    over_udp,
    ppp,
)

KEY = bytes(range(7, 39)).hex()
ADDRESSES = ["10.1.2.3", "10.4.5.6", "192.0.2.1", "192.0.2.2", "2001::1"]
ADDRESSES += [f"2001:db8::{last}" for last in (1, 2, 7, 8, 9)]
NEEDLES = [ipaddress.ip_address(each).packed for each in ADDRESSES]
MACS = [bytes.fromhex(each.replace(":", "")) for each in (MAC, OTHER_MAC)]
VARIED = [
    Fields(six=six, tcp=tcp, flag=flag, extra=extra, vlan=vlan)
    for six, tcp, flag, extra, vlan in product((False, True), (False, True), (False, True), range(4), (0, 7))
]


def anonymised(packets: list[bytes], link: int, **options: str) -> list[bytes]:
    service = Anonymise(key=KEY, **options)
    service.start()
    view = run(make_segment(packets, link_type=link), service)
    keep = view.result().keep
    return [each for i, each in enumerate(packets_of(view)) if keep is None or keep[i]]


def leaks(packets: list[bytes]) -> list[bytes]:
    return [needle for needle in NEEDLES + MACS for packet in packets if needle in packet]


@pytest.mark.parametrize("name", KINDS)
def test_no_address_comes_out(name: str) -> None:
    link, make = KINDS[name]
    packets = [make(fields) for fields in VARIED]
    assert leaks(packets)
    got = anonymised(packets, link, mac="hash")
    assert not leaks(got)
    assert len(got) == len(packets)


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is the oracle: scripts/system-packages test")
def test_tshark_finds_every_checksum_as_right_as_before(tmp_path: Path) -> None:
    names = [name for name, (link, _) in KINDS.items() if link == 1]
    before = [KINDS[name][1](fields) for name in names for fields in VARIED[::5]]
    after = anonymised(before, 1)
    told = verdicts(tmp_path, before)
    assert len(told) == len(before)
    assert all("1" in one for one in told)
    assert verdicts(tmp_path, after) == told


def test_a_port_that_the_run_adds_is_reached_into() -> None:
    """Without it what stands there is payload: the needles are there to be found."""
    packets = [over_udp(b"\x08\0\0\0\0\0\7\0" + bytes(frame(fields)), 9999) for fields in VARIED]
    for ports, clean in ((udp_ports(["udp.port=9999,vxlan"]), True), (udp_ports([]), False)):
        service = Anonymise(key=KEY, mac="hash")
        service.start()
        view = run(make_segment(packets), service, ports=ports)
        assert view.result().keep is None
        assert (not leaks(packets_of(view))) == clean


def test_addresses_in_the_headers_of_tunnels() -> None:
    """Where they stand by each protocol: a radio's, a sensor's, a client behind Teredo, options, padding."""
    needle, packet = NEEDLES[0], bytes(frame(Fields()))
    origin = b"\0\0" + bytes(byte ^ 0xFF for byte in b"\x12\x34" + needle)
    teredo = bytes(inner(Fields(six=True)))
    teredo = teredo[:8] + bytes.fromhex("20010000") + teredo[12:]
    hidden = {
        "geneve": over_udp(b"\x02\0\x65\x58\0\0\5\0\x01\x02\x03\x01" + needle + packet, 6081),
        "gtp": over_udp(
            bytes.fromhex("34ff") + (len(bytes(inner(Fields()))) + 12).to_bytes(2, "big") + b"\0\0\0\5\0\0\0\x20"
            + b"\2\0" + needle + b"\0\0" + bytes(inner(Fields())), 2152),
        "capwap": over_udp(b"\0\x20\0\x10\0\0\0\0\6" + MACS[0] + b"\0" + packet, 5247),
        "tzsp": over_udp(b"\1\0\0\1\x3c\6" + MACS[0] + b"\1" + packet, 37_008),
        "teredo": over_udp(origin + teredo, 3544),
        "gue": over_udp(b"\1\4\0\0" + needle + bytes(inner(Fields())), 6080),
        "l2tp": over_udp(b"\2\2\0\1\0\2\0\4" + needle + b"\0\x21" + bytes(inner(Fields())), 1701),
        "pptp": on_ether(over_ip(b"\x30\x81\x88\x0b\0\x40\0\7" + bytes(8) + ppp(Fields()), 47)),
        "wccp": gre_plain(b"\0\0\0\1" + bytes(inner(Fields())), 0x883E, False),
    }  # fmt: skip
    for name, one in hidden.items():
        got = anonymised([one], 1, mac="hash")
        assert not leaks(got), name
        assert not any(needle in each or origin[-4:] in each for each in got), name
        assert got or name == "l2tp", name


def test_of_several_packets_in_one_the_later_are_not_passed() -> None:
    def subframe(packet: bytes) -> bytes:
        body = b"\xaa\xaa\x03\0\0\0\x08\0" + packet
        return MACS[0] + MACS[1] + len(body).to_bytes(2, "big") + body + bytes(-(14 + len(body)) % 4)

    packet = bytes(inner(Fields()))
    fragment = packet[:6] + b"\x10\x00" + packet[8:]
    head = bytes.fromhex("88010000") + MACS[0] + MACS[1] + MACS[0] + bytes.fromhex("00008000")
    for first in (packet, fragment):
        assert anonymised([head + subframe(first) + subframe(packet)], 105) == []
    assert len(anonymised([head + subframe(packet)], 105)) == 1


def test_the_fourth_address_of_a_frame_whose_control_is_swapped() -> None:
    body = b"\xaa\xaa\x03\0\0\0\x08\0" + bytes(inner(Fields()))
    wifi = bytes.fromhex("03080000") + MACS[0] + MACS[1] + MACS[0] + b"\0\0" + MACS[1] + body
    got = anonymised([over_udp(b"\0\x10\x03\0\0\0\0\0" + wifi, 5247)], 1, mac="hash")
    assert not leaks(got)
    assert len(got) == 1


NAMED = b"uplink-of-alice-"  # as long as PFLOG's fields
LINK_HEADS = {
    8: (b"\0" + NEEDLES[0] + bytes(11), False),
    117: (bytes([61, 2, 0, 0]) + NAMED * 2 + bytes(25) + bytes(3), False),
    138: (MACS[0] + b"\1\2" + MACS[1] + b"\3\4\x08\0", False),
    149: (b"\x6c\0\0\0\1\0\0\0\x01\0\0\0" + NAMED + bytes(108 - 28), True),
    166: (b"\0\3\0\x21", False),
    181: (b"MGC\x81\0\x04" + NEEDLES[1] + b"\x8f\0\x08\0", False),
    197: (bytes(8) + b"\x82\0\0\0\0\0\0\0" + NEEDLES[0] + bytes(4) + b"\0\0", True),
    204: (b"\1\xff\3\0\x21", False),
    205: (b"\0\x0f\0\x08\0", False),
    206: (b"\0\x18\x41\x03\xcc", False),
    242: (bytes(8) + ipaddress.ip_address("2001:db8::7").packed * 2 + b"\x08\0\0\0", False),
    281: (MACS[0] + MACS[1] + bytes(4) + b"\x08\0", False),
    285: (MACS[0] + MACS[1] + bytes(8) + b"\x08\0", False),
}


@pytest.mark.parametrize("link", LINK_HEADS)
def test_what_stands_in_front_of_a_packet_is_replaced_too(link: int) -> None:
    head, framed = LINK_HEADS[link]
    packet = head + bytes(frame(Fields()) if framed else inner(Fields()))
    for options in ({"mac": "hash"}, {"preset": "share"}):
        (got,) = anonymised([packet], link, **options)
        assert len(got) == len(packet)
        assert not leaks([got])
        assert b"alice" not in got
