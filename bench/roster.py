"""The commands that are measured beside each other: ours, others' programs, others' libraries, prototypes.

Each is what a user would type for the same job. Not here: running them.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
FILTER = "udp port 443"
SPLIT_MB, SPLIT_S = 61, 0.05  # of a file; the captures have as many bytes in that time
KEY = "0123456789abcdef0123456789abcdef"  # Crypto-PAn's 32 bytes, as both traceanon and ours take them


@dataclass(frozen=True)
class Peer:
    """One command. `copies`: its output must hold the input's packets; `prefix_packets`: it reads only so many;
    `alike`: peers of one such name must write the same packets."""

    name: str
    command: Callable[[Path, Path], list[str]]
    writes: bool = True
    copies: bool = False
    prefix_packets: int | None = None
    alike: str = ""


def peers(flags: argparse.Namespace) -> tuple[list[Peer], dict[str, str]]:
    """(those that can run here, {name: why not})."""
    available: list[Peer] = []
    missing: dict[str, str] = {}
    for find in (_ours, _programs, _libraries):
        found, lacking = find(flags)
        available += found
        missing |= lacking
    order = ["cp", "tcpdump", "editcap", "traceanon", "dpkt", "scapy", "nfstream", "identity", "anonymise", "read",
             "nfpcapd", "flows", "flows-ipfix", "tshark", "packets", "tcpdump-filter", "filter", "mergecap", "merge",
             "editcap-split", "split"]  # fmt: skip
    return sorted(available, key=lambda peer: order.index(peer.name)), missing


def _ours(flags: argparse.Namespace) -> tuple[list[Peer], dict[str, str]]:
    beside = Path(sys.executable).parent / "streamcore"
    command = str(beside) if beside.exists() else shutil.which("streamcore")
    names = ("identity", "anonymise", "read", "flows", "flows-ipfix", "packets", "filter", "merge", "split")
    if command is None:
        return [], dict.fromkeys(names, "streamcore is not installed: make build")

    def running(service: str) -> Callable[[Path, Path], list[str]]:
        how = ["--policy", "flow", "--order", "total", "--service", service, "-n", "1", "-q"]
        return lambda source, target: [command, "run", "-r", str(source), "-w", str(target), *how]

    def reading(source: Path, target: Path) -> list[str]:
        return [sys.executable, str(PROGRAMS / "streamcore_parse.py"), str(source)]

    def run(*words: str, inputs: int = 1) -> Callable[[Path, Path], list[str]]:
        return lambda source, target: [
            command, "run", *(["-r", str(source)] * inputs), "-w", str(target), "-n", "1", "-q", *words
        ]  # fmt: skip

    ours = [
        Peer("identity", running("identity"), copies=True),
        Peer("anonymise", running(f"anonymise:key={KEY}")),
        Peer("read", reading, writes=False),
        Peer("flows", lambda source, target: [command, "flows", "-r", str(source), "--json", str(target)]),
        Peer("flows-ipfix", lambda source, target: [command, "flows", "-r", str(source), "--ipfix", str(target)]),
        Peer("packets", lambda source, target: [command, "packets", "-r", str(source), "--tsv", str(target)]),
        Peer("filter", run(FILTER), alike="filter"),
        Peer("split", run("-C", str(SPLIT_MB)), writes=False),
    ]
    if "--inputs" not in subprocess.run([command, "run", "--help"], capture_output=True, text=True, check=False).stdout:
        return ours, {"merge": "this revision reads one capture at a time"}
    return [*ours, Peer("merge", run(inputs=2), alike="merge")], {}


def _programs(flags: argparse.Namespace) -> tuple[list[Peer], dict[str, str]]:
    form = "pcapng" if flags.format == "pcapng" else "nsecpcap" if flags.resolution == "ns" else "pcap"
    known = [
        (Peer("cp", lambda source, target: ["cp", str(source), str(target)], copies=True), "coreutils"),
        (
            # It writes pcap in microseconds whatever it reads.
            Peer(
                "tcpdump",
                lambda source, target: ["tcpdump", "-r", str(source), "-w", str(target)],
                copies=flags.format == "pcap" and flags.resolution == "us",
            ),
            "tcpdump",
        ),
        (
            Peer("editcap", lambda source, target: ["editcap", "-F", form, str(source), str(target)], copies=True),
            "wireshark-common",
        ),
        (
            Peer(
                "traceanon",
                lambda source, target: ["traceanon", "-s", "-d", "-c", KEY, f"pcapfile:{source}", f"pcapfile:{target}"],
            ),
            "libtrace-tools",
        ),
    ]
    known += [
        (Peer("nfpcapd", _nfpcapd, writes=False), "nfdump"),
        (Peer("tshark", _tshark), "tshark"),
        (
            Peer(
                "tcpdump-filter",
                lambda source, target: ["tcpdump", "-r", str(source), "-w", str(target), FILTER],
                alike="filter" if flags.format == "pcap" and flags.resolution == "us" else "",
            ),
            "tcpdump",
        ),
        (
            Peer(
                "mergecap",
                lambda source, target: ["mergecap", "-F", form, "-w", str(target), str(source), str(source)],
                alike="merge",
            ),
            "wireshark-common",
        ),
        (
            Peer(
                "editcap-split",
                lambda source, target: ["editcap", "-F", form, "-i", str(SPLIT_S), str(source), str(target)],
                writes=False,
            ),
            "wireshark-common",
        ),
    ]

    def is_there(peer: Peer) -> bool:
        return shutil.which(peer.name.partition("-")[0]) is not None

    available = [peer for peer, _ in known if is_there(peer)]
    missing = {peer.name: f"install {package}" for peer, package in known if not is_there(peer)}
    return available, missing


# The columns of `streamcore packets` that tshark has, without what tells tunnels apart.
TSHARK_FIELDS = (
    "frame.number", "frame.time_epoch", "frame.len", "frame.cap_len", "vlan.id", "ip.version", "ip.src", "ip.dst",
    "ipv6.src", "ipv6.dst", "ip.proto", "ipv6.nxt", "tcp.srcport", "tcp.dstport", "udp.srcport", "udp.dstport",
    "ip.frag_offset",
)  # fmt: skip


def _tshark(source: Path, target: Path) -> list[str]:
    """Without names, and without what takes TCP's streams together, which our table does not have either."""
    words = ["tshark", "-n", "-r", str(source), "-T", "fields"]
    for protocol in ("tcp.desegment_tcp_streams", "tcp.analyze_sequence_numbers"):
        words += ["-o", f"{protocol}:FALSE"]
    words += [word for field in TSHARK_FIELDS for word in ("-e", field)]
    return ["sh", "-c", 'exec "$@" > "$0"', str(target), *words]


def _nfpcapd(source: Path, target: Path) -> list[str]:
    """It writes a file into the folder of the target."""
    return ["nfpcapd", "-r", str(source), "-w", str(target.parent), "-t", "3600"]


def _libraries(flags: argparse.Namespace) -> tuple[list[Peer], dict[str, str]]:
    def program(name: str, *more: str) -> Callable[[Path, Path], list[str]]:
        return lambda source, target: [sys.executable, str(PROGRAMS / name), str(source), *more]

    dpkt_packets, scapy_packets = flags.dpkt_packets, flags.prefix_packets
    known = [
        Peer("dpkt", program("dpkt_parse.py", str(dpkt_packets)), writes=False, prefix_packets=dpkt_packets),
        Peer("scapy", program("scapy_parse.py", str(scapy_packets)), writes=False, prefix_packets=scapy_packets),
        Peer("nfstream", program("nfstream_flows.py"), writes=False),
    ]
    available = [peer for peer in known if importlib.util.find_spec(peer.name)]
    missing = {peer.name: "make peers" for peer in known if not importlib.util.find_spec(peer.name)}
    return available, missing


def prototypes(places: list[Path], directory: Path) -> tuple[list[Peer], dict[str, str]]:
    """Compiles the C programs named, or all in the folders named, into `directory`, for this machine's processor."""
    available: list[Peer] = []
    missing: dict[str, str] = {}
    for source in [path for place in places for path in (sorted(place.glob("*.c")) if place.is_dir() else [place])]:
        program = directory / f"limit-{source.stem}"
        compile = ["cc", "-O3", "-march=native", "-w", "-pthread", "-o", str(program), str(source)]
        try:
            built = subprocess.run(compile, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            missing[source.name] = "no C compiler"
            continue
        if built.returncode:
            missing[source.name] = f"does not compile to a program: {(built.stderr.strip().splitlines() or [''])[-1]}"
            continue
        available.append(Peer(source.stem, _taking_both(program), copies=True))
    return available, missing


def _taking_both(program: Path) -> Callable[[Path, Path], list[str]]:
    return lambda source, target: [str(program), str(source), str(target)]
