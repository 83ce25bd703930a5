"""Routing protocols: their addresses are replaced, the same everywhere, and every checksum is as right as before."""

from __future__ import annotations

import ipaddress
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from packets_by_hand import make_segment, packets_of, run

from streamcore.service.anonymise import Anonymise

pytest.importorskip("scapy", reason="scapy makes the packets: pip install -e .[dev]")
from scapy import all as scapy
from scapy.contrib.ospf import OSPF_Hdr, OSPF_LSUpd, OSPFv3_LSUpd, ospf_lsa_checksum

from tests.streamcore.headers.routing_packets import A4, ADDRESSES, B4, C4, D4, routing_packets

KEY = bytes(range(7, 39)).hex()
PACKETS = routing_packets()


def anonymised(packets: list[bytes], **options: str) -> list[bytes]:
    service = Anonymise(key=KEY, **options)
    service.start()
    view = run(make_segment(packets), service)
    keep = view.result().keep
    return [each for i, each in enumerate(packets_of(view)) if keep is None or keep[i]]


@pytest.mark.parametrize("name", PACKETS)
@pytest.mark.parametrize("options", [{}, {"preset": "share"}, {"unknown": "pass"}, {"payload": "truncate"}])
def test_no_address_comes_out(name, options):
    packet = PACKETS[name]
    assert any(each in packet for each in ADDRESSES)
    (got,) = anonymised([packet], **options)
    assert not [each for each in ADDRESSES if each in got]
    if options.get("payload") != "truncate":
        assert len(got) == len(packet)


def total(data: bytes) -> int:
    value = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) // 2 * 2])) + (
        data[-1] << 8 if len(data) % 2 else 0
    )
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def upper_sum(packet: bytes) -> int:
    """What the checksum of a routing protocol's message adds up to, by its own RFC: 0xFFFF where it is right."""
    six = packet[12:14] == b"\x86\xdd"
    number = packet[20] if six else packet[23]
    message = packet[54:] if six else packet[34:]
    ends = packet[22:54] if six else packet[26:34]
    pseudo = six
    if number == 89:
        message = message[: struct.unpack_from(">H", message, 2)[0]]
        if not six:
            message = message[:16] + message[24:]
    elif number == 112:
        pseudo = message[0] >> 4 == 3
    elif message[0] == 0x21 and total((ends + struct.pack(">II", 8, 103) if six else b"") + message[:8]) == 0xFFFF:
        message = message[:8]
    return total((ends + struct.pack(">II", len(message), number) if pseudo else b"") + message)


@pytest.mark.parametrize("name", PACKETS)
def test_a_right_checksum_stays_right_and_a_wrong_one_wrong(name):
    packet = PACKETS[name]
    assert upper_sum(packet) == 0xFFFF
    (got,) = anonymised([packet])
    assert upper_sum(got) == 0xFFFF
    at = (54 if packet[12:14] == b"\x86\xdd" else 34) + {89: 12, 112: 6, 103: 2}[
        packet[20] if packet[12:14] == b"\x86\xdd" else packet[23]
    ]
    wrong = packet[:at] + bytes([packet[at] ^ 0x5A]) + packet[at + 1 :]
    (got,) = anonymised([wrong])
    assert upper_sum(got) != 0xFFFF


def test_vrrp_3_over_ipv4_of_makers_that_leave_the_pseudo_header_out():
    packet = bytearray(PACKETS["vrrp 3"])
    packet[40:42] = b"\0\0"
    packet[40:42] = struct.pack(">H", total(bytes(packet[34:])) ^ 0xFFFF)
    (got,) = anonymised([bytes(packet)])
    assert total(got[34:]) == 0xFFFF


@pytest.mark.parametrize(("name", "kind"), [("ospf update", OSPF_LSUpd), ("ospf 3 update", OSPFv3_LSUpd)])
def test_checksums_of_link_states(name, kind):
    """scapy's own sum over each link state; one that was wrong stays as it is."""
    (got,) = anonymised([PACKETS[name]])
    before, after = (scapy.Ether(each)[kind].lsalist for each in (PACKETS[name], got))
    assert len(before) == len(after) == 7
    for old, new in zip(before, after, strict=True):
        assert new.type == old.type
        assert new.seq == old.seq
        assert bytes(new)[16:18] == ospf_lsa_checksum(bytes(new))
        assert bytes(new)[16:18] != bytes(old)[16:18]
    at = PACKETS[name].index(bytes(before[0])) + 16
    wrong = PACKETS[name][:at] + b"\x12\x34" + PACKETS[name][at + 2 :]
    (got,) = anonymised([wrong])
    assert got[at : at + 2] == b"\x12\x34"


def test_one_address_is_replaced_by_the_same_everywhere():
    service = Anonymise(key=KEY)
    service.start()
    plain = [bytes(scapy.Ether() / scapy.IP(src=one, dst=other) / scapy.UDP()) for one, other in ((A4, B4), (C4, D4))]
    view = run(make_segment([*plain, PACKETS["ospf hello"]]), service)
    first, second, hello = (scapy.Ether(each) for each in packets_of(view))
    assert (hello[OSPF_Hdr].src, hello[OSPF_Hdr].area) == (second[scapy.IP].dst, second[scapy.IP].src)
    assert hello[OSPF_Hdr].payload.neighbors == [first[scapy.IP].src, first[scapy.IP].dst]
    assert hello[OSPF_Hdr].payload.mask == "255.255.255.0"


def test_a_digest_and_what_stands_behind_a_message_are_zeroed():
    digest = ipaddress.ip_address(C4).packed * 4
    packet = bytearray(PACKETS["ospf hello"] + digest)
    packet[48:50] = b"\0\2"  # cryptographic; then no checksum is made
    packet[46:48] = b"\0\0"
    packet[16:18] = struct.pack(">H", len(packet) - 14)
    (got,) = anonymised([bytes(packet)])
    assert got[-16:] == bytes(16)
    assert got[46:48] == b"\0\0"


@pytest.mark.parametrize("name", ["ospf update", "ospf 3 update", "pim join over ipv6", "vrrp 3 over ipv6"])
def test_messages_that_the_capture_cuts(name):
    """Every length from the IP header on: nothing of an address that is replaced in whole comes out, and nothing else
    changes.
    """
    packet = PACKETS[name]
    (whole,) = anonymised([packet])
    cut = [packet[:size] for size in range(60, len(packet))]
    for before, after in zip(cut, anonymised(cut, unknown="pass"), strict=True):
        assert len(before) == len(after)
        assert not [each for each in ADDRESSES if each in after]
    assert whole


@pytest.mark.parametrize("number", [89, 103, 112])
def test_messages_of_no_known_type_are_not_understood(number):
    body = bytes([{89: 2, 103: 0x2F, 112: 0x22}[number], 77]) + b"\0\x20" + ADDRESSES[2] * 8
    packet = bytes(scapy.Ether() / scapy.IP(src=A4, dst=B4, proto=number) / scapy.Raw(body))
    assert anonymised([packet]) == []
    (cut,) = anonymised([packet], unknown="truncate")
    assert not [each for each in ADDRESSES if each in cut]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is the oracle: scripts/system-packages test")
def test_tshark_finds_what_it_found_before(tmp_path: Path):
    """Its words on every checksum, and no malformed packet more."""

    def told(packets: list[bytes]) -> list[str]:
        path = tmp_path / "packets.pcap"
        scapy.wrpcap(str(path), [scapy.Ether(packet) for packet in packets])
        command = ["tshark", "-n", "-r", str(path), "-V", "-o", "ip.check_checksum:TRUE"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        lines = [line.strip() for line in done.stdout.splitlines() if re.search("hecksum|alformed", line)]
        return [re.sub("0x[0-9a-f]+", "", line) for line in lines]

    before = [packet for name, packet in PACKETS.items() if "summed up whole" not in name]  # tshark knows no such maker
    words = told(before)
    assert told(anonymised(before)) == words
    assert not [line for line in words if re.search("hecksum.*incorrect|Bad|alformed", line)]
    assert sum("orrect" in line or "Good" in line for line in words) >= len(before)
