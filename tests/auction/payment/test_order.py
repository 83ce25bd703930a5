"""A card's request is stored before it is sent, whoever sends it; and who waits for a processor holds nobody up.

(From a case in which a market that was awaited asked the processor first and journalled afterwards, on its one thread.)
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from markets import asked, market
from serving import OPERATOR, served

from auction import AsyncModerator, SqlStore
from auction.model.errors import BadValue, PaymentUnknown, WrongState
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.payment.protocol import Dispute, Outcome
from auction.web.client import MarketClient

TERMS = AuctionTerms(
    reserve=1_000, open_for_ms=10_000, receipts=False, format="first_price", method="card", source="token"
)
PATIENCE_S = 60


class Looks:
    """A processor that looks, whenever it is asked, whether what it is asked stands in the stored journal already."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[tuple[str, bool]] = []
        self.before: Callable[[str], None] = lambda _step: None
        self.silent = 0  # so often no answer comes

    def _ask(self, key: str, amount: int = 0) -> Outcome:
        with sqlite3.connect(f"file:{self.path}?mode=ro", uri=True) as stored:
            bodies = [body for (body,) in stored.execute("select body from auction_journal")]
        self.asked.append((key, any(f'"{key}"'.encode() in bytes(body) for body in bodies)))
        self.before(key.rpartition("/")[2])
        if self.silent:
            self.silent -= 1
            raise PaymentUnknown("no answer came")
        return Outcome(True, "reference", "", amount)

    def authorise(self, key: str, source: str, amount: int, currency: str) -> Outcome:
        return self._ask(key, amount)

    def capture(self, key: str, reference: str, amount: int) -> Outcome:
        return self._ask(key, amount)

    def void(self, key: str, reference: str) -> Outcome:
        return self._ask(key)

    def refund(self, key: str, reference: str, amount: int) -> Outcome:
        return self._ask(key, amount)

    def read_dispute(self, payload: bytes, signature: str) -> Dispute | None:
        return None

    def steps(self) -> list[str]:
        assert all(was_stored for _, was_stored in self.asked), self.asked
        return [key.rpartition("/")[2] for key, _ in self.asked]


def opened(tmp_path: Path) -> tuple[Moderator, ManualClock, Looks, str]:
    path = tmp_path / "market.db"
    card = Looks(path)
    moderator, clock = market(SqlStore(f"sqlite:///{path}"), providers=1, processors={"card": card})
    return moderator, clock, card, moderator.announce("rita", asked(clock), TERMS).auction


def agreed(moderator: Moderator, clock: ManualClock, auction: str) -> str:
    moderator.bid(auction, BidEntry("p0", 400))
    clock.advance(10_000)
    moderator.tick()
    return moderator.auction(auction).agreements[0]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)


def test_embedded(tmp_path: Path) -> None:
    moderator, clock, card, auction = opened(tmp_path)
    moderator.pay(auction)
    name = agreed(moderator, clock, auction)
    for party in ("p0", "rita"):
        moderator.end(name, party, "finished", 400)
    moderator.refund(name, 100, key="back")
    assert card.steps() == ["authorise", "capture", "refund-back"]
    assert moderator.agreement(name).refunded == 100


def test_awaited(tmp_path: Path) -> None:
    moderator, clock, card, auction = opened(tmp_path)

    async def play() -> None:
        async with AsyncModerator(moderator) as market:
            await market.pay(auction, key="once")
            await market.pay(auction, key="once")
            await market.bid(auction, BidEntry("p0", 400))
            clock.advance(10_000)
            await market.tick()
            (name,) = (await market.auction(auction)).agreements
            for party in ("p0", "rita"):
                await market.end(name, party, "finished", 400)
            await until(lambda: not moderator.state.pending_payments)
            assert (await market.agreement(name)).charged == 400
            assert (await market.refund(name, 100, key="back")).refunded == 100

    asyncio.run(play())
    assert card.steps() == ["authorise", "capture", "refund-back"]


def test_served(tmp_path: Path) -> None:
    moderator, _, card, auction = opened(tmp_path)
    with served(moderator) as url:
        assert MarketClient(url, OPERATOR, retry_for_ms=0).pay(auction).auction == auction
    assert card.steps() == ["authorise"]
    assert moderator.auction(auction).state == "open"


def test_who_waits_for_a_processor_holds_nobody_up(tmp_path: Path) -> None:
    moderator, _, card, auction = opened(tmp_path)
    let_go = threading.Event()
    card.before = lambda _step: None if let_go.wait(PATIENCE_S) else pytest.fail("nobody else was answered")

    async def play() -> None:
        async with AsyncModerator(moderator) as market:
            paying = asyncio.create_task(market.pay(auction))
            await until(lambda: bool(card.asked))
            assert await market.deposit("rita", 5, "EUR") > 0  # a command of another task, while the processor thinks
            assert not paying.done()
            let_go.set()
            assert (await paying).auction == auction

    asyncio.run(play())
    assert moderator.auction(auction).state == "open"


def test_no_answer_is_the_callers_error_and_the_same_call_finds_out(tmp_path: Path) -> None:
    moderator, _, card, auction = opened(tmp_path)
    card.silent = 1

    async def play() -> None:
        async with AsyncModerator(moderator) as market:
            with pytest.raises(PaymentUnknown):
                await market.pay(auction)
            assert (await market.pay(auction)).auction == auction

    asyncio.run(play())
    assert card.steps() == ["authorise", "authorise"]
    assert len({key for key, _ in card.asked}) == 1


def test_a_capture_without_an_answer_is_asked_for_again_by_itself(tmp_path: Path) -> None:
    moderator, clock, card, auction = opened(tmp_path)
    moderator.pay(auction)
    name = agreed(moderator, clock, auction)
    card.silent = 2

    async def play() -> None:
        async with AsyncModerator(moderator) as market:
            for party in ("p0", "rita"):
                await market.end(name, party, "finished", 400)
            await until(lambda: moderator.agreement(name).charged == 400)

    asyncio.run(play())
    assert card.steps() == ["authorise", "capture", "capture", "capture"]
    assert len({key for key, _ in card.asked}) == 2


def test_a_process_that_dies_at_the_processor_knows_of_it_when_it_starts(tmp_path: Path) -> None:
    moderator, clock, card, auction = opened(tmp_path)
    moderator.pay(auction)
    name = agreed(moderator, clock, auction)
    moderator.store.close()  # type: ignore[attr-defined]
    child = os.fork()
    if child == 0:
        card.before = lambda step: os._exit(9) if step == "capture" else None

        async def play() -> None:
            again = Moderator(SqlStore(f"sqlite:///{card.path}"), clock=clock, processors={"card": card})
            async with AsyncModerator(again) as market:
                for party in ("p0", "rita"):
                    await market.end(name, party, "finished", 400)
                await asyncio.sleep(PATIENCE_S)

        try:
            asyncio.run(play())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    again = Moderator(SqlStore(f"sqlite:///{card.path}"), clock=clock, processors={"card": card})
    assert list(again.state.pending_payments) == [f"{auction}/capture"]
    assert again.resume_payments() == 1
    assert again.agreement(name).charged == 400


def test_a_card_is_not_taken_for_what_ends_after_its_authorisation(tmp_path: Path) -> None:
    moderator, clock, _, _ = opened(tmp_path)
    day_ms = 86_400_000
    for days, is_taken in ((5, True), (6, False)):
        block = asked(clock)
        starts_ms = clock.now_ms + days * day_ms - 60_000
        later = msgspec.structs.replace(block, starts_ms=starts_ms, ends_ms=starts_ms + 60_000)
        if is_taken:
            moderator.announce("rita", later, TERMS)
        else:
            with pytest.raises(BadValue, match="authorisation"):
                moderator.announce("rita", later, TERMS)


def test_within_a_group_nothing_is_sent(tmp_path: Path) -> None:
    moderator, _, card, auction = opened(tmp_path)
    with moderator.group():
        with pytest.raises(WrongState):
            moderator.pay(auction)
        moderator.deposit("rita", 1, "EUR")
        moderator.tick()
    assert card.asked == []
    assert moderator.state.pending_payments == {}
