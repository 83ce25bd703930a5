"""Spot placement through the allocator that is embedded in the pipeline: from a stream's need to its provider.

Each placement is of a block of its own, from one standing offer; the market keeps its journal in a file, and writes
there in the thread that places where 256 placements have not been written yet. One after the other they find all that
they need in the processor's caches; with a pause in between, as streams begin in life, they do not. Not here: the
thread's start, and joining.

    python bench/placement.py --placements 2000 --pause-ms 5
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from allocation import TOUCH, market_of

from streamcore.subcontract.allocator import Need
from streamcore.subcontract.market import MarketAllocator
from streamcore.subcontract.market import Terms as MarketTerms

BLOCK_MS = 60_000


def times_us(folder: Path, placements: int, pause_s: float) -> list[float]:
    """How long each took, after a pause in which the processor is awake. SystemExit where one found no provider."""
    allocator = MarketAllocator(market_of(folder, "k" * 40, placements), MarketTerms("we", "we"))
    times = []
    try:
        for _ in range(placements):
            now_ms = allocator.now_ms()
            need = Need("all", "touch", [TOUCH], "quality", 10, 1_000, None, now_ms, now_ms + BLOCK_MS, None)
            until_s = time.perf_counter() + pause_s
            while (begin_s := time.perf_counter()) < until_s:
                pass
            placement = allocator.place(need)
            times.append((time.perf_counter() - begin_s) * 1e6)
            if placement is None:
                raise SystemExit(f"the market had nobody for need {len(times)}")
    finally:
        allocator.close()
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--placements", type=int, default=2000)
    parser.add_argument("--pause-ms", type=float, default=0.0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="placement-"))
    try:
        first, *times = times_us(folder, options.placements, options.pause_ms / 1000)
    finally:
        shutil.rmtree(folder)
    times.sort()
    share = {p: times[min(len(times) - 1, int(len(times) * p / 100))] for p in (50, 95, 99, 99.9)}
    print(f"us: first {first:.0f}, " + ", ".join(f"{p} % under {value:.0f}" for p, value in share.items()))
    print(f"under 200 us: {100 * sum(each < 200 for each in times) / len(times):.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
