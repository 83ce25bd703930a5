"""A jump of the market's clock by an hour waits for the operator: nothing that depends on time is decided until then.

The clock is one that somebody sets; `steady` is one that goes at the pace of time, as the machine's monotonic one does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from markets import asked, awarded, counted_bytes, market
from serving import OPERATOR, served

from auction import SqlStore
from auction.command.cli import main
from auction.model.bid import Bid, commitment
from auction.model.errors import BadToken, BadValue, ClockInDoubt, NotAllowed, WrongState
from auction.model.lifecycle import CLOSING_MS
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock, SteadyTime
from auction.moderator.invariants import replay, violations
from auction.storage.store import MemoryStore, Store
from auction.web.client import MarketClient

HOUR_MS = 3_600_000
TERMS = AuctionTerms(reserve=500, open_for_ms=30_000, receipts=False)


class Clocks:
    """Two clocks: time passes on both, somebody sets one."""

    def __init__(self) -> None:
        self.shown, self.steady = ManualClock(), ManualClock(12_345)

    def pass_ms(self, by_ms: int) -> None:
        self.shown.advance(by_ms)
        self.steady.advance(by_ms)


def opened(store: Store | None = None) -> tuple[Moderator, Clocks, str]:
    """A market with an auction that closes in 30 s."""
    clocks = Clocks()
    moderator = Moderator(
        store or MemoryStore(), clock=clocks.shown, steady=clocks.steady, random_bytes=counted_bytes()
    )
    moderator.register("rita", "recipient")
    moderator.register("p0", "provider", capacity_bps=10_000)
    for party in ("rita", "p0"):
        moderator.deposit(party, 100_000, "EUR")
    auction = moderator.announce("rita", asked(clocks.shown), TERMS).auction
    moderator.bid(auction, BidEntry("p0", 400))
    return moderator, clocks, auction


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS, 30 * 24 * HOUR_MS])
def test_nothing_is_decided_by_a_clock_that_has_jumped(jump_ms: int) -> None:
    moderator, clocks, auction = opened()
    before_ms = moderator.now_ms()
    clocks.shown.advance(jump_ms)
    clocks.pass_ms(40_000)  # the close would have come by now
    moderator.tick()
    assert moderator.auction(auction).state == "open"
    assert moderator.now_ms() == before_ms
    view = moderator.clock()
    assert (view.is_in_doubt, view.now_ms, view.shown_ms) == (True, before_ms, clocks.shown.now_ms)
    refused: tuple[Callable[[], object], ...] = (
        lambda: moderator.bid(auction, BidEntry("p0", 300)),
        lambda: moderator.announce("rita", asked(clocks.shown), TERMS),
        lambda: moderator.withdraw("rita", 1, "EUR"),
        lambda: moderator.close(auction),
    )
    for command in refused:
        with pytest.raises(ClockInDoubt):
            command()
    assert moderator.deposit("rita", 5, "EUR") > 0  # what says nothing of when is taken
    # The operator says that it is right.
    with pytest.raises(BadValue):
        moderator.confirm_clock(clocks.shown.now_ms + HOUR_MS)
    assert moderator.clock().is_in_doubt
    confirmed = moderator.confirm_clock(clocks.shown.now_ms, key="right")
    assert confirmed.now_ms == max(before_ms, clocks.shown.now_ms)
    assert moderator.confirm_clock(clocks.shown.now_ms, key="right") == confirmed
    with pytest.raises(WrongState):
        moderator.confirm_clock(clocks.shown.now_ms)
    moderator.tick()
    is_over = jump_ms > 0
    assert moderator.auction(auction).state == ("agreed" if is_over else "open")
    clocks.pass_ms(40_000)
    moderator.tick()
    assert moderator.auction(auction).state == "agreed"  # time goes on from there, and never went back
    assert violations(moderator.state) == []
    again = replay(moderator.store.entries())
    assert again.records == moderator.state.records


@pytest.mark.parametrize("step_ms", [HOUR_MS - 1, -HOUR_MS + 1])
def test_less_than_an_hour_is_no_jump_and_moves_no_deadline(step_ms: int) -> None:
    moderator, clocks, auction = opened()
    clocks.shown.advance(step_ms)
    clocks.pass_ms(29_999)
    moderator.tick()
    assert moderator.auction(auction).state == "open"
    clocks.pass_ms(1)
    moderator.tick()
    assert moderator.auction(auction).state == "agreed"
    clocks.shown.advance(step_ms)  # twice is one
    moderator.tick()
    assert moderator.clock().is_in_doubt


def test_time_that_passes_is_no_jump() -> None:
    moderator, clocks, auction = opened()
    clocks.pass_ms(100 * 24 * HOUR_MS)
    moderator.tick()
    assert moderator.auction(auction).state == "agreed"
    assert not moderator.clock().is_in_doubt


def test_without_a_steady_clock_a_jump_back_is_seen() -> None:
    clock = ManualClock()
    time = SteadyTime(clock)
    clock.advance(10 * HOUR_MS)
    assert (time.read(), time.has_jumped) == (clock.now_ms, False)
    for _ in range(2):  # half an hour, and half an hour more
        clock.advance(-HOUR_MS // 2)
        before_ms = time.read()
    assert time.has_jumped
    clock.advance(5 * HOUR_MS)
    assert time.read() == before_ms
    assert time.trust() == clock.now_ms
    assert not time.has_jumped


def test_doubt_is_in_the_journal_and_no_start_forgets_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/market.db"
    moderator, clocks, auction = opened(SqlStore(url))
    clocks.shown.advance(24 * HOUR_MS)
    moderator.tick()
    again = Moderator(SqlStore(url), clock=clocks.shown, steady=clocks.steady)
    assert again.clock().is_in_doubt
    with pytest.raises(ClockInDoubt):
        again.bid(auction, BidEntry("p0", 300))
    clocks.pass_ms(40_000)
    again.tick()
    assert again.auction(auction).state == "open"
    again.confirm_clock(clocks.shown.now_ms)
    again.tick()
    assert again.auction(auction).state == "agreed"
    # After a step back that was confirmed the market's time is ahead of the clock, and a start is in no doubt.
    clocks.shown.advance(-2 * HOUR_MS)
    again.tick()
    ahead_ms = again.now_ms()
    again.confirm_clock(clocks.shown.now_ms)
    clocks.pass_ms(1_000)
    third = Moderator(SqlStore(url), clock=clocks.shown, steady=clocks.steady)
    third.deposit("rita", 1, "EUR")
    assert not third.clock().is_in_doubt
    assert third.now_ms() >= ahead_ms
    # And a process that starts with a clock an hour behind the journal's last entry is in doubt.
    clocks.shown.advance(-2 * HOUR_MS)
    behind = Moderator(SqlStore(url), clock=clocks.shown, steady=clocks.steady)
    with pytest.raises(ClockInDoubt):
        behind.announce("rita", asked(clocks.shown), TERMS)


def test_after_doubt_deadlines_give_an_hour() -> None:
    """Nobody could end anything meanwhile: closing goes on for C."""
    moderator, clocks, auction = opened()
    clocks.pass_ms(30_000)
    moderator.tick()
    (name,) = moderator.auction(auction).agreements
    moderator.end(name, "p0", "finished", 100)
    clocks.shown.advance(24 * HOUR_MS)
    moderator.tick()
    moderator.confirm_clock(clocks.shown.now_ms)
    moderator.tick()
    assert moderator.agreement(name).state == "closing"
    moderator.end(name, "rita", "finished", 100)
    assert moderator.agreement(name).state == "settled"
    assert violations(moderator.state) == []


def test_after_the_market_was_away_deadlines_end_no_earlier_than_its_return_and_an_hour() -> None:
    store = MemoryStore()
    moderator, clock = market(store)
    name = awarded(moderator, clock)
    moderator.end(name, "rita", "finished", 100)
    due_ms = moderator.agreement(name).due_ms
    clock.advance(48 * HOUR_MS)  # the market is away meanwhile
    again = Moderator(store, clock=clock)
    again.tick()
    assert again.agreement(name).state == "closing"
    assert again.agreement(name).due_ms == clock.now_ms + CLOSING_MS > due_ms
    clock.advance(CLOSING_MS - 1)
    again.tick()
    assert again.agreement(name).state == "closing"
    clock.advance(1)
    again.tick()
    assert again.agreement(name).state == "settled"


def test_a_commitment_is_not_lost_while_the_market_is_away() -> None:
    store = MemoryStore()
    moderator, clock = market(store)
    starts_ms = clock.now_ms + 5 * HOUR_MS
    later = msgspec.structs.replace(asked(clock), starts_ms=starts_ms, ends_ms=starts_ms + HOUR_MS)
    terms = AuctionTerms(reserve=500, open_for_ms=10_000, reveal_for_ms=60_000, receipts=False)
    auction = moderator.announce("rita", later, terms).auction
    entry = BidEntry("p0", 400, salt="s")
    bid = Bid(bid="-", auction=auction, bidder="p0", price=400, currency="EUR", salt="s")
    moderator.commit(auction, "p0", commitment(bid))
    clock.advance(2 * HOUR_MS)
    again = Moderator(store, clock=clock)
    again.tick()
    assert again.auction(auction).state == "open"
    again.reveal(auction, entry)
    clock.advance(HOUR_MS)
    again.tick()
    assert again.auction(auction).state == "agreed"
    assert again.state.ledger.balances.get("nobody", 0) == 0


def test_over_http_and_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moderator, clocks, _ = opened()
    token = moderator.register("south", "provider").token
    clocks.shown.advance(2 * HOUR_MS)
    path = tmp_path / "operator.token"
    path.write_text(OPERATOR)
    with served(moderator) as url:
        south = MarketClient(url, token, retry_for_ms=0)
        assert south.clock().is_in_doubt
        with pytest.raises(NotAllowed):
            south.confirm_clock(clocks.shown.now_ms)
        with pytest.raises(ClockInDoubt):
            south.keep_warm("south", (), clocks.shown.now_ms)
        at = ("--market", url, "--token-file", str(path))
        assert main(["market", "clock", *at, "--json"]) == 0
        assert '"is_in_doubt":true' in capsys.readouterr().out
        assert main(["market", "confirm-clock", str(clocks.shown.now_ms), *at]) == 0
        assert not south.clock().is_in_doubt


def test_the_real_clock_is_not_in_doubt() -> None:
    moderator = Moderator()
    moderator.register("rita", "recipient")
    assert not moderator.clock().is_in_doubt


def test_the_operator_keeps_out_who_does_harm_also_while_the_clock_is_in_doubt() -> None:
    moderator, clocks, auction = opened()
    token = moderator.replace_token("p0").token
    clocks.shown.advance(24 * HOUR_MS)
    moderator.tick()
    moderator.revoke_token("p0")
    with pytest.raises(BadToken):
        moderator.authenticate(token)
    moderator.ban("p0")
    assert moderator.state.ledger.balance("funds:p0") + moderator.state.ledger.balance("bond:p0") == 100_000
    for command in (lambda: moderator.lift_ban("p0"), lambda: moderator.replace_token("p0")):
        with pytest.raises(ClockInDoubt):
            command()
    moderator.confirm_clock(clocks.shown.now_ms)
    assert moderator.auction(auction).bid_count == 1
    assert moderator.close(auction).failed
    assert violations(moderator.state) == []
