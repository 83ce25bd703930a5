"""The filter beside libpcap's own interpreter and tcpdump, on real captures; and what a bad expression is told."""

import shutil
import subprocess
from pathlib import Path

import cypcap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.core.errors import SourceError, UsageError
from streamcore.core.packets import Arena
from streamcore.parse import _libpcap
from streamcore.parse._bpf import BadProgram, Program
from streamcore.parse.filter import Filter
from streamcore.source.capture import CaptureSource
from tests.examples import examples
from tests.streamcore.batches import make_batch

ROOT = Path(__file__).parents[3]
CORPUS = ROOT.parent / "shared" / "corpus" / "dev"
OFFICE = ROOT / "examples" / "office.pcapng"
EXPRESSIONS = [
    "tcp port 443",
    "udp",
    "ip",
    "ip6",
    "arp or icmp or icmp6",
    "not ip",
    "host 10.0.0.1 or net 192.168.0.0/16",
    "portrange 1-1023",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "len > 200",
    "less 100 and greater 60",
    "vlan",
    "vlan and ip",
    "vlan 5 or vlan 100",
    "mpls",
    "mpls and ip6",
    "pppoes and ip",
    "ip6 proto 6",
    "ip6 proto 44",
    "ip proto 41",
    "ip protochain 6",
    "ip6 protochain 17",
    "ether[0] & 1 != 0",
    "ip[0] & 0xf != 5",
    "ip[6:2] & 0x3fff != 0",
    "ip[2:2] - ((ip[0] & 0xf) << 2) > 100",
    "udp[4:2] * 2 / 3 % 7 = 1",
    "tcp[((tcp[12] & 0xf0) >> 2):2] = 0x1603",
    "ip broadcast or ip multicast",
    "ether broadcast",
    "src port 53 and dst net 10",
    "ip6 host ::1 or ip6 net fe80::/10",
    "sctp",
    "igmp or pim or vrrp",
    "-(ip[8]) = 0xffffffc0",
    "ip[8] ^ 0x40 | 1 = 1",
    "1 << ip[9] > 500",
    "geneve",
    "llc",
    "stp",
    "ether proto 0x88cc",
    "ether host 01:00:5e:00:00:fb",
    "iso or netbeui",
    "len & 1 = 1 and ip[ip[8]] > 3",
]


def captures():
    corpus = (
        sorted(p for p in CORPUS.rglob("*") if p.suffix in (".pcap", ".pcapng", ".cap", ".trace", ".dmp"))
        if CORPUS.is_dir()
        else []
    )
    return [OFFICE, *corpus]


def batches(path):
    try:
        with CaptureSource(path, Arena(2, 8 << 20, 1 << 16)) as source:
            yield from source
    except SourceError:
        return


def libpcap_programs(link_type):
    """(expression, libpcap's own program) for those that make sense for the link type."""
    for expression in EXPRESSIONS:
        try:
            yield expression, cypcap.BpfProgram(_libpcap.compile_expression(expression, link_type))
        except (_libpcap.CompileError, cypcap.Error):
            continue


@pytest.mark.corpus
@pytest.mark.timeout(600)
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"the capture corpus is not at {CORPUS}")
def test_every_capture_as_libpcap_matches_it():
    """On the first packets of each capture; libpcap's bpf_filter is the oracle."""
    compared = matched = 0
    for path in captures():
        for batch in batches(path):
            rows = range(min(len(batch), 120))
            links = {i: batch.chunk.arena.link_type(i) for i in set(batch.interface[: len(rows)].tolist())}
            packets = [(batch.packet(row), int(batch.wire_length[row]), links[batch.interface[row]]) for row in rows]
            for link_type in set(links.values()):
                for expression, theirs in libpcap_programs(link_type):
                    ours = Program(list(theirs))
                    for packet, wire_length, its_link_type in packets:
                        if its_link_type == link_type:
                            data = packet.tobytes()
                            header = cypcap.Pkthdr(0, len(data), wire_length)
                            expected = theirs.offline_filter(header, data)
                            assert bool(ours.match(packet, wire_length)) == bool(expected), (
                                path.name,
                                expression,
                                data.hex(),
                            )
                            compared += 1
                            matched += bool(expected)
            break
    assert compared > 100_000
    assert matched > 10_000


def tcpdump_keeps(path, expression):
    """Packets that tcpdump keeps, as (captured bytes); None: it refuses the file or the expression."""
    run = subprocess.run(["tcpdump", "-r", path, "-w", "-", "--", expression], capture_output=True, check=False)
    if run.returncode or b"truncated" in run.stderr:
        return None
    data, at, kept = run.stdout, 24, []
    while at < len(data):
        size = int.from_bytes(data[at + 8 : at + 12], "little")
        kept.append(data[at + 16 : at + 16 + size])
        at += 16 + size
    return kept


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_shipped_capture_as_tcpdump_filters_it(expression):
    expected = tcpdump_keeps(OFFICE, expression)
    assert expected is not None
    kept, dropped = [], 0
    chosen = Filter(expression)
    for batch in batches(OFFICE):
        total = len(batch)
        packets, byte_count = chosen(batch)
        rows = range(total) if batch.rows is None else batch.rows.tolist()
        kept += [batch.packet(row).tobytes() for row in rows]
        assert packets == total - len(rows)
        assert byte_count == batch.byte_count - sum(len(batch.packet(row)) for row in rows)
        assert (packets == 0) == (not batch.arranged)
        dropped += packets
    assert kept == expected


@given(st.binary(min_size=0, max_size=90), st.sampled_from(EXPRESSIONS), st.integers(0, 2000))
@settings(max_examples=examples(400), deadline=None)
def test_any_bytes_as_libpcap_matches_them(packet, expression, longer):
    header = b"\2" * 12 + (b"\x08\x00\x45" if packet[:1] < b"\x80" else b"\x86\xdd\x60")
    packet = (header + packet)[: len(packet)] if len(packet) % 3 == 0 else header + packet
    try:
        program = _libpcap.compile_expression(expression, 1)
    except _libpcap.CompileError:
        return
    wire_length = len(packet) + longer
    theirs = cypcap.BpfProgram(program).offline_filter(cypcap.Pkthdr(0, len(packet), wire_length), packet)
    assert bool(Program(program).match(packet, wire_length)) == bool(theirs)


CODES = [
    0x20,
    0x28,
    0x30,
    0x40,
    0x48,
    0x50,
    0x80,
    0x00,
    0x60,
    0x01,
    0x61,
    0x81,
    0xB1,
    0x02,
    0x03,
    0x04,
    0x0C,
    0x14,
    0x1C,
    0x24,
    0x2C,
    0x34,
    0x3C,
    0x44,
    0x4C,
    0x54,
    0x5C,
    0x94,
    0x9C,
    0xA4,
    0xAC,
    0x84,
    0x07,
    0x87,
    0x6C,
    0x7C,
]
INSTRUCTION = st.one_of(
    st.tuples(st.sampled_from(CODES), st.just(0), st.just(0), st.integers(1, 15)),
    st.tuples(
        st.sampled_from([0x15, 0x25, 0x35, 0x45, 0x1D, 0x2D, 0x3D, 0x4D]),
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(0, 99),
    ),
    st.tuples(
        st.sampled_from([0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x00, 0x04]),
        st.just(0),
        st.just(0),
        st.integers(0, 2**32 - 1),
    ),
)


@given(st.lists(INSTRUCTION, max_size=30), st.binary(max_size=40))
@settings(max_examples=examples(500), deadline=None)
def test_any_program_as_libpcap_runs_it(program, packet):
    # Scratch memory that was not stored to is undefined in libpcap: begin with stores of 0.
    # Four returns catch every jump.
    program = [(0x02, 0, 0, i) for i in range(16)] + program + [(0x16, 0, 0, 0)] * 4
    theirs = cypcap.BpfProgram(program).offline_filter(cypcap.Pkthdr(0, len(packet), 77), packet)
    assert bool(Program(program).match(packet, 77)) == bool(theirs)


@pytest.mark.parametrize(
    "program",
    [
        [],
        [(0x05, 0, 0, 5), (6, 0, 0, 0)],
        [(0x05, 0, 0, 2**32 - 9), (6, 0, 0, 0)],
        [(0x15, 200, 0, 0), (6, 0, 0, 0)],
        [(0x60, 0, 0, 16), (6, 0, 0, 0)],
        [(0x34, 0, 0, 0), (6, 0, 0, 0)],
        [(0x28, 0, 0, 0)],
        [(0xFF, 0, 0, 0), (6, 0, 0, 0)],
    ],
)
def test_a_program_that_could_leave_itself_is_refused(program):
    with pytest.raises(BadProgram):
        Program(program)


def test_a_program_that_never_ends_rejects():
    assert Program([(0x05, 0, 0, 2**32 - 1), (6, 0, 0, 1)]).match(b"", 0) == 0


@pytest.mark.parametrize(
    ("expression", "at"),
    [
        ("tcp prt 80", "prt"),
        ("host", ""),
        ("ip[0", ""),
        ("tcp and (udp or prt 5)", "prt"),
        ("port 99999", "99999"),
        ("tcp and and udp", "and udp"),
        ("(tcp", ""),
        ("ether host 1.2.3.4", "1.2.3.4"),
        ("ip[0] & 1 = = 5", "= 5"),
        ("tcp[tcpflags] & (tcp-syn|tcp-foo) != 0", "tcp-foo"),
        ("net 10.0.0.1/8", "10.0.0.1/8"),
        ("port no-such-port", "no-such-port"),
    ],
)
def test_a_bad_expression_shows_where(expression, at):
    with pytest.raises(UsageError) as caught:
        Filter(expression)
    first, line, caret = str(caught.value).split("\n")
    assert first.startswith("bad filter: ")
    assert line == expression
    assert caret == " " * (expression.rindex(at) if at else len(expression)) + "^"


def test_an_expression_for_another_link_type_matches_nothing_there_and_names_the_interface():
    chosen = Filter("wlan type mgt subtype beacon")
    batch = make_batch([bytes(60)])
    batch.chunk.arena.set_link_type(0, 1)
    assert chosen(batch) == (1, 60)
    assert "link type 1 (interface 0)" in chosen.misfits[1]


def test_interfaces_of_several_link_types_each_by_their_own_program():
    ip = bytes.fromhex("4500001c000000004011000001020304050607080035003500080000")
    batch = make_batch([b"\2" * 12 + b"\x08\x00" + ip, ip, b"\2" * 12 + b"\x08\x06" + ip, b"\x60" + ip[1:]])
    batch.interface[:] = [0, 1, 0, 1]
    batch.chunk.arena.set_link_type(0, 1)
    batch.chunk.arena.set_link_type(1, 101)
    assert Filter("udp port 53")(batch) == (2, 42 + 28)
    assert batch.rows.tolist() == [0, 1]
    assert Filter("src host 1.2.3.4")(batch) == (0, 0)
    assert Filter("len = 28")(batch) == (1, 42)
    assert batch.rows.tolist() == [1]


def test_the_system_library_compiles_alike():
    try:
        compiler = _libpcap._system_compiler()
    except _libpcap.NoLibpcap:
        pytest.skip("the system has no libpcap")
    for expression in EXPRESSIONS:
        try:
            ours = compiler(expression, 1)
        except _libpcap.CompileError:
            continue
        Program(ours)
    with pytest.raises(_libpcap.CompileError):
        compiler("tcp prt", 1)


@pytest.mark.parametrize("outcome", ["another link type", "no rights", "no expression"])
def test_a_live_handle_is_closed_whatever_happens(outcome, monkeypatch):
    class Handle:
        closed = 0

        def activate(self):
            if outcome == "no rights":
                raise cypcap.Error(-8, "no")

        def datalink(self):
            return 101 if outcome == "another link type" else 1

        def compile(self, *words):
            raise cypcap.Error(-1, "syntax error")

        def close(self):
            self.closed += 1

        def __getattr__(self, name):
            return lambda *words: None

    handle = Handle()
    monkeypatch.setattr(cypcap, "create", lambda interface: handle)
    if outcome == "no expression":
        with pytest.raises(_libpcap.CompileError, match="syntax error"):
            _libpcap.compile_live("tcp prt", "any0")
    else:
        assert _libpcap.compile_live("tcp", "any0") is None
    assert handle.closed == 1
