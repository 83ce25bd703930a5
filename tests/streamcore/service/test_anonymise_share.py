"""What a capture may hold that goes to a stranger, in every tunnel and link type: none of it comes out of the preset
`share`; and checksums of every kind of packet within every kind of tunnel, as tshark sees them.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from packets_by_hand import make_segment, packets_of, run

from streamcore.service.anonymise import Anonymise
from tests.streamcore.conftest import run_command
from tests.streamcore.fuzz.files import block, option

pytest.importorskip("scapy", reason="scapy makes the packets: pip install -e .[dev]")
from scapy import all as scapy
from scapy.contrib.geneve import GENEVE
from scapy.contrib.mpls import MPLS
from scapy.utils import checksum

from tests.streamcore.headers.made_packets import KINDS, Fields
from tests.streamcore.headers.routing_packets import (
    A4,
    A6,
    ADDRESSES,
    B4,
    B6,
    C4,
    C6,
    D4,
    D6,
    ETHER,
    packed,
    routing_packets,
)

KEY = bytes(range(7, 39)).hex()
INVITE = b"""INVITE sip:bob@pbx.example.net SIP/2.0\r
Via: SIP/2.0/UDP 198.51.100.23:5060;branch=z9hG4bK776asdhds\r
From: "Alice Smith" <sip:alice@198.51.100.23>;tag=1928301774\r
Contact: <sip:alice@203.0.113.77>\r
Content-Length: 99\r
\r
v=0\r
o=alice 53655765 2353687637 IN IP4 203.0.113.77\r
c=IN IP4 203.0.113.77\r
"""
GET = b"GET /alice HTTP/1.1\r\nHost: intranet.example.net\r\nCookie: alice=1\r\nX-Forwarded-For: 198.51.100.23\r\n\r\n"
NAME = "www.intranet.example.net"
QUERY = bytes(scapy.DNS(rd=1, qd=scapy.DNSQR(qname=NAME)))
RECORDS = [scapy.DNSRR(rrname=NAME, rdata=C4), scapy.DNSRR(rrname="alice", type="AAAA", rdata=C6)]
ANSWER = bytes(scapy.DNS(qr=1, qd=[scapy.DNSQR(qname=NAME)], an=RECORDS))
BOOTP = scapy.BOOTP(chaddr=bytes.fromhex("001b213c9df8"), ciaddr=A4, yiaddr=B4, sname=b"alice", file=b"intranet")
OPTIONS = [("message-type", "ack"), ("hostname", b"alice"), ("domain", b"intranet"), ("router", C4), "end"]
LEASE = bytes(BOOTP / scapy.DHCP(options=OPTIONS))
LEASE6 = bytes(
    scapy.DHCP6_Reply()
    / scapy.DHCP6OptClientFQDN(fqdn="alice.intranet")
    / scapy.DHCP6OptIA_NA(ianaopts=[scapy.DHCP6OptIAAddress(addr=C6)])
    / scapy.DHCP6OptDNSDomains(dnsdomains=["intranet.example.net"])
)
MESSAGES = {
    "sip": (INVITE, 5060, False),
    "http": (GET, 80, True),
    "dns query": (QUERY, 53, False),
    "dns answer": (ANSWER, 53, False),
    "dhcp": (LEASE, 67, False),
    "dhcp 6": (LEASE6, 547, False),
}
WORDS = [b"alice", b"Alice", b"bob", b"pbx", b"intranet", b"198.51.100.23", b"203.0.113.77"]
OURS = ["10.1.2.3", "10.4.5.6", "192.0.2.1", "192.0.2.2", *(f"2001:db8::{last}" for last in (1, 2, 7, 8, 9))]
MACS = [bytes.fromhex(each) for each in ("020000000001", "020000000002", "001b213c9df8", "001b2177abcd")]
NEEDLES = [*WORDS, *ADDRESSES, *(packed(each) for each in OURS), *MACS]


def anonymised(packets: list[bytes], link: int = 1, **options: str) -> list[bytes]:
    service = Anonymise(key=KEY, **options)
    service.start()
    view = run(make_segment(packets, link_type=link), service)
    keep = view.result().keep
    return [each for i, each in enumerate(packets_of(view)) if keep is None or keep[i]]


@pytest.mark.parametrize("name", KINDS)
def test_share_leaves_nothing_of_any_message_in_any_tunnel(name):
    link, make = KINDS[name]
    packets = []
    for payload, port, tcp in MESSAGES.values():
        for six, flag in ((False, False), (True, True)):
            packets.append(make(Fields(payload=payload, ports=(4000, port), tcp=tcp, six=six, flag=flag)))
    needles = [each for each in NEEDLES if each not in MACS or name != "ipnet"]  # whose numbers may look like one
    assert any(needle in packet for needle in needles for packet in packets)
    got = anonymised(packets, link, preset="share")
    assert not [needle for needle in needles for packet in got if needle in packet]
    assert got


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize(
    "options",
    [{"preset": "share"}, {"names": "replace", "mac": "hash"}, {"payload": "truncate", "mac": "zero"}],
)
def test_messages_without_a_tunnel(name, options):
    """With names=replace their structure stays, and still no name and no address is left."""
    payload, port, tcp = MESSAGES[name]
    upper = scapy.TCP(sport=port, dport=4000) if tcp else scapy.UDP(sport=port, dport=port)
    packets = [bytes(ETHER / ip / upper / payload) for ip in (scapy.IP(src=A4, dst=B4), scapy.IPv6(src=A6, dst=B6))]
    got = anonymised(packets, **options)
    left = [needle for needle in NEEDLES for packet in got if needle in packet]
    assert left == ([b"alice"] * 2 if name == "http" and options.get("names") else [])  # the path is no name
    assert len(got) == 2


INTERFACE = {
    1: b"comment of alice",
    2: b"eth-alice",
    3: b"intranet uplink",
    4: packed(A4) + b"\xff" * 4,
    5: packed(A6) + b"\x40",
    6: MACS[2],
    7: MACS[2] + b"\0\0",
    11: b"\0host 198.51.100.23",
    12: b"alice-os",
    15: b"intranet-card",
    9: b"\6alice",  # what reading takes, and more behind it
    13: b"\4" + MACS[2],
    14: b"intranet uplink",
}


def test_share_leaves_nothing_of_a_pcapngs_metadata(tmp_path: Path):
    end = bytes(4)

    def options(told: dict[int, bytes]) -> bytes:
        return b"".join(option("<", code, value) for code, value in told.items()) + end

    packet = bytes(ETHER / scapy.IP(src=A4, dst=B4) / scapy.UDP() / b"alice")
    body = struct.pack("<IIIII", 0, 0, 1, len(packet), len(packet)) + packet + bytes(-len(packet) % 4)
    of_packet = options({1: b"alice again", 3: b"\2hash of alice", 2989: b"1234alice"})
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + options({1: b"for alice", 3: b"alice-os"})
    blocks = [
        (0x0A0D0D0A, section),
        (1, struct.pack("<HHI", 1, 0, 0) + options(INTERFACE)),
        (6, body + of_packet),
        (4, struct.pack("<HH", 1, 10) + packed(A4) + b"alice\0" + bytes(2) + end),
        (5, struct.pack("<III", 0, 1, 2) + options({1: b"alice's statistics"})),
        (10, struct.pack("<II", 0x544C534B, 8) + b"alicekey"),
        (0xBAD, struct.pack("<I", 32473) + b"alice"),
    ]
    source = tmp_path / "in.pcapng"
    source.write_bytes(b"".join(block("<", kind, content) for kind, content in blocks))
    for ending in ("pcapng", "pcap"):
        target = tmp_path / f"out.{ending}"
        done = run_command("-r", source, "-w", target, "--service", "anonymise:share", "-n", "1")
        assert done.status == 0, done.stderr
        assert done.json["packets"]["written"] == 1
        assert not [needle for needle in [*NEEDLES, b"host "] if needle in target.read_bytes()]


# Checksums in tunnels.


def lite_and_dccp() -> list[scapy.Packet]:
    """UDP-Lite (RFC 3828) over 8 and over all bytes, DCCP (RFC 4340) over part and over all."""
    found = []
    ends = packed(C4) + packed(D4)
    for covered in (0, 8, 12):
        datagram = struct.pack(">HHHH", 1, 2, covered, 0) + b"lite payload"
        size = covered or len(datagram)
        total = checksum(ends + struct.pack(">HH", 136, len(datagram)) + datagram[:size])
        found.append((136, datagram[:6] + struct.pack(">H", total) + datagram[8:]))
    for coverage in (0, 1, 2):
        packet = struct.pack(">HHBBHBBHII", 1, 2, 5, coverage, 0, 0x01, 0, 0, 7, 99) + b"dccp payload"
        size = len(packet) if coverage == 0 else 20 + 4 * (coverage - 1)
        total = checksum(ends + struct.pack(">HH", 33, len(packet)) + packet[:size])
        found.append((33, packet[:6] + struct.pack(">H", total) + packet[8:]))
    return [scapy.IP(src=C4, dst=D4, proto=number) / scapy.Raw(datagram) for number, datagram in found]


def inner_packets() -> list[scapy.Packet]:
    four, six = scapy.IP(src=C4, dst=D4), scapy.IPv6(src=C6, dst=D6)
    quote4, quote6 = scapy.IP(src=D4, dst=C4), scapy.IPv6(src=D6, dst=C6)
    home = scapy.IPv6ExtHdrDestOpt(options=[scapy.HAO(hoa=A6)])
    init = scapy.SCTPChunkInit(params=[scapy.SCTPChunkParamIPv4Addr(addr=A4)])
    made = [
        four / scapy.TCP() / b"x",
        four / scapy.UDP(dport=7) / b"xy",
        six / scapy.TCP() / b"x",
        six / scapy.UDP(dport=7) / b"xyz",
        four / scapy.SCTP() / init,
        four / scapy.ICMP(type=3, code=3) / quote4 / scapy.UDP(dport=7) / b"quoted",
        six / scapy.ICMPv6DestUnreach() / quote6 / scapy.UDP(dport=7) / b"quoted",
        six / scapy.ICMPv6TimeExceeded() / quote6 / scapy.TCP() / b"quoted",
        six / scapy.ICMPv6ND_NS(tgt=D6),
        six / home / scapy.UDP(dport=7) / b"home",
        six / home / scapy.MIP6MH_BU(options=[scapy.MIP6OptAltCoA(acoa=B6)]),
        six / scapy.IPv6ExtHdrRouting(addresses=[A6, B6]) / scapy.UDP(dport=7) / b"routed",
    ]
    made += lite_and_dccp()
    for name, packet in routing_packets().items():
        if "register " not in name:  # which is a tunnel itself
            made.append((scapy.IPv6 if packet[12:14] == b"\x86\xdd" else scapy.IP)(packet[14:]))
    return made


def tunnels(packet: scapy.Packet) -> dict[str, bytes]:
    """The packet in each of them, and alone."""
    four, six = ETHER / scapy.IP(src=A4, dst=B4), ETHER / scapy.IPv6(src=A6, dst=B6)
    frame = bytes(ETHER / packet)
    etherip = ETHER / scapy.IP(src=A4, dst=B4, proto=97) / (b"\x30\0" + frame)
    nsh = struct.pack(">HBBI", 0x0FC2, 2, 2 if packet.version == 6 else 1, 7 << 8 | 255) + bytes(packet)
    erspan = four / scapy.GRE(proto=0x88BE, seqnum_present=1) / (struct.pack(">HHI", 0x1005, 5, 0) + frame)
    made = {
        "alone": ETHER / packet,
        "ip in ip": four / packet,
        "ip in ip 6": six / packet,
        "gre": four / scapy.GRE(chksum_present=1) / packet,
        "gre 6 with a key": six / scapy.GRE(chksum_present=1, key_present=1, key=5) / packet,
        "vxlan": four / scapy.UDP(sport=5, dport=4789) / scapy.VXLAN(vni=7, flags=8) / frame,
        "geneve": six / scapy.UDP(sport=5, dport=6081) / GENEVE(vni=7, proto=0x6558) / frame,
        "mpls in udp": four / scapy.UDP(sport=5, dport=6635) / MPLS(label=17, s=1) / bytes(packet),
        "etherip": etherip,
        "erspan": erspan,
        "nsh": scapy.Ether(src=ETHER.src, dst=ETHER.dst, type=0x894F) / nsh,
    }
    return {name: bytes(each) for name, each in made.items()}


def checksums(folder: Path, packets: list[bytes]) -> list[str]:
    """What tshark says of every checksum of each packet."""
    path = folder / "packets.pcap"
    scapy.wrpcap(str(path), [scapy.Raw(each) for each in packets], linktype=1)
    preferences = ("ip.check_checksum", "tcp.check_checksum", "udp.check_checksum", "sctp.checksum")
    command = ["tshark", "-n", "-r", str(path), "-V"]
    command += [word for each in preferences for word in ("-o", f"{each}:TRUE")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.strip() for line in done.stdout.splitlines() if re.search("hecksum|^Frame ", line)]
    return [re.sub("0x[0-9a-f]+|: [0-9]+ bytes on wire.*", "", line) for line in lines]


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> tuple[list[bytes], list[str]]:
    """Every kind of packet in every kind of tunnel; and what tshark says of them."""
    packets = [each for packet in inner_packets() for each in tunnels(packet).values()]
    return packets, checksums(tmp_path_factory.mktemp("before"), packets)


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is the oracle: scripts/system-packages test")
@pytest.mark.parametrize(
    "options", [{}, {"mac": "hash", "special": "keep"}, {"payload": "zero"}, {"unknown": "pass", "names": "replace"}]
)
def test_tshark_finds_every_checksum_as_right_as_before(before, tmp_path: Path, options):
    packets, words = before
    after = anonymised(packets, **options)
    assert len(after) == len(packets)
    assert not [needle for needle in ADDRESSES for packet in after if needle in packet]
    assert len(words) > 2 * len(packets)
    assert checksums(tmp_path, after) == words
    assert sum("correct" in line and "incorrect" not in line for line in words) > len(packets)


@pytest.mark.parametrize("six", [False, True])
def test_checksums_in_what_an_error_quotes(six):
    """tshark checks none there: summed up here, over the whole packet that is quoted."""
    ip = scapy.IPv6(src=A6, dst=B6) if six else scapy.IP(src=A4, dst=B4)
    quoted = scapy.IPv6(src=C6, dst=D6) if six else scapy.IP(src=C4, dst=D4)
    error = scapy.ICMPv6DestUnreach() if six else scapy.ICMP(type=3, code=1)
    for upper in (scapy.UDP(dport=7), scapy.TCP()):
        packet = bytes(ETHER / ip / error / quoted / upper / b"odd number of bytes")
        (got,) = anonymised([packet], mac="hash")
        at = 14 + (40 if six else 20) + 8
        ends, start = (got[at + 8 : at + 40], at + 40) if six else (got[at + 12 : at + 20], at + 20)
        pseudo = ends + struct.pack(">II", len(got) - start, 17 if isinstance(upper, scapy.UDP) else 6)
        assert checksum(pseudo + got[start:]) == 0
        assert six or checksum(got[at:start]) == 0
        assert not [needle for needle in ADDRESSES if needle in got]
