"""A worker elsewhere beside bare pyzmq: the same message sizes over TCP and CURVE, there and back, in turn in one run.

Ours is the dispatcher in this process and `streamcore worker` in another; bare is a PUSH and a PULL socket on each side
that do nothing else. What the results bring back is the same too: descriptors alone where the packets stay as they
are, all bytes where the service rewrites them. Not here: reading and writing captures.

    python bench/curve.py --rounds 5
"""

from __future__ import annotations

import argparse
import collections
import itertools
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import zmq
from captures import SHAPES, write

from streamcore.core.counters import Counters
from streamcore.core.packets import COLUMN_GROUPS, Arena, PacketBatch, Segment
from streamcore.disperse import envelope
from streamcore.disperse._inline import frame_bytes
from streamcore.disperse.dispatcher import Dispatcher
from streamcore.disperse.remote import make_keys
from streamcore.disperse.workers import Terms
from streamcore.parse.parser import Parser
from streamcore.segment._segmenter import Segmenter
from streamcore.source.capture import CaptureSource

CREDIT = 3  # full-sized segments out with a worker, the default of `credit`
TOUCH = f"{Path(__file__).parent / 'programs' / 'touch.py'}:Touch"
CASES = {"one way": (["identity"], frozenset()), "there and back": ([TOUCH], frozenset({"bytes"}))}
PATIENCE_MS = 20_000
KeyPair = tuple[bytes, bytes]  # public, secret


def sizes_of(segments: list[Segment], back: bool) -> list[tuple[int, int]]:
    """(bytes of the frame there, bytes of the frame back) of each segment."""
    return [
        (frame_bytes(segment), sum(segment.batch.captured_length[segment.index]) + 16 * len(segment) if back else 0)
        for segment in segments
    ]


@contextmanager
def ours(arena: Arena, case: str, keys: Path) -> Iterator[tuple[Dispatcher, int]]:
    """A dispatcher with one worker elsewhere, and that one's process id."""
    services, changes = CASES[case]
    terms = Terms(
        workers=0, chains=[services], changes=[changes], accepted=[lambda *fields: fields],
        deterministic=[True], lease_ms=60_000, attempts_max=3, restarts_max=0, credit=CREDIT,
        segment_bytes=4 << 20, listen="tcp://127.0.0.1:*", key=str(keys / "pipeline.key_secret"),
        worker_keys=str(keys / "known"),
    )  # fmt: skip
    dispatcher = Dispatcher(terms, arena, Counters())
    dispatcher.start()
    worker = subprocess.Popen(
        [sys.executable, "-m", "streamcore", "worker", "--connect", dispatcher.address,
         "--key", keys / "worker.key_secret", "--server-key", keys / "pipeline.key",
         "--allow", TOUCH.rpartition(":")[0]],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield dispatcher, worker.pid
    finally:
        dispatcher.close()
        worker.wait(10)


def time_ours(
    dispatcher: Dispatcher, results: Iterator[object], batch: PacketBatch, segmenter: Segmenter, turns: int
) -> float:
    segments = [segment for _ in range(turns) for segment in segmenter.cut(batch)]
    begin_s = time.perf_counter()
    dispatcher.submit(segments)
    collections.deque(itertools.islice(results, len(segments)), maxlen=0)
    return time.perf_counter() - begin_s


def secured(
    context: zmq.Context, kind: int, server: tuple[bytes, bytes], own: tuple[bytes, bytes] | None
) -> zmq.Socket:
    socket = context.socket(kind)
    if own is None:
        socket.curve_server, socket.curve_secretkey = True, server[1]
    else:
        (socket.curve_publickey, socket.curve_secretkey), socket.curve_serverkey = own, server[0]
    socket.linger = 1000
    return socket


def answer(ports: tuple[int, int], server: tuple[bytes, bytes], own: tuple[bytes, bytes], biggest: int) -> None:
    """The bare peer: each message has the size of the answer that it wants."""
    context = zmq.Context()
    pull, push = secured(context, zmq.PULL, server, own), secured(context, zmq.PUSH, server, own)
    pull.connect(f"tcp://127.0.0.1:{ports[0]}")
    push.connect(f"tcp://127.0.0.1:{ports[1]}")
    region = memoryview(bytearray(b"\x55") * biggest)
    head = envelope.pack(envelope.RESULT, 0, 0, [envelope.Outcome(*[0] * 9, bytes(16))])
    push.send(b"ready")
    while True:
        frames = pull.recv_multipart(copy=False)
        if len(frames) == 1:
            break
        back = int(bytes(frames[0].buffer[-8:]).decode(), 16)
        push.send_multipart([head, region[:back]] if back else [head], copy=False)
    context.destroy()


@contextmanager
def bare(biggest: int) -> Iterator[tuple[zmq.Socket, zmq.Socket, int]]:
    context = zmq.Context()
    server, own = zmq.curve_keypair(), zmq.curve_keypair()
    push, pull = secured(context, zmq.PUSH, server, None), secured(context, zmq.PULL, server, None)
    ports = tuple(socket.bind_to_random_port("tcp://127.0.0.1") for socket in (push, pull))
    peer = multiprocessing.get_context("spawn").Process(target=answer, args=(ports, server, own, biggest))
    peer.start()
    try:
        if not pull.poll(PATIENCE_MS):
            raise SystemExit("the bare peer does not answer")
        pull.recv()
        assert peer.pid is not None
        yield push, pull, peer.pid
    finally:
        with suppress(zmq.Again):  # it never came
            push.send(b"stop", zmq.NOBLOCK)
        peer.join(10)
        context.destroy()


def time_bare(push: zmq.Socket, pull: zmq.Socket, sizes: list[tuple[int, int]], turns: int) -> float:
    """The same messages with as many bytes out at once as our credit allows."""
    data = memoryview(bytearray(b"\xaa") * max(there for there, _ in sizes))
    head = envelope.pack(envelope.WORK, 0, 0, [envelope.Work(*[0] * len(envelope.Work._fields))])[:-8]
    outside = min(32, max(1, CREDIT * (4 << 20) // max(there for there, _ in sizes)))
    waiting, out = turns * len(sizes), 0
    wanted = itertools.cycle(sizes)
    begin_s = time.perf_counter()
    while waiting or out:
        while waiting and out < outside:
            there, back = next(wanted)
            push.send_multipart([head + f"{back:08x}".encode(), data[:there]], copy=False)
            waiting, out = waiting - 1, out + 1
        pull.recv_multipart(copy=False)
        out -= 1
    return time.perf_counter() - begin_s


def processor_s(pid: int) -> float:
    """Processor time of this process and that one, with all their threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(shape: str, case: str, lanes: int, rounds: int, target_bytes: int, keys: Path) -> None:
    arena = Arena(2, 4 << 20, 65_536, shared=True)
    batch = next(iter(CaptureSource(keys / f"{shape}.pcap", arena)))
    if lanes > 1:
        Parser()(batch, COLUMN_GROUPS["flow"])
    segmenter = Segmenter("flow" if lanes > 1 else "run", lanes=lanes)  # which numbers all segments of this arena
    sizes = sizes_of(segmenter.cut(batch), case != "one way")
    there = sum(size for size, _ in sizes)
    turns = max(1, target_bytes // there)
    gigabytes = turns * there / 1e9
    walls: dict[str, list[float]] = {"bare": [], "ours": []}
    processors: dict[str, list[float]] = {"bare": [], "ours": []}
    with (
        ours(arena, case, keys) as (dispatcher, worker),
        bare(max(back for _, back in sizes) or 1) as (push, pull, peer),
    ):
        results = dispatcher.results()
        time_ours(dispatcher, results, batch, segmenter, 1)
        time_bare(push, pull, sizes, 1)
        timings = {
            "bare": (peer, lambda: time_bare(push, pull, sizes, turns)),
            "ours": (worker, lambda: time_ours(dispatcher, results, batch, segmenter, turns)),
        }
        for _ in range(rounds):
            for name, (pid, timing) in timings.items():
                before_s = processor_s(pid)
                walls[name].append(timing())
                processors[name].append(processor_s(pid) - before_s)
    ratios = [b / o for b, o in zip(walls["bare"], walls["ours"], strict=True)]
    speeds = {name: gigabytes / min(each) for name, each in walls.items()}
    costs = {name: statistics.median(each) / gigabytes for name, each in processors.items()}
    speed = (
        f"best GB/s: bare {speeds['bare']:.2f}, ours {speeds['ours']:.2f}, ratio {speeds['ours'] / speeds['bare']:.2f}"
    )
    cost = (
        f"processor s/GB: bare {costs['bare']:.2f}, ours {costs['ours']:.2f}, ratio {costs['bare'] / costs['ours']:.2f}"
    )
    what = f"{shape:<9}{case:<16}{len(sizes):>3} x {there // len(sizes):>9,} B"
    print(f"{what}  {speed} ({statistics.median(ratios):.2f})  {cost}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="a worker elsewhere beside bare pyzmq with CURVE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=200_000_000, help="there, of one timing")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--lanes", default="1,17", help="17 are what 'run -n 0 --listen' cuts a chunk into")
    parser.add_argument("--cases", default=",".join(CASES))
    told = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        make_keys("pipeline", str(folder))
        make_keys("worker", str(folder))
        (folder / "known").mkdir()
        shutil.copy(folder / "worker.key", folder / "known")
        for shape in told.shapes.split(","):
            with open(folder / f"{shape}.pcap", "wb", buffering=0) as file:
                write(file, SHAPES[shape], 72_000)
            for case, lanes in itertools.product(told.cases.split(","), map(int, told.lanes.split(","))):
                measure(shape, case, lanes, told.rounds, told.bytes, folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
