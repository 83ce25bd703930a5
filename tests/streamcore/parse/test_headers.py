"""The parser beside its slow twin: by hand, cut everywhere, and mutated; every group of columns, alone and together."""

import ctypes

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from streamcore.core.packets import ALL_GROUPS, COLUMN_GROUPS, FLAGS
from streamcore.headers._walk import explain
from streamcore.parse._flows import FlowTable
from streamcore.parse.filter import Filter
from streamcore.parse.parser import Parser
from tests.examples import examples
from tests.streamcore.batches import make_batch
from tests.streamcore.parse import twin
from tests.streamcore.parse.packets_by_hand import ETHERNET, ethernet, ip4, ip6, samples, tcp, udp

SAMPLES = samples()
HEADERS = ALL_GROUPS & ~COLUMN_GROUPS["flow"]
MAPPED = b"\0" * 10 + b"\xff\xff"


def parsed(cases, groups=ALL_GROUPS, parser=None):
    """A batch of (link type, packet), parsed; interface i has the i-th link type met."""
    links = list(dict.fromkeys(link for link, _ in cases))
    batch = make_batch([packet for _, packet in cases])
    for number, link in enumerate(links):
        batch.chunk.arena.set_link_type(number, link)
    batch.interface[:] = [links.index(link) for link, _ in cases]
    (parser or Parser(seed=1, stateless=True))(batch, groups)
    return batch


def flag_bits(*names):
    return sum(FLAGS[name] for name in names)


def check(batch, row, found):
    """Every column of one row beside what the twin found."""
    outer = found.ips[0] if found.ips else None
    flags = int(batch.flags[row])
    told = {name: bool(flags & bit) for name, bit in FLAGS.items()}
    assert batch.depth[row] == len(found.ips)
    assert batch.vlan_count[row] == min(len(found.vlans), 255)
    assert batch.vlan[row][: min(len(found.vlans), 4)].tolist() == found.vlans[:4]
    assert told["link_unknown"] == (not found.known)
    inner_flags = int(batch.inner_flags[row])
    assert bool((flags | inner_flags) & FLAGS["truncated"]) == found.truncated
    assert bool((flags | inner_flags) & FLAGS["malformed"]) == found.malformed
    assert bool((flags | inner_flags) & FLAGS["depth"]) == found.deep
    if outer is None:
        assert not batch.ip_version[row]
        assert not told["ports"]
        assert batch.l3_offset[row] == batch.l4_offset[row] == batch.payload_offset[row] == twin.ABSENT
        return
    assert (batch.ip_version[row], batch.protocol[row]) == (outer.version, outer.protocol)
    places = (batch.l3_offset[row], batch.l4_offset[row], batch.payload_offset[row])
    assert places == (outer.l3, outer.l4, outer.payload)
    assert told["ports"] == (outer.ports is not None)
    assert (batch.source_port[row], batch.target_port[row]) == (outer.ports or (0, 0))
    assert (told["fragment"], told["more_fragments"]) == (outer.is_fragment, outer.more)
    assert batch.fragment_offset[row] == outer.fragment
    for column, address in ((batch.source_address, outer.source), (batch.target_address, outer.target)):
        assert column[row].tobytes() == (MAPPED + address if outer.version == 4 else address)
    if len(found.ips) > 1:
        inner = found.ips[-1]
        assert (batch.inner_ip_version[row], batch.inner_protocol[row]) == (inner.version, inner.protocol)
        assert batch.inner_l3_offset[row] == inner.l3
        assert (batch.inner_source_port[row], batch.inner_target_port[row]) == (inner.ports or (0, 0))
        for column, address in ((batch.inner_source_address, inner.source), (batch.inner_target_address, inner.target)):
            assert column[row].tobytes() == (MAPPED + address if inner.version == 4 else address)
    else:
        assert not batch.inner_ip_version[row]


@pytest.mark.parametrize("name", SAMPLES)
def test_as_the_twin_parses_it_cut_at_every_byte(name):
    link, packet = SAMPLES[name]
    cases = [(link, packet[:size]) for size in range(len(packet) + 1)]
    batch = parsed(cases)
    for row, (_, cut) in enumerate(cases):
        check(batch, row, twin.parse(cut, link))


def twin_knows(link, packet):
    """The twin knows the common headers; the others are compared with tshark (tests/streamcore/headers)."""
    layers, _, _, tunnel, _, (depth, _, _, _, protocol, *_) = explain(packet, link)
    common = not {kind for kind, *_ in layers} & {"pim", "wifi", "link"}
    numbers = {detail for kind, _, _, _, detail, marks in layers if kind == "extension" and "cut" not in marks}
    if any(kind == "extension" and "cut" in marks for kind, *_, marks in layers):  # it says nothing of its kind
        numbers.add(protocol if depth == 1 else -1)
    return common and tunnel in ("", "ip", "gre") and numbers <= {0, 43, 44, 60}


TUNNELS = [name for name, (link, packet) in SAMPLES.items() if len(twin.parse(packet, link).ips) > 1]


@pytest.mark.parametrize("name", TUNNELS)
def test_a_header_further_in_ends_where_the_one_around_it_does(name):
    link, packet = SAMPLES[name]
    outer = twin.parse(packet, link).ips[0]
    at = outer.l3 + (2 if outer.version == 4 else 4)  # of its length
    cases = [(link, packet[:at] + length.to_bytes(2, "big") + packet[at + 2 :]) for length in range(len(packet) + 2)]
    batch = parsed(cases)
    for row, (_, changed) in enumerate(cases):
        check(batch, row, twin.parse(changed, link))


def test_pppoe_ends_where_its_length_says():
    link, packet = SAMPLES["pppoe"]
    cases = [(link, packet[:18] + length.to_bytes(2, "big") + packet[20:]) for length in range(len(packet))]
    batch = parsed(cases)
    for row, (_, changed) in enumerate(cases):
        check(batch, row, twin.parse(changed, link))
    assert (batch.depth[: len(packet)] == 0).any()  # it ends before the IP header does


def test_gre_with_routes_in_it():
    """Every combination of flags, before routes of several lengths (RFC 1701), cut at every byte."""
    cases = []
    for flags in range(0, 256, 16):
        for routes in (bytes(4), b"\0\0\0\4" + bytes(8), b"\0\0\0\1" + bytes(5), bytes(12) + b"\0\0\0\3"):
            whole = ip4(47, bytes([flags, 0, 8, 0]) + routes + ip4(17, udp()))
            cases += [(101, whole[:size]) for size in range(20, len(whole) + 1)]
    cases = [one for one in cases if twin_knows(*one)]
    batch = parsed(cases)
    for row, (_, packet) in enumerate(cases):
        check(batch, row, twin.parse(packet, 101))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", range(1, 13))
def test_packets_that_icmp_quotes_as_the_twin_parses_them(family, kind, some):
    """Each sample quoted by each kind of message, cut at each third byte, and with each fifth first byte; without --all
    a fourth of these, another with each kind."""
    cases = []
    for link, packet in SAMPLES.values():
        packet = packet[14:] if link == ETHERNET else packet
        quotes = [packet[:size] for size in range(0, len(packet) + 1, 3)]
        quotes += [bytes([first]) + packet[1:] for first in range(0, 256, 5)]
        for quote in quotes:
            message = bytes([kind]) + bytes(7) + quote
            cases.append((101, ip4(1, message) if family == 4 else ip6(58, message)))
    cases = [one for one in some(cases, 4, kind) if twin_knows(*one)]
    batch = parsed(cases)
    for row, (_, packet) in enumerate(cases):
        check(batch, row, twin.parse(packet, 101))
    wrong = sum(FLAGS[name] for name in ("truncated", "malformed", "depth", "fragment", "ports"))
    assert not (batch.flags & wrong).any()  # the message is whole: nothing of what it quotes is a flag of this packet


@given(
    st.sampled_from(sorted(SAMPLES)),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=6),
    st.integers(0, 1500),
    st.binary(max_size=8),
)
@settings(max_examples=examples(800), deadline=None)
def test_mutated_packets_as_the_twin_parses_them(name, changes, size, tail):
    link, packet = SAMPLES[name]
    packet = bytearray(packet)
    for at, value in changes:
        if at < len(packet):
            packet[at] = value
    packet = bytes(packet[:size]) + tail
    batch = parsed([(link, packet)])
    assume(twin_knows(link, packet))
    check(batch, 0, twin.parse(packet, link))


@given(st.sampled_from([0, 1, 12, 101, 108, 113, 228, 229, 276]), st.binary(max_size=200))
@settings(max_examples=examples(500), deadline=None)
def test_any_bytes_as_the_twin_parses_them(link, packet):
    batch = parsed([(link, packet)])
    assume(twin_knows(link, packet))
    check(batch, 0, twin.parse(packet, link))


@pytest.mark.parametrize("size", [65_533, 65_534, 65_535, 65_536, 70_000, 262_144])
def test_headers_far_into_a_huge_packet(size):
    chain = (size - 14 - 40) // 4
    tags = ethernet(0x0800, ip4(6, tcp()), range(chain))
    for packet in (tags, ethernet(0x0800, ip4(17, udp(), total=0) + bytes(size))):
        check(parsed([(ETHERNET, packet)]), 0, twin.parse(packet, ETHERNET))


def test_thirty_three_ip_headers_are_too_many():
    for count, deep in ((31, False), (32, True), (70, True)):
        packet = ip4(6, tcp())
        for _ in range(count):
            packet = ip4(4, packet)
        batch = parsed([(101, packet)])
        assert bool((batch.flags[0] | batch.inner_flags[0]) & FLAGS["depth"]) == deep
        assert batch.depth[0] == min(count + 1, 32)


def test_each_group_alone_as_all_together():
    cases = list(SAMPLES.values())
    whole = parsed(cases)
    columns = {
        "headers": "ip_version protocol flags l3_offset l4_offset payload_offset source_port target_port"
        " fragment_offset",
        "addresses": "source_address target_address",
        "vlan": "vlan_count vlan",
        "inner": "depth inner_ip_version inner_protocol inner_flags inner_l3_offset inner_source_port inner_target_port"
        " inner_source_address inner_target_address",
        "flow": "flow_hash",
    }
    for group, names in columns.items():
        alone = parsed(cases, COLUMN_GROUPS[group])
        assert alone.groups == COLUMN_GROUPS[group]
        for name in names.split():
            assert np.array_equal(getattr(alone, name), getattr(whole, name)), (group, name)


def test_defects_are_counted_once():
    cases = [SAMPLES["bad header length"], (ETHERNET, SAMPLES["tcp"][1][:30]), SAMPLES["unknown"], SAMPLES["tcp"]]
    parser = Parser(seed=1)
    batch = parsed(cases, COLUMN_GROUPS["flow"], parser)
    parser(batch, ALL_GROUPS)
    assert parser.counts() == {
        "parse.malformed": 1,
        "parse.truncated": 1,
        "parse.orphan_fragments": 0,
        "parse.link_unknown": 1,
    }


def test_no_byte_beyond_the_capture_matters():
    """The same packet before different bytes gives the same columns."""
    for name, (link, packet) in SAMPLES.items():
        for size in {0, 1, 13, 14, 17, 18, 33, 34, 37, 38, 41, 42, 53, 54, 57, 58, 61, 62, len(packet)}:
            cut = packet[:size]
            rows = [parsed([(link, cut), (link, bytes([fill]) * 64)]) for fill in (0, 0xFF)]
            assert rows[0].flow_hash[0] == rows[1].flow_hash[0], name
            for column in ("flags", "ip_version", "l4_offset", "source_port", "vlan_count", "depth", "inner_l3_offset"):
                assert getattr(rows[0], column)[0] == getattr(rows[1], column)[0], (name, column)


def test_ip6_is_an_ip6_of_its_own():
    batch = parsed([(ETHERNET, ethernet(0x86DD, ip6(6, tcp(5, 6))))])
    assert (batch.source_port[0], batch.target_port[0], batch.l4_offset[0]) == (5, 6, 54)


def test_no_byte_beyond_the_capture_is_read():
    """Packets that end where a page begins that may not be read: one byte too many and the process dies."""
    page, library = 4096, ctypes.CDLL(None, use_errno=True)
    batch = make_batch([bytes(8 * page)])
    chunk = batch.chunk
    edge = -(-chunk.data.ctypes.data // page) * page + 4 * page  # whole pages, well inside the chunk
    at = edge - chunk.data.ctypes.data
    parser, flows, chosen = Parser(seed=1), FlowTable(1000), Filter("tcp port 80 or ip6 protochain 17 or vlan")
    assert library.mprotect(ctypes.c_void_p(edge), page, 0) == 0
    try:
        for link, packet in SAMPLES.values():
            chunk.arena.set_link_type(0, link)
            for size in range(min(len(packet), 400) + 1):
                chunk.data[at - size : at] = np.frombuffer(packet[:size], np.uint8)
                batch.offset[0], batch.captured_length[0] = at - size, size
                for groups in (COLUMN_GROUPS["flow"], HEADERS):
                    batch.groups = 0
                    parser(batch, groups)
                flows.find(batch)
                if link == ETHERNET:
                    batch.arranged, batch.row_count = False, 1
                    chosen(batch)
    finally:
        assert library.mprotect(ctypes.c_void_p(edge), page, 3) == 0
