"""What the benchmarks share: captures on tmpfs, made once and removed at the end, rounds of one chunk, ns per packet.
conditions.py has the core, the garbage collection and the machine's load.

A benchmark is a `test_…` function in `bench_<stage>.py` that takes `benchmark` (pytest-benchmark) and what it needs
of these.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import captures
import pytest

pytest_plugins = ["conditions"]

# Of each capture: a million packets of 64 bytes; far beyond the caches, quick to make.
SIZE_BYTES = int(os.environ.get("BENCH_CAPTURE_BYTES", "76_000_000"))
TMPFS = Path("/dev/shm")
CHUNK_ROUNDS = 200
PER_PACKET = pytest.StashKey[list[tuple[str, float]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[PER_PACKET] = []


@pytest.fixture(scope="session")
def capture_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory on tmpfs where there is one: idle page cache may be evicted while others run."""
    if given := os.environ.get("BENCH_CAPTURES"):  # compare.py makes them once for all turns, and removes them
        yield Path(given)
        return
    directory = Path(tempfile.mkdtemp(prefix="streamcore-bench-", dir=TMPFS if TMPFS.is_dir() else None))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def capture_of(capture_directory: Path) -> Callable[..., Path]:
    """`capture_of(shape, packets, format="pcap", resolution="us")`: the path of such a capture, made at first use."""

    def made(shape: str, packets: int, *, format: str = "pcap", resolution: str = "us") -> Path:
        path = capture_directory / f"{shape}-{packets}-{resolution}.{format}"
        if not path.exists():
            with open(path, "wb", buffering=0) as output:
                captures.write(output, captures.SHAPES[shape], packets, format=format, resolution=resolution)
        return path

    return made


def usual_packets(shape: str) -> int:
    """How many packets of a shape make SIZE_BYTES, in whole groups of the mixture."""
    sizes = captures.SHAPES[shape].sizes
    group = sum(count for _, count in sizes)
    return SIZE_BYTES // sum((16 + size) * count for size, count in sizes) * group


@pytest.fixture(scope="session")
def small64(capture_of: Callable[..., Path]) -> Path:
    """1,000,000 packets of 64 bytes on the wire, UDP, in 100,000 Zipf flows."""
    return capture_of("small64", usual_packets("small64"))


@pytest.fixture(scope="session")
def imix(capture_of: Callable[..., Path]) -> Path:
    """Simple IMIX 7:4:1 with IPv6, VLAN tags and TCP."""
    return capture_of("imix", usual_packets("imix"))


@pytest.fixture(scope="session")
def tcp1514(capture_of: Callable[..., Path]) -> Path:
    """TCP in frames of 1514 bytes."""
    return capture_of("tcp1514", usual_packets("tcp1514"))


@pytest.fixture(scope="session", params=sorted(captures.SHAPES))
def each_capture(request: pytest.FixtureRequest, capture_of: Callable[..., Path]) -> Path:
    """Each of the three in turn."""
    return capture_of(request.param, usual_packets(request.param))


@pytest.fixture
def per_packet(request: pytest.FixtureRequest, benchmark: Any) -> Callable[[int], None]:
    """Call it with the packets of a round after the benchmark: ns per packet go to extra_info and the closing lines."""

    def tell(packets: int) -> None:
        if benchmark.stats is None:  # --benchmark-disable
            return
        ns_per_packet = benchmark.stats.stats.min / packets * 1e9
        benchmark.extra_info["ns_per_packet"] = ns_per_packet
        benchmark.extra_info["packets"] = packets
        request.config.stash[PER_PACKET].append((request.node.name, ns_per_packet))

    return tell


@pytest.fixture
def chunk_by_chunk(benchmark: Any, per_packet: Callable[[int], None]) -> Callable[..., None]:
    """`chunk_by_chunk(begin)`: measures the chunks of a capture one after another, as a run does, each as a round.

    `begin()` returns an iterator whose every step handles a chunk and gives its packets; it is taken anew, untimed,
    when the next step would be the last, because that chunk is not full.
    """

    def measure(begin: Callable[[], Iterator[int]], rounds: int = CHUNK_ROUNDS) -> None:
        packets = list(begin())[:-1]
        assert packets
        steps: Iterator[int] = iter(())
        done = len(packets)

        def setup() -> None:
            nonlocal steps, done
            if done == len(packets):
                steps, done = begin(), 0
            done += 1

        benchmark.pedantic(lambda: next(steps), setup=setup, rounds=rounds, warmup_rounds=1)
        per_packet(round(sum(packets) / len(packets)))

    return measure


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    measured = config.stash[PER_PACKET]
    if measured:
        terminalreporter.section("ns per packet, best round")
        for name, ns_per_packet in measured:
            terminalreporter.line(f"{ns_per_packet:10.2f}  {1e3 / ns_per_packet:10.2f} Mpackets/s  {name}")
