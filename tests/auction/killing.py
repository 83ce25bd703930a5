"""Kills a process in the middle of its commands, again and again, and compares what it acknowledged with the store.

The seed says when, whatever the speed of the machine: every other process is killed once it has acknowledged so many
commands, wherever it then is in the next one; the others kill themselves at the so-manieth step of their database.
"""

from __future__ import annotations

import itertools
import os
import random
import select
import signal
from collections.abc import Callable
from typing import Any

import msgspec

from auction.model.block import Block
from auction.model.rating import RatingRules
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import verify
from auction.storage.sql_store import SqlStore

RULES = RatingRules(newcomer_bond=0)
OF_PROVIDER = 10**6
ACKNOWLEDGED_MOST, STEPS_MOST = 6, 60


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
        market.deposit(f"p{number}", OF_PROVIDER, "EUR", key=f"funds-{number}")
    store.close()


class Counted:
    """A connection of a driver, or a cursor of it, that tells before and after each step that it takes."""

    def __init__(self, inner: Any, step: Callable[[], None]) -> None:
        self._inner, self._step = inner, step

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "cursor":
            return lambda *words: Counted(found(*words), self._step)
        return self._counted(found) if name in ("execute", "executemany", "commit") else found

    def _counted(self, found: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any) -> Any:
            self._step()
            answer = found(*words)
            self._step()
            return answer

        return call


def die_at(step: int, store: SqlStore) -> None:
    """Has this process kill itself at a step of its writes: before or after a statement or a commit."""
    left = itertools.count(step - 1, -1)

    def count() -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    connect = store.engine.raw_connection
    store.engine.raw_connection = lambda: Counted(connect(), count)  # type: ignore[assignment, method-assign, return-value]


def work(url: str, first: int, step: int, write: Callable[[bytes], object]) -> None:
    """Endless commands, each under its key, told with `write` once acknowledged. With a `step` it dies there."""
    store, market, clock = open_market(url)
    if step:
        die_at(step, store)
    number = first
    while True:
        number += 1
        start = clock.now_ms + 1_000
        block = Block(id="", provider="", service="s", starts_ms=start, ends_ms=start + 1_000, maximum_bps=1)
        entries = [BidEntry(f"p{bidder}", 100 + bidder) for bidder in range(4)]
        terms = AuctionTerms(reserve=500, open_for_ms=1_000, receipts=False)
        commands: list[tuple[str, Callable[[str], object]]] = [
            ("deposit", lambda key: market.deposit("rita", 1, "EUR", key=key)),
            ("hold", lambda key: market.hold_auction("rita", block, terms, entries, key=key)),  # noqa: B023
        ]
        for name, command in commands:
            answer = command(f"{name}-{number}")
            write(f"{name}-{number} {msgspec.json.encode(answer).decode()}\n".encode())
        (agreement,) = market.hold_auction("rita", block, terms, entries, key=f"hold-{number}").agreements
        provider = market.agreement(agreement).provider
        with market.group():
            market.end(agreement, provider, "finished", 50, key=f"say-{number}")
            settled = market.end(agreement, "rita", "finished", 50, key=f"settle-{number}")
        write(f"settle-{number} {settled.charged}\n".encode())
    store.close()


def kill_once(url: str, first: int, step: int, enough: int) -> list[str]:
    """Lets a process work up to where it is killed: at that step, or with 0 once it has acknowledged enough commands.
    Returns what it had acknowledged."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            work(url, first, step, lambda line: os.write(writer, line))
        finally:
            os._exit(1)
    os.close(writer)
    try:
        told = b""
        while step or told.count(b"\n") < enough:
            ready, _, _ = select.select([reader], [], [], 60)
            assert ready, "the process acknowledged nothing in 60 s"
            if not (piece := os.read(reader, 65_536)):
                break
            told += piece
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        while piece := os.read(reader, 65_536):
            told += piece
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "it ended by itself"
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
        step = numbers.choice((0, numbers.randint(1, STEPS_MOST)))
        told += kill_once(url, (kill + 1) * 100_000, step, numbers.randint(1, ACKNOWLEDGED_MOST))
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


def first_command_by_step(url: str, steps: int) -> list[str]:
    """What became of the first command of processes that die at step 1, 2, … `steps` of their writes."""
    prepare(url)
    became = []
    for step in range(1, steps + 1):
        told = kill_once(url, step * 100_000, step, 0)
        store = SqlStore(url)
        stored = any(entry.key == f"deposit-{step * 100_000 + 1}" for entry in store.entries())
        store.close()
        became.append("acknowledged" if told and stored else "lost" if told else "stored" if stored else "not done")
    return became


def check_kills_come_at_their_step(url: str) -> None:
    """A kill comes before the commit, between it and the acknowledgement, or after, as its step says."""
    became = first_command_by_step(url, 14)
    assert became == sorted(became, key=("not done", "stored", "acknowledged").index)
    assert set(became) == {"not done", "stored", "acknowledged"}
    check_store(url, len(became) - became.count("not done"))


def check_store(url: str, deposits: int) -> None:
    """The journal's chain, the fold and every invariant; the ledger sums to zero; each deposit has one effect."""
    store = SqlStore(url)
    try:
        assert verify(store, RULES) == []
        with store.snapshot() as snapshot:
            balances = snapshot.balances()
        assert sum(balances.values()) == 0
        assert -balances["outside"] == 10**9 + 4 * OF_PROVIDER + deposits
    finally:
        store.close()
