"""Whole commands on the same capture, ours and others', in turn, start to exit: time, processor time, memory, ratios.

    python bench/peers.py                                  # all captures of at least 1.5 GB, all peers
    python bench/peers.py --captures small64 --packets 5000000 --peers cp,tcpdump,identity --rounds 5

What the commands are stands in roster.py, how one is measured in measure.py, what the captures hold in captures.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import captures
import measure
from roster import Peer, peers, prototypes

# Small frames: 25 million make 1.9 GB. The others about 1.5 GB. `start` is what starting and stopping takes.
SECTIONS = {"small64": 25_000_000, "imix": 4_200_000, "tcp1514": 1_000_000, "start": 100}
START_SHAPE = "imix"

# What the project promises: (what is quoted, numerator, denominator), as a ratio of rates.
QUOTED = (
    ("identity, times tcpdump", "identity", "tcpdump"),
    ("identity, times cp", "identity", "cp"),
    ("anonymise, times traceanon", "anonymise", "traceanon"),
    ("read in Python, times dpkt", "read", "dpkt"),
    ("read in Python, times NFStream", "read", "nfstream"),
    ("identity, times NFStream", "identity", "nfstream"),
    ("flows to IPFIX, times nfpcapd", "flows-ipfix", "nfpcapd"),
    ("flows to IPFIX, times NFStream", "flows-ipfix", "nfstream"),
    ("flows to JSON, times NFStream", "flows", "nfstream"),
    ("packets, times tshark -T fields", "packets", "tshark"),
    ("filter, times tcpdump's", "filter", "tcpdump-filter"),
    ("merge, times mergecap", "merge", "mergecap"),
    ("split, times editcap", "split", "editcap-split"),
)


@dataclass
class Row:
    """The runs of one peer on one capture. Seconds are of the whole capture: scaled where it read a prefix only."""

    name: str
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    notes: list[str] = field(default_factory=list)

    def add(self, run: measure.Run, peer: Peer, packets: int) -> None:
        told = {"loop_s": 0.0} | (json.loads(run.output) if run.output.startswith("{") else {})
        scale = 1.0
        if peer.prefix_packets and peer.prefix_packets < packets:
            # What it takes to start is not scaled, only the loop over packets.
            scale = (run.wall_s - told["loop_s"] + told["loop_s"] * packets / told["packets"]) / run.wall_s
            self.note(f"scaled from the first {told['packets']:,} packets")
        elif "flows" in told:
            self.note(f"{told['flows']:,} flows")
        self.wall_s.append(run.wall_s * scale)
        self.cpu_s.append(run.cpu_s * scale)

    def note(self, words: str) -> None:
        if words not in self.notes:
            self.notes.append(words)


def ratio(numerator: Row, denominator: Row) -> float:
    """How many times the time of `denominator` the `numerator` took: the median over rounds of the ratio in a round."""
    return statistics.median(n / d for n, d in zip(numerator.wall_s, denominator.wall_s, strict=True))


def same_packets(source: Path, target: Path) -> bool:
    """Whether two pcap files agree behind their file headers (in which the snap length may differ)."""
    if source.stat().st_size != target.stat().st_size:
        return False
    with open(source, "rb") as one, open(target, "rb") as other:
        one.seek(24)
        other.seek(24)
        while piece := one.read(1 << 20):
            if piece != other.read(1 << 20):
                return False
    return True


def measured(
    section: str, source: Path, packets: int, chosen: list[Peer], flags: argparse.Namespace, scratch: Path
) -> list[Row]:
    """Round 0 samples memory, checks what was written and drops the peers that fail; then come the timed rounds."""
    rows = {peer.name: Row(peer.name) for peer in chosen}
    running = list(chosen)
    outputs, firsts = (
        scratch / "outputs",
        scratch / "firsts",
    )  # what one command wrote; what the first one of those alike did
    firsts.mkdir()
    for number in range(flags.rounds + 1):
        for peer in list(running):
            outputs.mkdir()
            target = outputs / f"out-{source.name}"
            run = measure.run(peer.command(source, target), timeout_s=flags.timeout, sample_memory=number == 0)
            wrote = target.exists() and target.stat().st_size > 0
            if run.status != 0 or (peer.writes and not wrote):
                reason = run.complaint or ("wrote nothing" if run.status == 0 else "no message")
                print(f"{section}: {peer.name} left out: exit status {run.status}: {reason}", file=sys.stderr)
                running.remove(peer)
                del rows[peer.name]
            elif number == 0:
                rows[peer.name].peak_bytes = run.peak_bytes
                if peer.copies and flags.format == "pcap" and not same_packets(source, target):
                    rows[peer.name].note("OUTPUT DIFFERS FROM INPUT")
                if peer.alike:
                    first = firsts / peer.alike
                    if not first.exists():
                        target.rename(first)
                    elif not same_packets(first, target):
                        rows[peer.name].note("OUTPUT DIFFERS FROM THE OTHER'S")
            else:
                rows[peer.name].add(run, peer, packets)
            shutil.rmtree(outputs)
            progress(f"{section}: round {number} of {flags.rounds}: {peer.name} {run.wall_s:.2f} s")
        if number == 0:
            shutil.rmtree(firsts)
    return list(rows.values())


def table(rows: list[Row], packets: int) -> str:
    """The rows in words: medians, the spread of the wall time, and the ratio of times to the first row."""
    first = rows[0]
    lines = [
        f"{'command':<16}{'wall s':>10}{'(min to max)':>22}{'Mpackets/s':>12}{'x ' + first.name:>14}"
        f"{'cpu s':>10}{'peak MB':>9}  notes"
    ]
    for row in rows:
        wall_s = statistics.median(row.wall_s)
        spread = f"({min(row.wall_s):.3f} to {max(row.wall_s):.3f})"
        memory = "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.1f}"
        lines.append(
            f"{row.name:<16}{wall_s:>10.3f}{spread:>22}{packets / wall_s / 1e6:>12.4f}{ratio(row, first):>14.2f}"
            f"{statistics.median(row.cpu_s):>10.3f}{memory:>9}  {', '.join(row.notes)}"
        )
    return "\n".join(lines)


def quoted(rows: list[Row]) -> dict[str, dict[str, float]]:
    """What the project quotes, as ratios of rates: the median over rounds, and best run against best run.

    The second is the steadier one where others use the machine: a short command may miss them, a long one cannot.
    """
    by_name = {row.name: row for row in rows}
    return {
        words: {
            "median": ratio(by_name[denominator], by_name[numerator]),
            "best": min(by_name[denominator].wall_s) / min(by_name[numerator].wall_s),
        }
        for words, numerator, denominator in QUOTED
        if numerator in by_name and denominator in by_name
    }


def apart(rows: dict[str, list[Row]]) -> list[str]:
    """What is quoted of each capture without what starting and stopping takes, which `start` measured: best runs."""
    start_s = {row.name: min(row.wall_s) for row in rows.get("start", [])}
    lines = []
    for section, measured_rows in rows.items():
        rest_s = {row.name: min(row.wall_s) - start_s[row.name] for row in measured_rows if row.name in start_s}
        for words, numerator, denominator in QUOTED:
            if section != "start" and rest_s.get(numerator, 0) > 0 and rest_s.get(denominator, 0) > 0:
                lines.append(f"  {section}: {words}: {rest_s[denominator] / rest_s[numerator]:.2f}")
    return lines


def machine() -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": model or platform.machine(),
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def progress(words: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)


def make_capture(section: str, packets: int, flags: argparse.Namespace, scratch: Path) -> tuple[Path, bool]:
    """(its path, whether an earlier run had left it there)."""
    shape = captures.SHAPES[START_SHAPE if section == "start" else section]
    path: Path = flags.directory / f"{section}-{packets}-{flags.resolution}.{flags.format}"
    if path.exists():
        return path, True
    progress(f"making {path}")
    with open(scratch / path.name, "wb", buffering=0) as output:
        captures.write(output, shape, packets, format=flags.format, resolution=flags.resolution)
    (scratch / path.name).rename(path)
    return path, False


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure whole commands beside each other on the same captures.")
    parser.add_argument("--captures", default=",".join(SECTIONS), help="which, of %(default)s")
    parser.add_argument("--packets", type=int, help="in every capture but `start` (default: at least 1.5 GB each)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, after one that samples memory")
    parser.add_argument("--peers", help="names, the first is what ratios are to (default: all that are installed)")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm/streamcore-bench"), help="on tmpfs")
    parser.add_argument("--keep", action="store_true", help="leave the captures there for the next time")
    parser.add_argument("--format", choices=["pcap", "pcapng"], default="pcap")
    parser.add_argument(
        "--resolution", choices=["us", "ns"], default="us", help="us is what every peer reads and writes"
    )
    parser.add_argument(
        "--limits",
        type=Path,
        action="append",
        default=[],
        metavar="DIR|FILE.c",
        help="C programs that take IN OUT: compiled and run beside the others",
    )
    parser.add_argument("--prefix-packets", type=int, default=20_000, help="what scapy reads; its time is scaled")
    parser.add_argument("--dpkt-packets", type=int, default=1_000_000, help="what dpkt reads; its time is scaled")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one command")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, with every round")
    flags = parser.parse_args(arguments)
    if flags.rounds < 1:
        parser.error("--rounds: a number from 1")
    if unknown := set(flags.captures.split(",")) - set(SECTIONS):
        parser.error(f"--captures: no capture called {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    return flags


def main(arguments: list[str] | None = None) -> int:
    flags = parsed(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is removed then, too
    print(", ".join(f"{name} {value}" for name, value in machine().items()), file=sys.stderr)
    existed = flags.directory.exists()
    flags.directory.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="run-", dir=flags.directory) as scratch:
            sections = compare(flags, Path(scratch))
    finally:
        if not existed and not flags.keep:
            flags.directory.rmdir()
    if flags.json:
        print(json.dumps({"machine": machine(), "sections": sections}))
    return 0


def compare(flags: argparse.Namespace, scratch: Path) -> dict[str, object]:
    """Measures section after section and prints each when it is done. Nothing but captures stands outside `scratch`."""
    sections: dict[str, object] = {}
    all_rows: dict[str, list[Row]] = {}
    chosen = choose(flags, scratch)
    for section in flags.captures.split(","):
        packets = SECTIONS[section] if section == "start" or flags.packets is None else flags.packets
        source, was_there = make_capture(section, packets, flags, scratch)
        try:
            rows = measured(section, source, packets, chosen, flags, scratch)
            size = source.stat().st_size
        finally:
            if not flags.keep and not was_there:
                source.unlink()
        progress("")
        if not rows:
            continue
        all_rows[section] = rows
        figures = {"packets": packets, "bytes": size, "rows": [asdict(row) for row in rows], "quoted": quoted(rows)}
        sections[section] = figures
        if not flags.json:
            print(f"\n{section}: {packets:,} packets, {size:,} bytes, {flags.rounds} rounds in turn")
            print(table(rows, packets), flush=True)
            for words, of in quoted(rows).items() if section != "start" else ():
                print(f"  {words}: {of['median']:.2f} (best against best: {of['best']:.2f})", flush=True)
    if not flags.json and (lines := apart(all_rows)):
        print("\nwithout what starting takes:", *lines, sep="\n", flush=True)
    return sections


def choose(flags: argparse.Namespace, scratch: Path) -> list[Peer]:
    """The peers asked for that can run here; names the others on standard error."""
    available, missing = peers(flags)
    compiled, uncompiled = prototypes(flags.limits, scratch)
    if flags.peers:
        by_name = {peer.name: peer for peer in available}
        wanted = flags.peers.split(",")
        missing = {name: missing.get(name, "no peer of that name") for name in wanted if name not in by_name}
        available = [by_name[name] for name in wanted if name in by_name]
    for name, reason in (missing | uncompiled).items():
        print(f"{name} left out: {reason}", file=sys.stderr)
    return available + compiled


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
