"""Live interfaces: what is received and what reading costs, beside tcpdump and a bare ring reader in C; what goes
through to a second interface, beside the kernel's bridge and a bare forwarder in C: packets at rates, with the latency
that is added, and TCP and UDP with the offloads at their defaults. One sender, in turn, in network namespaces of its
own.

    sudo .venv/bin/python bench/peers_live.py                        # as root
    sudo .venv/bin/python bench/peers_live.py --packets 500000 --rounds 3 --lengths 60

left `end` -> `west` (reading happens here) `east` -> `end` right. The C programs are compiled from bench/programs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.streamcore.namespaces import Namespace, join, namespaces, why_not  # noqa: E402

PROGRAMS = ROOT / "bench" / "programs"
COMMAND = [sys.executable, "-m", "streamcore", "run"]
LATENCY_RATE, LATENCY_LENGTH = 10_000, 200
READY_S, SETTLE_S, DRAIN_S = 20.0, 0.5, 1.5  # tcpdump hands over what it has once a second
BASE = "ring reader"
BRIDGE, FORWARDER = "kernel bridge", "forwarder"
CARRIERS = (FORWARDER, "ours", BRIDGE)
RATE_S, STREAM_S, UDP_RATE = 2.0, 3, "500M"


@dataclass
class Row:
    """The runs of one reader: shares of what was sent, drops that it tells of, share of a core while sending."""

    received: list[int] = field(default_factory=list)
    drops: list[int] = field(default_factory=list)
    core: list[float] = field(default_factory=list)
    sent_s: list[float] = field(default_factory=list)


def cpu_s(process: int) -> float:
    """Processor time of a process, of its threads, and of what it started."""
    total = 0.0
    for task in Path(f"/proc/{process}/task").glob("*"):
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0]) / 1e9
            total += sum(cpu_s(int(child)) for child in (task / "children").read_text().split())
    return total


def open_rings(process: int) -> int:
    """How many packet sockets are bound in the namespace of a process."""
    lines = Path(f"/proc/{process}/net/packet").read_text().splitlines()[1:]
    return sum(line.split()[5] == "1" for line in lines)


@contextlib.contextmanager
def reading(where: Namespace, command: list[str], rings: int = 1) -> Iterator[subprocess.Popen[str]]:
    """A reader that is ready; it is ended afterwards, however this ends."""
    process = where.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + READY_S
        while open_rings(where.pid) < rings:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise SystemExit(f"{command[0]} does not read: {process.communicate()[1]}")
            time.sleep(0.02)
        time.sleep(SETTLE_S)
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGINT if "tcpdump" in process.args else signal.SIGTERM)  # type: ignore[operator]
    return process.communicate(timeout=30)


def counts_of(output: str, words: str) -> tuple[int, int]:
    """(packets received, packets dropped) as a reader tells them."""
    if captured := re.search(r"(\d+) packets? captured", words):
        dropped = re.search(r"(\d+) packets? dropped by kernel", words)
        return int(captured[1]), int(dropped[1]) if dropped else 0
    told = json.loads(output.strip().splitlines()[-1])
    if isinstance(told["packets"], dict):
        return told["packets"]["read"], told.get("live", {}).get("dropped", {}).get("kernel.dropped", 0)
    return told["packets"], told["drops"]


def send(left: Namespace, sender: Path, packets: int, length: int, rate: int = 0) -> float:
    """Send; returns the seconds that it took."""
    done = left.run(sender, "end", packets, length, *([rate] if rate else []))
    return float(json.loads(done.stdout)["seconds"])


def receive(flags: argparse.Namespace, places: tuple[Namespace, ...], built: Path, length: int) -> dict[str, Row]:
    left, middle, _ = places
    commands: dict[str, list[str]] = {
        BASE: [str(built / "ring_reader"), "west"],
        "tcpdump": ["tcpdump", "-i", "west", "-w", "/dev/null"],
        "our source": [sys.executable, str(PROGRAMS / "streamcore_receive.py"), "west"],
        "our pipeline": [*COMMAND, "-i", "west", "-w", "/dev/null", "-n", "1", "--json", "-q"],
    }
    rows = {name: Row() for name in commands}
    for _ in range(flags.rounds):
        for name, command in commands.items():
            with reading(middle, command) as process:
                before_s = cpu_s(process.pid)
                sent_s = send(left, built / "packet_sender", flags.packets, length)
                time.sleep(DRAIN_S)
                took_s = cpu_s(process.pid) - before_s
                received, drops = counts_of(*finish(process))
            add(rows[name], received, drops, took_s / sent_s, sent_s)
    return rows


def forward(flags: argparse.Namespace, places: tuple[Namespace, ...], built: Path, length: int) -> dict[str, Row]:
    """West to east with identity: what the bare reader receives at the far end."""
    left, middle, right = places
    command = [*COMMAND, "-i", "west", "-o", "east", "-n", "1", "--service", "identity", "-q", "--json"]
    row = Row()
    for _ in range(flags.rounds):
        with reading(right, [str(built / "ring_reader"), "end"]) as far, reading(middle, command) as process:
            before_s = cpu_s(process.pid)
            sent_s = send(left, built / "packet_sender", flags.packets, length)
            time.sleep(DRAIN_S)
            took_s = cpu_s(process.pid) - before_s
            _, drops = counts_of(*finish(process))
            received, _ = counts_of(*finish(far))
        add(row, received, drops, took_s / sent_s, sent_s)
    return {"west to east": row}


@contextlib.contextmanager
def carrying(middle: Namespace, name: str, built: Path) -> Iterator[subprocess.Popen[str] | None]:
    """West and east joined, both ways, by the carrier of that name. None: the kernel's bridge, which is no process."""
    if name == BRIDGE:
        words = "ip link add joined type bridge; ip link set west master joined; ip link set east master joined"
        middle.run("sh", "-c", f"{words}; ip link set joined up")
        time.sleep(SETTLE_S)
        try:
            yield None
        finally:
            middle.run("ip", "link", "del", "joined")
        return
    command = [str(built / "forwarder"), "west", "east"]
    if name != FORWARDER:
        command = [*COMMAND, "-i", "west", "-o", "east", "--both", "-n", "1", "--service", "identity", "-q", "--json"]
    with reading(middle, command, 2) as process:
        yield process


def at_rates(flags: argparse.Namespace, places: tuple[Namespace, ...], built: Path) -> str:
    """Packets of LATENCY_LENGTH bytes from west to east: what arrives, how late, and for how much of a core."""
    left, middle, right = places
    lines = [f"{'packets a second':<18}{'':<14}{'arrived':>9}{'median us':>11}{'99 % us':>10}{'core':>8}"]
    for rate in (1_000, 10_000, 100_000, 400_000):
        told: dict[str, list[tuple[float, ...]]] = {name: [] for name in CARRIERS}
        for _ in range(flags.rounds):
            for name in CARRIERS:
                far_command = [str(built / "ring_reader"), "end", "latency"]
                with carrying(middle, name, built) as process, reading(right, far_command) as far:
                    before_s = cpu_s(process.pid) if process is not None else 0.0
                    sent_s = send(left, built / "packet_sender", int(rate * RATE_S), LATENCY_LENGTH, rate)
                    took_s = cpu_s(process.pid) - before_s if process is not None else float("nan")
                    time.sleep(SETTLE_S)
                    heard = json.loads(finish(far)[0])
                late = heard.get("median_us", float("nan")), heard.get("most_us", float("nan"))
                told[name].append((heard["packets"] / int(rate * RATE_S), *late, took_s / sent_s))
        for name, rows in told.items():
            arrived, median_us, most_us, core = (statistics.median(each) for each in zip(*rows, strict=True))
            lines.append(f"{rate:<18,}{name:<14}{arrived:>9.1%}{median_us:>11,.0f}{most_us:>10,.0f}{core:>8.1%}")
    return "\n".join(lines)


def streams(flags: argparse.Namespace, built: Path) -> str:
    """TCP each way and UDP at UDP_RATE with iperf3, offloads at their defaults: medians, and ratios to the forwarder
    in the same round."""
    if shutil.which("iperf3") is None:
        return "TCP and UDP are not measured: iperf3 is missing"
    told: dict[str, list[tuple[float, ...]]] = {name: [] for name in CARRIERS}
    for _ in range(flags.rounds):
        for name in CARRIERS:
            with three(offloads=True) as (left, middle, right), carrying(middle, name, built):
                left.run("ip", "address", "add", "10.9.0.1/24", "dev", "end")
                right.run("ip", "address", "add", "10.9.0.2/24", "dev", "end")
                left.run("ping", "-c", "3", "-i", "0.2", "-W", "5", "10.9.0.2")
                ways = [iperf(left, right, *words) for words in ((), ("-R",), ("-u", "-b", UDP_RATE))]
                told[name].append((*(way["sum_received"]["bits_per_second"] / 1e6 for way in ways[:2]),
                                   ways[2]["sum"]["lost_percent"]))  # fmt: skip
    lines = [f"{'':<14}{'TCP Mbit/s':>12}{'back':>10}{'x forwarder':>13}{'back':>8}{f'UDP {UDP_RATE} lost':>16}"]
    for name, rows in told.items():
        forth, back, lost = (statistics.median(each) for each in zip(*rows, strict=True))
        ratios = [
            statistics.median(row[i] / other[i] for row, other in zip(rows, told[FORWARDER], strict=True))
            for i in (0, 1)
        ]
        lines.append(f"{name:<14}{forth:>12,.0f}{back:>10,.0f}{ratios[0]:>13.2f}{ratios[1]:>8.2f}{lost:>15.2f}%")
    return "\n".join(lines)


def iperf(left: Namespace, right: Namespace, *words: str) -> dict[str, Any]:
    """What iperf3 measures from left to right."""
    server = right.start("iperf3", "-s", "-1", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        time.sleep(SETTLE_S)
        done = left.run("iperf3", "-c", "10.9.0.2", "-t", STREAM_S, "-J", *words)
        return json.loads(done.stdout)["end"]  # type: ignore[no-any-return]
    finally:
        server.kill()
        server.communicate()


def add(row: Row, received: int, drops: int, core: float, sent_s: float) -> None:
    row.received.append(received)
    row.drops.append(drops)
    row.core.append(core)
    row.sent_s.append(sent_s)


def latency(flags: argparse.Namespace, places: tuple[Namespace, ...], built: Path, through: bool) -> dict[str, float]:
    """Microseconds from sending to the kernel's receiving at the far end; without us: as far as west."""
    left, middle, right = places
    reader = [str(built / "ring_reader"), "end" if through else "west", "latency"]
    command = [*COMMAND, "-i", "west", "-o", "east", "-n", "1", "--segment-ms", "1", "-q", "--json"]
    with contextlib.ExitStack() as stack:
        far = stack.enter_context(reading(right if through else middle, reader))
        if through:
            stack.enter_context(reading(middle, command))
        send(left, built / "packet_sender", flags.latency_packets, LATENCY_LENGTH, LATENCY_RATE)
        time.sleep(SETTLE_S)
        return json.loads(finish(far)[0])  # type: ignore[no-any-return]


def table(title: str, rows: dict[str, Row], packets: int, base: Row) -> str:
    """Medians. `x` columns: to the bare reader in the same round."""
    lines = [
        f"{title}\n{'':<16}{'sent /s':>12}{'received':>12}{'of sent':>9}{'drops told':>12}{'core':>8}{'x reader':>10}"
    ]
    for name, row in rows.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(row.core, base.core, strict=True))
        received = statistics.median(row.received)
        lines.append(
            f"{name:<16}{packets / statistics.median(row.sent_s):>12,.0f}{received:>12,.0f}{received / packets:>9.1%}"
            f"{statistics.median(row.drops):>12,.0f}{statistics.median(row.core):>8.1%}{ratio:>10.2f}"
        )
    return "\n".join(lines)


def build(directory: Path) -> None:
    for name in ("ring_reader", "packet_sender", "forwarder"):
        subprocess.run(["gcc", "-O2", "-o", directory / name, PROGRAMS / f"{name}.c"], check=True)


@contextlib.contextmanager
def three(offloads: bool = False) -> Iterator[tuple[Namespace, ...]]:
    with namespaces(3) as (left, middle, right):
        join(left, "end", middle, "west", offloads=offloads)
        join(right, "end", middle, "east", offloads=offloads)
        yield left, middle, right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--packets", type=int, default=1_000_000, metavar="N", help="of one run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--lengths", default="60,1514", metavar="LIST", help="of the frames (default: %(default)s)")
    parser.add_argument("--latency-packets", type=int, default=50_000, metavar="N", help="(default: %(default)s)")
    flags = parser.parse_args()
    if reason := why_not():
        raise SystemExit(f"cannot measure here: {reason}")
    print(
        f"{platform.machine()}, Linux {platform.release()}, {len(os.sched_getaffinity(0))} cores, {flags.rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as directory, three() as places:
        built = Path(directory)
        build(built)
        for length in map(int, flags.lengths.split(",")):
            rows = receive(flags, places, built, length)
            print(table(f"\n{length} bytes, received", rows, flags.packets, rows[BASE]), flush=True)
            through = forward(flags, places, built, length)
            print(table(f"{length} bytes, through", through, flags.packets, rows[BASE]), flush=True)
        print(f"\nthrough, {LATENCY_LENGTH} bytes\n{at_rates(flags, places, built)}", flush=True)
        print(f"\nthrough, offloads at their defaults\n{streams(flags, built)}", flush=True)
        print(f"\nlatency at {LATENCY_RATE:,} packets a second of {LATENCY_LENGTH} bytes, --segment-ms 1, microseconds")
        print(f"{'':<16}{'median':>10}{'99 %':>10}{'most':>10}{'packets':>10}")
        for name, by_us in (("to west", False), ("west to east", True)):
            told = latency(flags, places, built, by_us)
            print(
                f"{name:<16}{told['median_us']:>10,.0f}{told['most_us']:>10,.0f}{told['max_us']:>10,.0f}"
                f"{told['stamped']:>10,.0f}"
            )


if __name__ == "__main__":
    main()
