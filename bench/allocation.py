"""What allocation adds: the same worker elsewhere as a fixed worker, and as a provider that the market chose.

Both are `streamcore worker` in a process of its own over TCP and CURVE; the dispatcher is in this one, and so is the
market. There are two of each, made in the order of SIDES, because one made later is slower by some per cent whatever it
is. Each round runs all four, and compares the sums: what disturbs the machine for longer than a round disturbs both
kinds. Told: the median ratio of the rounds with the interval that holds the true one
with 95 %, for the time on the clock and for the processor time of both processes with all their threads. An interval
that ends below 1.03 shows that allocation adds less than 3 %; one that begins above it, that it adds more. Not here:
audits, which cost what the audited segments cost again.

    python bench/allocation.py --rounds 40
"""

from __future__ import annotations

import argparse
import collections
import itertools
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from captures import SHAPES, write

from auction.model.bid import StandingOffer
from auction.moderator import Moderator
from auction.storage.sql_store import SqlStore
from streamcore.core.counters import Counters
from streamcore.core.market_keys import Subcontract
from streamcore.core.packets import Arena
from streamcore.disperse.dispatcher import Dispatcher
from streamcore.disperse.remote import load_public_key, make_keys
from streamcore.disperse.terms import Terms
from streamcore.segment._segmenter import Segmenter
from streamcore.source.capture import CaptureSource
from streamcore.subcontract.broker import Broker
from streamcore.subcontract.contract import Wanted
from streamcore.subcontract.market import MarketAllocator
from streamcore.subcontract.market import Terms as MarketTerms

SIDES = [False, True, True, False]  # which are subcontracted
DAY_MS = 86_400_000
TOUCH = f"{Path(__file__).parent / 'programs' / 'touch.py'}:Touch"


def market_of(folder: Path, key: str, quantity: int = 1) -> Moderator:
    """A market of its own in a file, with a recipient and one provider of this key, which has a standing offer."""
    moderator = Moderator(SqlStore(f"sqlite:///{tempfile.mkdtemp(dir=folder)}/market.db"))
    moderator.register("we", "recipient")
    moderator.deposit("we", 10_000 * quantity, "EUR")
    moderator.register("it", "provider", capacity_bps=10**12)
    moderator.deposit("it", 10_000 * quantity, "EUR")
    moderator.post_bond("it", 10_000 * quantity, "EUR")
    moderator.publish_endpoint("it", key)
    offer = StandingOffer(
        offer="standing",
        provider="it",
        service="touch",
        unit_price=5,
        currency="EUR",
        quantity=quantity,
        rate_bps_max=10**12,
        valid_until_ms=moderator.now_ms() + DAY_MS,
    )
    moderator.stand_offer(offer)
    return moderator


def broker_of(folder: Path, key: str) -> Broker:
    """A stream that is the provider's from the start, for an hour."""
    told = Subcontract(price_max=10, minimum_bps=1_000_000, block_ms=3_600_000, audit=0.0, join_ms=60_000)
    wanted = Wanted(0, "all", told, "touch", [TOUCH], True, False)
    return Broker([wanted], MarketAllocator(market_of(folder, key), MarketTerms("we", "we")), 60_000)


@contextmanager
def dispatcher(arena: Arena, folder: Path, subcontracted: bool) -> Iterator[tuple[Dispatcher, int]]:
    """A dispatcher with one worker elsewhere, plain or a provider; and that one's process id."""
    key = load_public_key(str(folder / "worker.key")).decode()
    broker = broker_of(folder, key) if subcontracted else None
    terms = Terms(
        workers=0, chains=[[TOUCH]], changes=[frozenset({"bytes"})], accepted=[lambda *fields: fields],
        deterministic=[True], lease_ms=60_000, attempts_max=3, restarts_max=0,
        credit=3, segment_bytes=4 << 20, listen="tcp://127.0.0.1:*",
        key=str(folder / "pipeline.key_secret"), worker_keys="" if subcontracted else str(folder / "known"),
    )  # fmt: skip
    made = Dispatcher(terms, arena, Counters(), routes=broker)
    made.start()
    if broker is not None:
        broker.wake = made.wake
        broker.start()
        assert broker.of(0).kind == "provider"
    worker = subprocess.Popen(
        [sys.executable, "-m", "streamcore", "worker", "--connect", made.address, "--key",
         folder / "worker.key_secret", "--server-key", folder / "pipeline.key", "--allow", TOUCH.rpartition(":")[0]],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield made, worker.pid
    finally:
        made.close()
        if broker is not None:
            broker.close()
        worker.wait(10)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--segment-packets", type=int, nargs="+", default=[256, 8192])
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="allocation-"))
    try:
        measure(folder, options.rounds, options.segment_packets)
    finally:
        shutil.rmtree(folder)
    return 0


def measure(folder: Path, rounds: int, segment_packets: list[int]) -> None:
    for name in ("pipeline", "worker"):
        make_keys(name, str(folder))
    (folder / "known").mkdir()
    shutil.copy(folder / "worker.key", folder / "known")
    with open(folder / "in.pcap", "wb") as file:
        write(file, SHAPES["imix"], 12_000)
    arena = Arena(2, 8 << 20, 65_536, shared=True)
    batch = next(iter(CaptureSource(folder / "in.pcap", arena)))
    with ExitStack() as stack:
        sides = [stack.enter_context(dispatcher(arena, folder, subcontracted)) for subcontracted in SIDES]
        streams = [made.results() for made, _ in sides]
        for packets in segment_packets:
            segmenters = [Segmenter("run", packets_max=packets) for _ in SIDES]
            walls: list[float] = []
            processors: list[float] = []
            for turn in range(rounds + 1):
                taken = {True: [0.0, 0.0], False: [0.0, 0.0]}
                for place in range(len(SIDES)):
                    which = (place + turn) % len(SIDES) if turn % 2 else (turn - place) % len(SIDES)
                    made, worker = sides[which]
                    segments = [each for _ in range(8) for each in segmenters[which].cut(batch)]
                    begin_s, begin_processor_s = time.perf_counter(), processor_s(worker)
                    made.submit(segments)
                    collections.deque(itertools.islice(streams[which], len(segments)), maxlen=0)
                    taken[SIDES[which]][0] += time.perf_counter() - begin_s
                    taken[SIDES[which]][1] += processor_s(worker) - begin_processor_s
                if turn:  # the first one warms up
                    walls.append(taken[True][0] / taken[False][0])
                    processors.append(taken[True][1] / taken[False][1])
            print(f"{packets:6} packets a segment: allocated/fixed {told(walls)} on the clock, {told(processors)} in"
                  " processor time", flush=True)  # fmt: skip


def processor_s(worker: int) -> float:
    """Processor time of this process and that one, with all their threads."""
    spent_ns = [int(path.read_text().split()[0]) for path in Path(f"/proc/{worker}/task").glob("*/schedstat")]
    return time.process_time() + sum(spent_ns) / 1e9


def told(ratios: list[float]) -> str:
    low, high = interval(ratios)
    return f"{statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})"


def interval(values: list[float]) -> tuple[float, float]:
    """Two of the values, between which the median of what they were drawn from lies with at least 95 %, whatever its
    distribution: how many of n values lie below the median is binomial (n, 1/2). The outermost where n < 6.
    """
    ordered, n = sorted(values), len(values)
    outside, below = 0.0, 0  # how probable it is that at most `below` values lie on one side, and how many that are
    while below < n // 2 and (outside := outside + math.comb(n, below) / 2**n) <= 0.025:
        below += 1
    cut = max(0, below - 1)
    return ordered[cut], ordered[n - 1 - cut]


if __name__ == "__main__":
    sys.exit(main())
