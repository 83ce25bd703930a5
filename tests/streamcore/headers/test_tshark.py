"""Every kind of link type and tunnel, made by scapy with varied fields, as tshark reads it: the addresses of all its IP
headers, and the ports of the innermost one.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamcore.headers import STANDARD_PORTS, UdpPorts
from streamcore.headers._walk import explain

pytest.importorskip("scapy", reason="scapy makes the packets: pip install -e .[dev]")
from tests.streamcore.headers.made_packets import KINDS, Fields
from tests.streamcore.headers.more_packets import MORE_KINDS, UNKNOWN_TO_TSHARK

needs_tshark = pytest.mark.skipif(
    not shutil.which("tshark"), reason="tshark is the oracle: scripts/system-packages test"
)
FIELDS = (
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "ip.proto",
    "tcp.srcport",
    "udp.dstport",
    "tcp.dstport",
    "udp.srcport",
)
VARIED = st.builds(
    Fields,
    number=st.integers(0, 0xFFFFFF),
    ports=st.tuples(st.integers(20_000, 30_000), st.integers(20_000, 30_000)),
    six=st.booleans(),
    tcp=st.booleans(),
    payload=st.binary(min_size=4, max_size=60),
    vlan=st.integers(0, 4094),
    flag=st.booleans(),
    extra=st.integers(0, 3),
)
EXAMPLES = 12
ALL_KINDS = KINDS | MORE_KINDS


def write(path: Path, packets: list[tuple[int, bytes]]) -> None:
    """A pcapng with an interface for each link type; packets: (link type, bytes)."""
    links = sorted({link for link, _ in packets})
    blocks = [block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))]
    blocks += [block(1, struct.pack("<HHI", link, 0, 262_144)) for link in links]
    for link, packet in packets:
        head = struct.pack("<IIIII", links.index(link), 0, 0, len(packet), len(packet))
        blocks.append(block(6, head + packet + bytes(-len(packet) % 4)))
    path.write_bytes(b"".join(blocks))


def block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def as_tshark_reads(path: Path, *more: str) -> list[list[tuple[str, ...]]]:
    """For each packet the IP headers, outermost first: (source, target); and the ports that the last layer has."""
    options = [word for field in FIELDS for word in ("-e", field)]
    told = subprocess.run(
        ["tshark", "-n", "-r", path, *more, "-T", "fields", "-E", "occurrence=a", "-e", "frame.protocols", *options],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = []
    for line in told.stdout.split("\n")[:-1]:
        protocols, *values = line.split("\t")
        found = dict(zip(FIELDS, ([one for one in value.split(",") if one] for value in values), strict=True))
        headers = []
        for name in protocols.split(":"):
            if name in ("ip", "ipv6") and found[f"{name}.src"]:
                headers.append((found[f"{name}.src"].pop(0), found[f"{name}.dst"].pop(0)))
        last = "tcp" if "tcp" in protocols.split(":") else "udp"
        headers.append((found[f"{last}.srcport"][-1], found[f"{last}.dstport"][-1]) if found[f"{last}.srcport"] else ())
        rows.append(headers)
    return rows


def as_we_read(packet: bytes, link: int, ports: UdpPorts = STANDARD_PORTS) -> list[tuple[str, ...]]:
    from socket import AF_INET, AF_INET6, inet_ntop

    layers, outcome, *_ = explain(packet, link, ports)
    assert outcome == "transport", (layers, outcome)
    headers: list[tuple[str, ...]] = []
    for kind, at, *_ in layers:
        if kind == "ip4":
            headers.append(
                (inet_ntop(AF_INET, packet[at + 12 : at + 16]), inet_ntop(AF_INET, packet[at + 16 : at + 20]))
            )
        elif kind == "ip6":
            headers.append(
                (inet_ntop(AF_INET6, packet[at + 8 : at + 24]), inet_ntop(AF_INET6, packet[at + 24 : at + 40]))
            )
    at = layers[-1][1]
    headers.append(
        (str(int.from_bytes(packet[at : at + 2], "big")), str(int.from_bytes(packet[at + 2 : at + 4], "big")))
    )
    return headers


def varied(make: Callable[[Fields], bytes]) -> list[bytes]:
    made: list[bytes] = []

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(VARIED)
    def vary(fields: Fields) -> None:
        made.append(make(fields))

    vary()
    return made


@pytest.fixture(scope="module")
def read_by_tshark(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[bytes, list[tuple[str, ...]]]]]:
    """Kind -> its packets, each with what tshark reads in it; in one run of tshark, which takes its time to start."""
    made = {name: varied(ALL_KINDS[name][1]) for name in ALL_KINDS if name not in UNKNOWN_TO_TSHARK}
    path = tmp_path_factory.mktemp("tshark") / "made.pcapng"
    write(path, [(ALL_KINDS[name][0], packet) for name, packets in made.items() for packet in packets])
    rows = iter(as_tshark_reads(path))
    read = {name: [(packet, next(rows)) for packet in packets] for name, packets in made.items()}
    assert next(rows, None) is None
    return read


@pytest.mark.parametrize("name", UNKNOWN_TO_TSHARK)
@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("flag", [False, True])
def test_as_it_was_made(name: str, six: bool, flag: bool) -> None:
    """Of link types that tshark does not read, what the packet was made of is the oracle."""
    link, make = MORE_KINDS[name]
    fields = Fields(six=six, flag=flag, vlan=7 * flag)
    wanted = ("2001:db8::1", "2001:db8::2") if six else ("10.1.2.3", "10.4.5.6")
    assert as_we_read(make(fields), link) == [wanted, ("40000", "50000")]


@needs_tshark
@pytest.mark.parametrize("name", [name for name in ALL_KINDS if name not in UNKNOWN_TO_TSHARK])
def test_as_tshark_reads_it(name: str, read_by_tshark: dict[str, list[tuple[bytes, list[tuple[str, ...]]]]]) -> None:
    assert read_by_tshark[name]
    for packet, theirs in read_by_tshark[name]:
        assert as_we_read(packet, ALL_KINDS[name][0]) == theirs, packet.hex()


@pytest.mark.parametrize("name", ALL_KINDS)
def test_cut_anywhere_no_header_is_believed_that_is_not_there(name: str) -> None:
    link, make = ALL_KINDS[name]
    packet = make(Fields())
    whole = explain(packet, link)[0]
    for size in range(len(packet)):
        layers, outcome, at, *_ = explain(packet[:size], link)
        assert at <= size
        for mine, theirs in zip(layers, whole, strict=False):
            assert mine[:2] == theirs[:2] or outcome != "transport"
