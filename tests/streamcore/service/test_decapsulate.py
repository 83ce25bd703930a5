"""`decapsulate`: what comes out is what scapy put in, and on real captures what tshark finds within."""

from __future__ import annotations

import csv
import gzip
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from streamcore.core.config import Config
from streamcore.core.errors import UsageError
from streamcore.headers import TUNNELS
from streamcore.parse.parser import Parser
from streamcore.run.pipeline import Pipeline
from streamcore.service.load import load
from tests.streamcore.service.packets_by_hand import make_segment, packets_of, run

pytest.importorskip("scapy", reason="scapy makes the packets: pip install -e .[dev]")
from tests.streamcore.headers.made_packets import KINDS, Fields, frame, inner, on_ether, over_ip, over_udp

CORPUS = Path(__file__).parents[4] / "shared" / "corpus" / "dev"
FIELDS = Fields(payload=b"what was sent", vlan=7)
FRAMES = ("gre bridged", "erspan 1", "erspan 2", "erspan 3", "vxlan", "geneve", "capwap", "tzsp", "etherip")
PACKETS = ("gre", "gtp", "lisp", "ip in ip", "mpls in udp", "pim register", "l2tp", "gre mpls", "gre in udp", "nsh")


def stripped(packets, link_type=1, options="", **facts):
    service = load(f"decapsulate{options}")
    view = run(make_segment(packets, link_type=link_type, **facts), service)
    for _, report in view.result().reports:
        service.merge(report)
    return packets_of(view), view.wire_length.tolist(), service.summary()


def fates(summary):
    return {name: count for name, count in summary.items() if name not in ("packets", "stripped") and count}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_comes_out_as_it_went_in(name):
    packets, wire, summary = stripped([KINDS[name][1](FIELDS)])
    assert packets == [bytes(frame(FIELDS))]
    assert wire == [len(packets[0])]
    assert list(summary["stripped"].values()) == [1]


@pytest.mark.parametrize("name", PACKETS)
@pytest.mark.parametrize("six", [False, True])
def test_a_packet_gets_the_link_header_around_it(name, six):
    fields = Fields(payload=b"what was sent", six=six)
    packet = KINDS[name][1](fields)
    packets, _, _ = stripped([packet])
    assert packets == [packet[:12] + (b"\x86\xdd" if six else b"\x08\x00") + bytes(inner(fields))]


def test_tags_around_the_tunnel_go():
    packet = KINDS["gre"][1](FIELDS)
    tagged = packet[:12] + b"\x81\0\0\5" + packet[12:]
    assert stripped([tagged])[0] == stripped([packet])[0] == [packet[:14] + bytes(inner(FIELDS))]


def nested():
    """VXLAN in GRE in IP: the packet, what is in the GRE, what is in the VXLAN."""
    vxlan = KINDS["vxlan"][1](FIELDS)
    return on_ether(over_ip(b"\0\0\x65\x58" + vxlan, 47)), vxlan, bytes(frame(FIELDS))


@pytest.mark.parametrize(
    ("options", "place"),
    [("", 2), (":depth=1", 1), (":depth=all,kinds=gre", 1), (":kinds=vxlan", 0), (":kinds=vxlan+gre", 2), (":gre", 1)],
)
def test_how_many_tunnels_and_of_which_kind(options, place):
    packets, _, summary = stripped([nested()[0]], options=options)
    assert packets == [nested()[place]]
    assert summary["stripped"] == ({"gre": 1} if place else {})
    assert fates(summary) == ({} if place else {"in_other_tunnels": 1})


@pytest.mark.parametrize(
    ("options", "match"),
    [(":kinds=vxlam", "no tunnel 'vxlam'"), (":depth=2", "depth must be one of"), (":kind=gre", "no option 'kind'")],
)
def test_bad_options(options, match):
    with pytest.raises(UsageError, match=match):
        load(f"decapsulate{options}")


SIX = bytes(inner(Fields(six=True)))
FOUR = bytes(inner(Fields()))
COOKED = b"\0\0\0\1\0\6" + bytes(8)
LINKS = {  # link type: (header around, header of IPv6, header of IPv4; None: there is none)
    101: (b"", b"", b""),
    228: (b"", None, b""),
    113: (COOKED + b"\x08\0", COOKED + b"\x86\xdd", COOKED + b"\x08\0"),
    276: (b"\x08\0" + bytes(18), b"\x86\xdd" + bytes(18), b"\x08\0" + bytes(18)),
    9: (b"\xff\x03\0\x21", b"\xff\x03\0\x57", b"\xff\x03\0\x21"),
    104: (b"\x0f\0\x08\0", b"\x0f\0\x86\xdd", b"\x0f\0\x08\0"),
    0: (b"\2\0\0\0", None, b"\2\0\0\0"),
    107: (b"\x18\x41\x03\xcc", None, None),
}  # fmt: skip


@pytest.mark.parametrize("link_type", LINKS)
def test_other_link_types(link_type):
    around, *heads = LINKS[link_type]
    for head, packet, protocol in zip(heads, (SIX, FOUR), (41, 4), strict=True):
        given = around + over_ip(packet, protocol)
        packets, _, summary = stripped([given], link_type)
        assert packets == [given if head is None else head + packet]
        assert fates(summary) == ({"no_link_header_for_it": 1} if head is None else {})


def test_a_frame_in_a_capture_without_frames_leaves_its_packet():
    raw = KINDS["vxlan"][1](Fields())[14:]
    assert stripped([raw], 101)[0] == [FOUR]


def test_what_is_left_is_counted_and_stays():
    plain = bytes(frame(FIELDS))
    tunnel = KINDS["vxlan"][1](FIELDS)
    first, later = tunnel[:20] + b"\x20\x00" + tunnel[22:], tunnel[:20] + b"\x00\x05" + tunnel[22:]
    empty = KINDS["gre"][1](FIELDS)[:38]
    packets, _, summary = stripped([plain, first, later, empty, tunnel])
    assert packets[:4] == [plain, first, later, empty]
    assert fates(summary) == {"in_no_tunnel": 1, "fragments": 2, "nothing_found_within": 1}
    assert summary["stripped"] == {"vxlan": 1}


def test_a_tunnel_whose_packet_is_a_fragment_stays_and_the_one_around_it_goes():
    within = KINDS["vxlan"][1](FIELDS)
    fragment = within[:20] + b"\x20\x00" + within[22:]
    packet = on_ether(over_ip(b"\0\0\x65\x58" + fragment, 47))
    assert stripped([packet])[0] == [fragment]


def test_what_was_not_captured_stays_part_of_the_length_on_the_wire():
    """However short: it comes out as the inner packet would have been captured."""
    for name, whole in (("vxlan", bytes(frame(FIELDS))), ("gre", None)):
        packet = KINDS[name][1](FIELDS)
        whole = packet[:14] + bytes(inner(FIELDS)) if whole is None else whole
        gone = len(packet) - len(whole)
        padded = packet + bytes(9)  # behind the outer packet: not a part of what is within
        for size in range(len(packet) + 1):
            packets, wire, summary = stripped([padded[:size]], wire_length=[len(padded)])
            if summary["stripped"]:
                assert packets == [whole[: size - gone]]
                assert wire == [len(whole)]
            else:
                assert packets == [padded[:size]]
                assert wire == [len(padded)]
        assert summary["stripped"]


def test_services_behind_it_see_the_headers_within():
    parser = Parser(seed=1, stateless=True)
    service, slice_ = load("decapsulate"), load("slice:0")
    packets = [KINDS["vxlan"][1](Fields()), bytes(frame(Fields())), KINDS["gre"][1](Fields())]
    view = run(make_segment(packets, parser=parser), service, slice_)
    assert [len(packet) for packet in packets_of(view)] == [14 + 20 + 20] * 3
    assert view.column("target_port").tolist() == [50_000] * 3
    assert view.column("tunnel_kind").tolist() == [0] * 3


def test_the_columns_of_the_service_itself_are_as_read():
    parser = Parser(seed=1, stateless=True)
    segment = make_segment([KINDS["gre"][1](Fields())], parser=parser)
    view = run(segment, load("decapsulate"))
    assert view.column("protocol").tolist() == [47]


def test_rows_that_are_not_neighbours():
    packets = [KINDS[name][1](FIELDS) for name in ("vxlan", "geneve", "gre bridged", "etherip")]
    service = load("decapsulate")
    view = run(make_segment(packets, [3, 1]), service)
    assert packets_of(view) == [bytes(frame(FIELDS))] * 2


def test_no_packet_leads_it_astray():
    random = np.random.default_rng(5)
    whole = [make(FIELDS) for link, make in KINDS.values() if link == 1]
    for _ in range(300):
        packet = bytearray(whole[random.integers(len(whole))])
        for at in random.integers(0, len(packet), random.integers(0, 6)).tolist():
            packet[at] = random.integers(256)
        cut = bytes(packet[: random.integers(0, len(packet) + 1)])
        packets, wire, summary = stripped(
            [cut, over_udp(b"", 4789)], wire_length=[len(cut) + int(random.integers(50)), 42]
        )
        assert len(packets[0]) <= len(cut)
        assert len(packets[0]) <= wire[0]
        assert summary["packets"] == 2


# tshark decompresses IPComp (RFC 3173): so many packets of a capture have their IP header in what is compressed.
COMPRESSED = {"the-tcpdump-group+libpcap/tests__filter__AH-IPcomp-IPv6.pcap": 7}


def in_tunnels():
    """capture -> its rows in tshark's table, of captures in which tshark saw a tunnel."""
    found = {}
    with gzip.open(CORPUS / "truth.tsv.gz", "rt") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            found.setdefault(row["cap"], []).append(row)
    return {name: rows for name, rows in found.items() if any(int(row["depth"] or 0) > 1 for row in rows)}


def outermost_headers(path):
    """Of every packet, by tshark: source and target of its first IPv4 header, and of its first IPv6 header."""
    fields = [word for field in ("ip.src", "ip.dst", "ipv6.src", "ipv6.dst") for word in ("-e", field)]
    options = ["-o", "ip.defragment:FALSE", "-T", "fields", "-E", "occurrence=f", *fields]
    told = subprocess.run(["tshark", "-n", "-r", path, *options], capture_output=True, text=True, check=True)
    return [line.split("\t") for line in told.stdout.split("\n")[:-1]]


@pytest.mark.corpus
@pytest.mark.timeout(600)
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"the capture corpus is not at {CORPUS}")
@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is the oracle: scripts/system-packages test")
def test_on_real_captures_the_outermost_header_is_the_innermost_tshark_saw(tmp_path):
    """Of every packet that was stripped; tshark reads what we wrote."""
    stripped_of, whole = {}, tmp_path / "all.pcapng"
    with whole.open("wb") as file:  # one after another they are a pcapng too: tshark starts once
        for name, rows in in_tunnels().items():
            out = tmp_path / "out.pcapng"
            config = Config(read=str(CORPUS / name), write=str(out), service=["decapsulate"], workers=1)
            summary = Pipeline(config).run().json()["services"]["decapsulate"]
            if summary["stripped"]:
                stripped_of[name] = (rows, summary)
                file.write(out.read_bytes())
    lines = iter(outermost_headers(whole))
    compared = 0
    for name, (rows, summary) in stripped_of.items():
        agree = differ = 0
        for row in rows:
            source, target, source6, target6 = next(lines)
            if int(row["depth"] or 0) > 1 and "H" not in row.get("flags", ""):
                same = {row["isrc"], row["idst"]} == {source or source6, target or target6}
                agree, differ = agree + same, differ + (not same)
        left = summary["packets"] - sum(summary["stripped"].values()) - summary["in_no_tunnel"]
        assert differ <= left + COMPRESSED.get(name, 0), (name, agree, differ, summary)
        compared += agree
    assert next(lines, None) is None
    assert compared > 1000


def test_every_name_of_a_tunnel_is_taken():
    for name in filter(None, TUNNELS.values()):
        load(f"decapsulate:kinds={name}")
