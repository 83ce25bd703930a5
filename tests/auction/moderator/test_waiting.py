"""Who waits for news in an AsyncModerator holds nobody up, and misses nothing."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from markets import asked, market

from auction import AsyncModerator
from auction.model.errors import BadValue, StoreFailed, Unknown
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.storage.store import MemoryStore, Write

TERMS = AuctionTerms(reserve=900, open_for_ms=10_000)


def test_an_auction_is_bid_in_and_closed_while_a_task_waits_for_its_close() -> None:
    moderator, clock = market()

    async def run() -> None:
        async with AsyncModerator(moderator) as awaited:
            auction = (await awaited.announce("rita", asked(clock), TERMS)).auction
            waiting = asyncio.create_task(awaited.await_close(auction, wait_ms=30_000))
            await asyncio.sleep(0.05)
            started = time.monotonic()
            await awaited.bid(auction, BidEntry("p0", 500))
            assert time.monotonic() - started < 5
            assert not waiting.done()
            clock.advance(10_000)  # nobody asks for anything: the close comes by itself
            view = await asyncio.wait_for(waiting, 20)
            assert (view.state, view.bid_count) == ("agreed", 1)
            assert awaited.waiting == 0

    asyncio.run(run())


def test_a_thousand_tasks_wait_and_a_command_is_answered_at_once() -> None:
    moderator, clock = market()

    async def run() -> None:
        async with AsyncModerator(moderator) as awaited:
            auction = (await awaited.announce("rita", asked(clock), TERMS)).auction
            before, threads = awaited.waiting, threading.active_count()
            tasks = [asyncio.create_task(awaited.await_close(auction, wait_ms=60_000)) for _ in range(1_000)]
            while awaited.waiting < before + 1_000:
                await asyncio.sleep(0.01)
            assert threading.active_count() == threads
            await awaited.balance("rita")  # all have been answered once
            took = []
            for number in range(20):  # each commit wakes all of them
                started = time.monotonic()
                await awaited.deposit("rita", 1, "EUR", key=f"d{number}")
                took.append(time.monotonic() - started)
            assert min(took) < 0.1
            assert max(took) < 10  # on a busy machine; one after another, the waits would take 60 s
            clock.advance(10_000)
            views = await asyncio.wait_for(asyncio.gather(*tasks), 60)
            assert {view.state for view in views} == {"void"}

    asyncio.run(run())


def test_who_waits_gets_what_there_is_when_its_time_is_over_or_the_moderator_ends() -> None:
    moderator, clock = market()

    async def run() -> None:
        async with AsyncModerator(moderator) as awaited:
            auction = (await awaited.announce("rita", asked(clock), TERMS)).auction
            started = time.monotonic()
            assert (await awaited.await_close(auction, wait_ms=50)).state == "open"
            assert 0.04 < time.monotonic() - started < 5
            seen = await awaited.overview()
            assert (await awaited.overview(known="another", wait_ms=60_000)).version == seen.version
            waiting = asyncio.create_task(awaited.overview(known=seen.version, wait_ms=60_000))
            await awaited.register("late", "recipient")
            await awaited.announce("rita", asked(clock), TERMS)
            assert (await asyncio.wait_for(waiting, 20)).version != seen.version
            left = asyncio.create_task(awaited.await_close(auction, wait_ms=60_000))
            await asyncio.sleep(0.02)
            with pytest.raises(Unknown):
                await awaited.await_close("nothing", wait_ms=60_000)
            with pytest.raises(BadValue):
                await awaited.await_close(auction, wait_ms="long")  # type: ignore[arg-type]
        assert (await asyncio.wait_for(left, 20)).state == "open"

    asyncio.run(run())


def test_a_task_that_is_cancelled_waits_no_more_and_its_command_is_not_decided() -> None:
    moderator, clock = market()

    async def run() -> None:
        async with AsyncModerator(moderator) as awaited:
            auction = (await awaited.announce("rita", asked(clock), TERMS)).auction
            waiting = asyncio.create_task(awaited.await_close(auction, wait_ms=60_000))
            await asyncio.sleep(0.02)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert awaited.waiting == 0
            assert await awaited.balance("rita") == 1_000_000 - 990  # R(1+δ) is held

    asyncio.run(run())


class Flaky(MemoryStore):
    """Away until it is told to be there."""

    is_away = False

    def append(self, writes: list[Write]) -> None:
        if self.is_away:
            raise StoreFailed("the database is away")
        super().append(writes)


def test_a_store_that_is_away_is_the_error_of_who_writes_and_waiting_goes_on() -> None:
    store = Flaky()
    moderator, clock = market(store)

    async def run() -> None:
        async with AsyncModerator(moderator) as awaited:
            auction = (await awaited.announce("rita", asked(clock), TERMS)).auction
            waiting = asyncio.create_task(awaited.await_close(auction, wait_ms=60_000))
            await asyncio.sleep(0.02)
            store.is_away = True
            with pytest.raises(StoreFailed):
                await awaited.deposit("rita", 1, "EUR")
            assert await awaited.balance("rita") == 1_000_000 - 990  # as it is stored; R(1+δ) is held
            clock.advance(10_000)
            await asyncio.sleep(0.1)
            store.is_away = False
            view = await asyncio.wait_for(waiting, 20)
            assert view.state == "void"
            assert Moderator(store, clock=clock).auction(auction).state == "void"

    asyncio.run(run())
