"""Sending on a veth pair: our sender beside one in C that makes its packets in a loop, and sends them likewise.

Needs root, for the namespaces; nobody reads at the other end. The C program's own seconds count, not its start.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.packets import Arena, Outgoing
from streamcore.sink.live import LiveSink
from streamcore.source.capture import CaptureSource

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.streamcore.namespaces import Namespace, join, namespaces, why_not  # noqa: E402

PACKETS, ROUNDS = 1_000, 50
LENGTHS = {"small64": 60, "tcp1514": 1514}  # of the frames, without checksum
REASON = why_not()

pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.fixture(scope="module")
def near() -> Iterator[Namespace]:
    with namespaces(2) as (left, right):
        join(left, "near", right, "far")
        yield left


@pytest.mark.parametrize("shape", LENGTHS)
def test_live_sink(
    benchmark: Any, per_packet: Callable[[int], None], capture_of: Callable[..., Path], near: Namespace, shape: str
) -> None:
    with CaptureSource(capture_of(shape, PACKETS), Arena(64, 4 << 20, 65_536)) as source:
        batches = list(source)
    count = sum(len(batch) for batch in batches)
    with near.entered():
        sink = LiveSink(Config(read="-", output_interface="near", replay=0), Counters())

    def send() -> None:
        assert sum(sink.write(Outgoing(batch, 0, len(batch)))[0] for batch in batches) == count

    benchmark.pedantic(send, rounds=ROUNDS)
    sink.close()
    per_packet(count)


@pytest.mark.peer
@pytest.mark.parametrize("shape", LENGTHS)
def test_c_sender(benchmark: Any, near: Namespace, tmp_path: Path, shape: str) -> None:
    program = tmp_path / "packet_sender"
    subprocess.run(["gcc", "-O2", "-o", program, ROOT / "bench" / "programs" / "packet_sender.c"], check=True)
    seconds = []

    def send() -> None:
        told = json.loads(near.run(program, "near", PACKETS, LENGTHS[shape]).stdout)
        assert told["sent"] == PACKETS
        seconds.append(told["seconds"])

    benchmark.pedantic(send, rounds=ROUNDS)
    benchmark.extra_info["ns_per_packet"] = min(seconds) / PACKETS * 1e9
    print(f"{shape}: {benchmark.extra_info['ns_per_packet']:.0f} ns a packet, by its own clock")
