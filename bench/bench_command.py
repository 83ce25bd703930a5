"""Whole commands, from the start of a process to its exit, and a whole auction in memory: what a user waits for.

compare.py runs this file as it stands against either revision, so it names only what users may: commands and the public
names of the packages. Here a round is a whole command: the shortest there is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

ROUNDS = int(os.environ.get("BENCH_COMMAND_ROUNDS", "5"))
BIDDERS = 10


def command() -> list[str]:
    """What the `streamcore` script does, of the first installation on the path."""
    (point, *_) = entry_points(group="console_scripts", name="streamcore")
    module, _, function = point.value.partition(":")
    return [sys.executable, "-c", f"import sys; from {module} import {function} as main; sys.exit(main())"]


def run(words: list[str]) -> None:
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")


@pytest.fixture
def target(capture_directory: Path) -> Path:
    return capture_directory / "out.pcap"


def through(source: Path, target: Path) -> list[str]:
    return [*command(), "run", "-q", "-r", str(source), "-w", str(target), "--service", "identity", "-n", "1"]


def test_run(benchmark: Any, each_capture: Path, target: Path) -> None:
    benchmark.pedantic(run, args=(through(each_capture, target),), rounds=ROUNDS, warmup_rounds=1)
    assert target.stat().st_size == each_capture.stat().st_size
    target.unlink()


def test_run_of_a_hundred_packets(benchmark: Any, capture_of: Callable[..., Path], target: Path) -> None:
    words = through(capture_of("small64", 100), target)
    benchmark.pedantic(run, args=(words,), rounds=2 * ROUNDS, warmup_rounds=1)
    target.unlink()


@pytest.mark.parametrize("package", ["streamcore", "auction"])
def test_import(benchmark: Any, package: str) -> None:
    words = [sys.executable, "-c", f"import {package}"]
    benchmark.pedantic(run, args=(words,), rounds=4 * ROUNDS, warmup_rounds=1)


def test_auction_in_memory_from_announcement_to_award(benchmark: Any) -> None:
    from auction import AuctionTerms, BidEntry, Block, ManualClock, MarketConfig, MemoryStore, Moderator

    clock = ManualClock()
    market = Moderator(MemoryStore(), clock=clock, config=MarketConfig())
    market.register("rita", "recipient")
    market.deposit("rita", 10**15, "EUR")
    for number in range(BIDDERS):
        market.register(f"p{number}", "provider", capacity_bps=10**9)
        market.deposit(f"p{number}", 10**9, "EUR")
        market.post_bond(f"p{number}", 10**8, "EUR")
    entries = [BidEntry(f"p{number}", 300 + number * 7 % 100) for number in range(BIDDERS)]
    # This file also runs against older trees, in which nobody signed receipts.
    among_acquaintances = {"receipts": False} if "receipts" in AuctionTerms.__struct_fields__ else {}
    terms = AuctionTerms(reserve=1_000, open_for_ms=1_000, **among_acquaintances)

    def whole() -> None:
        start = clock.now_ms + 10_000
        block = Block(id="", provider="", service="s", starts_ms=start, ends_ms=start + 10, maximum_bps=1)
        auction = market.announce("rita", block, terms).auction
        for entry in entries:
            market.bid(auction, entry)
        clock.advance(1_000)
        assert market.close(auction).winners

    benchmark.pedantic(whole, rounds=40 * ROUNDS, warmup_rounds=5)
