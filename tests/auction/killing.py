"""Kills a process in the middle of its commands, again and again, and compares what it acknowledged with the store."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections.abc import Callable

import msgspec
from markets import measured

from auction.model.block import Block
from auction.model.rating import RatingRules
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import verify
from auction.storage.sql_store import SqlStore

RULES = RatingRules(newcomer_bond=0)


def open_market(url: str) -> tuple[SqlStore, Moderator, ManualClock]:
    store = SqlStore(url)
    clock = ManualClock()
    return store, Moderator(store, clock=clock, config=MarketConfig(rating=RULES)), clock


def prepare(url: str) -> None:
    store, market, _ = open_market(url)
    market.register("rita", "recipient", key="rita")
    market.deposit("rita", 10**9, "EUR", key="funds")
    for number in range(4):
        market.register(f"p{number}", "provider", capacity_bps=10**9, key=f"p{number}")
    store.close()


def work(url: str, first: int, write: Callable[[bytes], object]) -> None:
    """Endless commands, each under its key, each told with `write` once it is acknowledged."""
    store, market, clock = open_market(url)
    number = first
    while True:
        number += 1
        start = clock.now_ms + 1_000
        block = Block(id="", provider="", service="s", starts_ms=start, ends_ms=start + 1_000, maximum_bps=1)
        entries = [BidEntry(f"p{bidder}", 100 + bidder) for bidder in range(4)]
        terms = AuctionTerms(reserve=500, open_for_ms=1_000)
        commands: list[tuple[str, Callable[[str], object]]] = [
            ("deposit", lambda key: market.deposit("rita", 1, "EUR", key=key)),
            ("hold", lambda key: market.hold_auction("rita", block, terms, entries, key=key)),  # noqa: B023
        ]
        for name, command in commands:
            answer = command(f"{name}-{number}")
            write(f"{name}-{number} {msgspec.json.encode(answer).decode()}\n".encode())
        (agreement,) = market.hold_auction("rita", block, terms, entries, key=f"hold-{number}").agreements
        market.start(agreement, key=f"start-{number}")
        with market.group():
            market.deliver(measured(market, agreement, "rita", 500_000), key=f"deliver-{number}")
            market.finish(agreement, key=f"finish-{number}")
            charged = market.charge(agreement, key=f"charge-{number}")
        write(f"charge-{number} {charged.charged}\n".encode())
    store.close()


def kill_once(url: str, first: int, numbers: random.Random) -> list[str]:
    """Lets a process work until it has acknowledged something, kills it a moment later; what it had acknowledged."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            work(url, first, lambda line: os.write(writer, line))
        finally:
            os._exit(1)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], 30)
        assert ready, "the process acknowledged nothing in 30 s"
        time.sleep(numbers.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told = b""
        while piece := os.read(reader, 65_536):
            told += piece
    finally:
        os.close(reader)
    lines = told.decode().split("\n")
    return lines[:-1]  # a line that was cut off by the kill was not acknowledged


def kill_and_compare(fresh_url: Callable[[int], str], kills: int) -> int:
    """Kills `kills` times; every 20 kills a new market, so that loading it stays short. Returns how many commands were
    acknowledged. Raises AssertionError for a lost or doubled command, or a store that is not in order."""
    numbers = random.Random(5)
    acknowledged = 0
    url = ""
    told: list[str] = []
    for kill in range(kills):
        if kill % 20 == 0:
            url, told = fresh_url(kill), []
            prepare(url)
        told += kill_once(url, (kill + 1) * 100_000, numbers)
        store = SqlStore(url)
        entries = {entry.key: entry for entry in store.entries() if entry.key}
        store.close()
        for line in told:
            key, answer = line.split(" ", 1)
            assert key in entries, f"{key} was acknowledged and is lost"
            stored = entries[key].answer.decode()
            assert stored == answer or f'"charged":{answer}' in stored, f"{key} was answered {answer}, not {stored}"
        deposits = sum(key.startswith("deposit-") for key in entries)
        check_store(url, deposits)
        acknowledged = acknowledged + len(told) if kill % 20 == 19 or kill == kills - 1 else acknowledged
    return acknowledged


def check_store(url: str, deposits: int) -> None:
    """The journal's chain, the fold and every invariant; the ledger sums to zero; each deposit has one effect."""
    store = SqlStore(url)
    try:
        assert verify(store, RULES) == []
        with store.snapshot() as snapshot:
            balances = snapshot.balances()
        assert sum(balances.values()) == 0
        assert -balances["outside"] == 10**9 + deposits
    finally:
        store.close()
