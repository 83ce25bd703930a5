"""Streams and the filter beside fragments, tunnels and link types that an expression makes no sense for."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from streamcore.core.config import Config
from streamcore.run.pipeline import Pipeline
from tests.streamcore.conftest import COMMAND, read_pcap, udp_frame, write_pcap
from tests.streamcore.parse.packets_by_hand import ethernet, fragment6, ip4, ip6, tcp, udp

CASE = Path(__file__).parents[4] / "shared" / "cases" / "packets" / "A01-stream-fragments"
X, Y = bytes([172, 16, 0, 1]), bytes([172, 16, 0, 2])


def fragments(source, number, size=900, six=False):
    """Frames with the fragments of one datagram to port 5060, the first one first."""
    data = udp(source, 5060, bytes([number % 256]) * size)
    pieces = [(at, data[at : at + 400]) for at in range(0, len(data), 400)]
    frames = []
    for at, piece in pieces:
        more = at + len(piece) < len(data)
        if six:
            packet = ip6(44, fragment6(17, at // 8, more, number, piece))
        else:
            packet = ip4(17, piece, part=at // 8 | (0x2000 if more else 0), identification=number)
        frames.append(ethernet(0x86DD if six else 0x0800, packet))
    return frames


def vxlan(frame, number=5, source=50_000):
    head = struct.pack(">II", 0x08000000, number << 8)
    return ethernet(0x0800, ip4(17, udp(source, 4789, head + frame), source=X, target=Y))


def run(tmp_path, frames, **keys):
    source, target = write_pcap(tmp_path / "in.pcap", frames), tmp_path / "out.pcap"
    told = {"read": str(source), "write": str(target), "workers": 1, "chunk_rows": 1024, **keys}
    accounting = Pipeline(Config(**told)).run()
    return accounting.json(), [packet for _, packet in read_pcap(target)]


def stream(name, select, **more):
    return {"name": name, "select": select, "service": ["slice:bytes=20,from=packet"]} | more


def selected(account):
    return {name: each["packets"]["selected"] for name, each in account["streams"].items()}


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("order", ["as sent", "backwards", "in between"])
def test_later_fragments_follow_the_stream_of_their_first_one(tmp_path, six, order):
    """Whatever their order in one batch."""
    sent = [fragments(1000 + n, n, six=six) for n in range(20)]
    frames = [udp_frame(3, 3)]
    for one, two in zip(sent[::2], sent[1::2], strict=True):
        both = [frame for pair in zip(one, two, strict=True) for frame in pair] if order == "in between" else one + two
        frames += both[::-1] if order == "backwards" else both
    streams = [
        stream("odd", " or ".join(f"udp src port {1000 + n}" for n in range(1, 20, 2))),
        stream("sip", "port 5060"),
    ]
    account, left = run(tmp_path, frames, stream=streams)
    count = len(sent[0])
    assert selected(account) == {"rest": 0, "odd": 10 * count, "sip": 10 * count + 1}  # udp_frame is for port 5060, too
    assert [len(packet) for packet in left] == [20] * len(frames)
    assert "stream.orphan_fragments" not in account["notes"]


def test_the_case_of_the_issue_leaves_no_address_in_clear(tmp_path):
    if not CASE.is_dir():
        pytest.skip(f"the case is not at {CASE}")
    out = tmp_path / "out.pcap"
    command = [*COMMAND, "run", "--config", str(CASE / "st.toml"), "-r", str(CASE / "sipfrag.pcap"), "-w", str(out)]
    assert subprocess.run(command, capture_output=True).returncode == 0
    before, after = (read_pcap(path) for path in (CASE / "sipfrag.pcap", out))
    assert len(after) == len(before) == 2
    addresses = {packet[26:34] for _, packet in after}
    assert len(addresses) == 1  # both fragments alike
    assert addresses.isdisjoint({packet[26:34] for _, packet in before})


def test_a_first_fragment_that_comes_a_batch_later_is_too_late_and_said(tmp_path):
    first, later, *_ = fragments(1000, 1, size=600)
    between = [udp_frame(9, n) for n in range(1500)]
    streams = [stream("one", "udp src port 1000")]
    account, _ = run(tmp_path, [later, *between, first, later], stream=streams)
    assert selected(account)["one"] == 2
    assert account["notes"]["stream.orphan_fragments"] == 1
    assert account["exit_status"] == 0


def test_the_table_of_first_fragments_is_bounded(tmp_path):
    """16 are remembered: of 500 datagrams whose later fragments come in a later batch, few follow."""
    sent = [fragments(1000, n, size=600) for n in range(500)]
    between = [udp_frame(9, n) for n in range(1024)]
    frames = [one[0] for one in sent] + between + [one[1] for one in sent]
    account, _ = run(tmp_path, frames, stream=[stream("one", "udp src port 1000")], fragments_max=16)
    assert 500 < selected(account)["one"] <= 516
    assert account["notes"]["stream.orphan_fragments"] == 1000 - selected(account)["one"]


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is the oracle: scripts/system-packages test")
@pytest.mark.parametrize("follow", [False, True])
def test_the_filter_is_tcpdump_s_unless_it_follows_fragments(tmp_path, follow):
    frames = [frame for n in range(30) for frame in fragments(1000 + n % 3, n)]
    _, left = run(tmp_path, frames, filter="udp src port 1001", follow_fragments=follow)
    command = ["tcpdump", "-r", str(tmp_path / "in.pcap"), "-w", str(tmp_path / "theirs.pcap"), "udp src port 1001"]
    subprocess.run(command, check=True, capture_output=True)
    firsts = [packet for _, packet in read_pcap(tmp_path / "theirs.pcap")]
    numbers = {packet[18:20] for packet in firsts}  # the datagrams' identifications
    assert left == ([frame for frame in frames if frame[18:20] in numbers] if follow else firsts)
    assert 0 < len(firsts) < len(left) or not follow


INSIDE = ethernet(0x0800, ip4(6, tcp(1234, 80)))
OTHER = ethernet(0x0800, ip4(6, tcp(1234, 81)))
WITHIN = {  # what is in the tunnel, expression, whether it matches there
    "ports": (vxlan(INSIDE), "tcp port 80", True),
    "another port": (vxlan(OTHER), "tcp port 80", False),
    "the tunnel itself": (vxlan(INSIDE), "udp port 4789", False),
    "in no tunnel": (INSIDE, "tcp port 80", True),
    "a frame's addresses": (vxlan(INSIDE), "ether src 02:00:00:00:00:02 and tcp", True),
    "a frame's tag": (vxlan(ethernet(0x0800, ip4(6, tcp(1, 80)), [7])), "vlan 7 and port 80", True),
    "arp": (vxlan(ethernet(0x0806, bytes.fromhex("0001080006040001") + bytes(20))), "arp", True),
    "ip in ip": (ethernet(0x0800, ip4(4, ip4(6, tcp(1, 80)))), "tcp port 80", True),
    "ipv6 in gre": (ethernet(0x0800, ip4(47, b"\0\0\x86\xdd" + ip6(17, udp(5, 80)))), "ip6 and port 80", True),
    "the innermost of two": (ethernet(0x0800, ip4(47, b"\0\0\x65\x58" + vxlan(INSIDE))), "tcp port 80", True),
    "its length": (vxlan(INSIDE), f"len = {len(INSIDE)}", True),
}


@pytest.mark.parametrize("name", WITHIN)
def test_expressions_look_into_tunnels_when_told_to(tmp_path, name):
    packet, expression, matches = WITHIN[name]
    streams = [stream("a", expression, match="inner"), stream("b", expression)]
    _, left = run(tmp_path, [packet], filter=expression, match="inner")
    assert left == [packet] * matches
    account, _ = run(tmp_path, [packet], stream=streams)
    assert selected(account)["a"] == matches
    account, _ = run(tmp_path, [packet], stream=streams[1:], match="inner")
    assert selected(account)["b"] == matches


def test_fragments_in_tunnels_follow_as_those_outside_do(tmp_path):
    inside = [vxlan(frame, number) for number in (5, 6) for frame in fragments(1000, 7)]
    whole = ip4(6, tcp(1234, 80, data=bytes(600)))
    data = udp(50_000, 4789, struct.pack(">II", 0x08000000, 5 << 8) + ethernet(0x0800, whole))
    outside = [
        ethernet(0x0800, ip4(17, data[:400], part=0x2000, identification=3, source=X, target=Y)),
        ethernet(0x0800, ip4(17, data[400:], part=50, identification=3, source=X, target=Y)),
    ]
    streams = [stream("sip", "port 5060", match="inner"), stream("web", "tcp port 80", match="inner")]
    account, _ = run(tmp_path, inside[::-1] + outside[::-1], stream=streams)
    assert selected(account) == {"rest": 0, "sip": len(inside), "web": 2}


def write_two_links(path, packets):
    """A pcapng of an interface of Ethernet and one of raw IP; packets: (interface, bytes)."""

    def block(kind, body):
        body += bytes(-len(body) % 4)
        return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)

    out = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    out += block(1, struct.pack("<HHI", 1, 0, 0)) + block(1, struct.pack("<HHI", 101, 0, 0))
    for interface, packet in packets:
        out += block(6, struct.pack("<IIIII", interface, 0, 0, len(packet), len(packet)) + packet)
    path.write_bytes(out)
    return path


def test_an_expression_that_cannot_hold_for_a_link_type_matches_nothing_there_and_that_is_said(tmp_path):
    raw = ip4(6, tcp())
    capture = write_two_links(tmp_path / "in.pcapng", [(0, INSIDE), (1, raw), (0, OTHER), (1, raw)])
    keys = {"read": str(capture), "write": str(tmp_path / "out.pcapng"), "workers": 1}
    streams = [stream("frames", "ether host 02:00:00:00:00:02"), stream("web", "tcp port 80")]
    accounting = Pipeline(Config(**keys, stream=streams)).run()
    account = accounting.json()
    assert selected(account) == {"rest": 0, "frames": 2, "web": 2}
    (line,) = account["misfits"]
    assert line.startswith(
        "stream frames: 'ether host 02:00:00:00:00:02' cannot hold for packets of link type 101 (interface 1)"
    )
    assert line in accounting.text()
    assert account["exit_status"] == 0
    accounting = Pipeline(Config(**keys, filter="ether host 02:00:00:00:00:02")).run()
    assert accounting.json()["packets"] == {"read": 4, "written": 2, "dropped": {"filter.not_matched": 2}}
    assert "link type 101" in accounting.json()["misfits"][0]


def test_the_command_line_has_these_keys(tmp_path):
    capture = write_pcap(tmp_path / "in.pcap", [vxlan(INSIDE), vxlan(OTHER), *fragments(80, 1)])
    words = ["--match", "inner", "--follow-fragments", "--flow-key", "both", "--json", "-q", "port 80"]
    command = [*COMMAND, "run", "-r", str(capture), "-w", str(tmp_path / "out.pcap"), *words]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(told.stdout)["packets"]["written"] == 1 + len(fragments(80, 1))
    told = subprocess.run(
        [*COMMAND, "flows", "-r", str(capture), "--key", "inner"], capture_output=True, text=True, check=True
    )
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert [(row["inner_target_port"], row["tunnel_id"], row["packets"]) for row in rows] == [
        (80, 5, 1),
        (81, 5, 1),
        (0, 0, 3),
    ]
    bad = subprocess.run([*COMMAND, "flows", "-r", str(capture), "--key", "middle"], capture_output=True, text=True)
    assert (bad.returncode, bad.stderr) == (2, "streamcore: flow_key must be both, inner or outer, not 'middle'\n")
