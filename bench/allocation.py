"""What allocation adds: the same worker elsewhere as a fixed worker, and as a provider that the market chose.

Both are `streamcore worker` in a process of its own over TCP and CURVE; the dispatcher is in this one, and so is the
market. In turn in one run, A B A B. Not here: audits, which cost what the audited segments cost again.

    python bench/allocation.py --rounds 15
"""

from __future__ import annotations

import argparse
import collections
import itertools
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

from auction.bid import StandingOffer
from auction.moderator import Moderator
from auction.store import SqlStore
from streamcore.config import Subcontract
from streamcore.counters import Counters
from streamcore.disperse.dispatcher import Dispatcher
from streamcore.disperse.remote import load_public_key, make_keys
from streamcore.disperse.roster import Terms
from streamcore.packets import Arena
from streamcore.segment._segmenter import Segmenter
from streamcore.source.capture import CaptureSource
from streamcore.subcontract.broker import Broker, Wanted
from streamcore.subcontract.market import MarketAllocator
from streamcore.subcontract.market import Terms as MarketTerms

YEAR_MS = 365 * 86_400_000
TOUCH = f"{Path(__file__).parent / 'programs' / 'touch.py'}:Touch"


def broker_of(folder: Path, key: str) -> Broker:
    """A market with one provider of this key, and a stream that is its from the start, for an hour."""
    moderator = Moderator(SqlStore(f"sqlite:///{folder / 'market.db'}"))
    moderator.register("we", "recipient")
    moderator.deposit("we", 10_000, "EUR")
    moderator.register("it", "provider", capacity_bps=10**12)
    moderator.deposit("it", 10_000, "EUR")
    moderator.post_bond("it", 10_000, "EUR")
    moderator.publish_endpoint("it", key)
    offer = StandingOffer(
        offer="standing",
        provider="it",
        service="touch",
        unit_price=5,
        currency="EUR",
        quantity=1,
        rate_bps_max=10**12,
        valid_until_ms=moderator.now_ms() + YEAR_MS,
    )
    moderator.stand_offer(offer)
    told = Subcontract(price_max=10, minimum_bps=1_000_000, block_ms=3_600_000, audit=0.0, join_ms=60_000)
    wanted = Wanted(0, "all", told, "touch", [TOUCH], True, False)
    return Broker([wanted], MarketAllocator(moderator, MarketTerms("we", "we")), 60_000)


@contextmanager
def dispatcher(arena: Arena, folder: Path, subcontracted: bool) -> Iterator[Dispatcher]:
    """A dispatcher with one worker elsewhere, plain or a provider."""
    key = load_public_key(str(folder / "worker.key")).decode()
    broker = broker_of(folder, key) if subcontracted else None
    terms = Terms(
        workers=0, chains=[[TOUCH]], changes=[frozenset({"bytes"})], lease_ms=60_000, attempts_max=3, restarts_max=0,
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
         folder / "worker.key_secret", "--server-key", folder / "pipeline.key"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield made
    finally:
        made.close()
        if broker is not None:
            broker.close()
        worker.wait(10)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--segment-packets", type=int, nargs="+", default=[256, 8192])
    told = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="allocation-"))
    try:
        measure(folder, told.rounds, told.segment_packets)
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
        fixed = stack.enter_context(dispatcher(arena, folder, subcontracted=False))
        allocated = stack.enter_context(dispatcher(arena, folder, subcontracted=True))
        for packets in segment_packets:
            segmenters = [Segmenter("run", packets_max=packets), Segmenter("run", packets_max=packets)]
            streams = [fixed.results(), allocated.results()]
            times: list[list[tuple[float, float]]] = [[], []]
            for turn in range(rounds + 1):
                for which in (0, 1) if turn % 2 else (1, 0):
                    segments = [each for _ in range(8) for each in segmenters[which].cut(batch)]
                    begin_s, begin_cpu_s = time.perf_counter(), time.thread_time()
                    (fixed, allocated)[which].submit(segments)
                    collections.deque(itertools.islice(streams[which], len(segments)), maxlen=0)
                    taken = time.perf_counter() - begin_s, time.thread_time() - begin_cpu_s
                    if turn:  # the first one warms up
                        times[which].append(taken)
            wall = statistics.median(b[0] / a[0] for a, b in zip(*times, strict=True))
            best = min(b[0] for b in times[1]) / min(a[0] for a in times[0])
            cpu_us = [1e6 * statistics.median(each[1] for each in side) / len(segments) for side in times]
            print(
                f"{packets:6} packets a segment: allocated/fixed {wall:.3f} (median of the rounds), {best:.3f} (best of"
                f" each); the dispatcher's processor time a segment {cpu_us[0]:.0f} -> {cpu_us[1]:.0f} us"
            )


if __name__ == "__main__":
    sys.exit(main())
