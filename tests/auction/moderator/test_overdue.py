"""A deadline that cannot be carried out hurts its own agreement alone, and the money in a market is bounded."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from markets import asked, awarded, market, money, settled

from auction import SqlStore
from auction.model.errors import BadAmount, Unknown
from auction.model.money import AMOUNT_MAX, MONEY_MAX
from auction.moderator import AuctionTerms, Moderator
from auction.moderator.invariants import replay, violations
from auction.moderator.rules.due import RETRY_MS
from auction.storage.store import MemoryStore


def test_a_deadline_that_fails_hurts_its_own_agreement_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("auction.moderator.rules.holds.MONEY_MAX", 2**70)  # as before there was a bound
    moderator, clock = market(store := MemoryStore())
    bad, good = awarded(moderator, clock), awarded(moderator, clock, (200, 300, 250))
    assert [moderator.agreement(name).provider for name in (bad, good)] == ["p1", "p0"]
    moderator.deposit("p1", AMOUNT_MAX - moderator.balance("p1"), "EUR")  # there is no room for what it earns
    clock.advance(115_000)
    for name in (bad, good):
        moderator.end(name, "rita", "finished", 250)
    clock.advance(3_600_000)
    with caplog.at_level(logging.ERROR):
        moderator.tick()
    assert [moderator.agreement(name).state for name in (bad, good)] == ["closing", "settled"]
    (late,) = moderator.overdue()
    assert (late.id, late.tries, late.next_ms) == (f"agreement/{bad}", 1, clock.now_ms + RETRY_MS)
    assert late.reason == "BadAmount: funds:p1 would exceed the largest balance of the ledger"
    words = f"{late.id} was due at {late.due_ms} and failed: {late.reason}"
    assert [one.getMessage() for one in caplog.records] == [words]
    assert violations(moderator.state) == []
    moderator.deposit("rita", 1, "EUR")  # other commands go on, and it is not tried before its time
    assert moderator.overdue() == Moderator(store, clock=clock).overdue() == [late]
    clock.advance(RETRY_MS)
    moderator.tick()
    (later,) = moderator.overdue()
    assert (later.tries, later.next_ms) == (2, clock.now_ms + 2 * RETRY_MS)
    moderator.withdraw("p1", 10_000, "EUR")
    clock.advance(2 * RETRY_MS)
    moderator.tick()
    assert (moderator.agreement(bad).state, moderator.agreement(bad).paid, moderator.overdue()) == ("settled", 250, [])
    assert violations(moderator.state) == []
    assert replay(store.entries()).records == moderator.state.records
    clock.advance(50 * 86_400_000)
    moderator.tick()
    moderator.deposit("rita", 1, "EUR")
    assert moderator.state.records["overdue"] == {}


def test_what_fails_for_any_other_reason_is_put_off_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is gone when it is tried moderator."""
    moderator, clock = market()
    auction = moderator.announce("rita", asked(clock), AuctionTerms(reserve=500, open_for_ms=10_000)).auction

    def fail(*_: object) -> None:
        raise ZeroDivisionError("of\nno use")

    with monkeypatch.context() as patch:
        patch.setattr("auction.moderator.rules.awarding.close", fail)
        clock.advance(10_000)
        moderator.tick()
    (late,) = moderator.overdue()
    assert late.reason == "ZeroDivisionError: of no use"
    moderator.ban("rita")  # makes the auction void meanwhile
    clock.advance(RETRY_MS)
    moderator.tick()
    assert (moderator.overdue(), moderator.auction(auction).state) == ([], "void")


def test_all_the_money_of_a_market_is_bounded() -> None:
    moderator, clock = market()
    inside = 1_300_000
    with pytest.raises(BadAmount, match="at most 9007199254740991"):
        moderator.deposit("p0", MONEY_MAX - inside + 1, "EUR")
    moderator.deposit("p0", MONEY_MAX - inside, "EUR")
    with pytest.raises(BadAmount):
        moderator.deposit("p1", 1, "EUR")
    name = awarded(moderator, clock)
    assert settled(moderator, name).paid == 250
    assert money(moderator, "p0") == MONEY_MAX - inside + 100_000
    moderator.withdraw("p0", 5, "EUR")
    moderator.deposit("p1", 5, "EUR")
    with pytest.raises(Unknown):
        moderator.deposit("nobody-here", 1, "EUR")


def test_what_is_loaded_anew_is_not_tried_before_its_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The journal is folded from its start, where the deadline stands as it was."""
    url = f"sqlite:///{tmp_path}/market.db"
    moderator, clock = market(SqlStore(url))
    moderator.announce("rita", asked(clock), AuctionTerms(reserve=500, open_for_ms=10_000))
    monkeypatch.setattr("auction.moderator.rules.awarding.close", lambda *_: 1 // 0)
    clock.advance(10_000)
    moderator.tick()
    other = Moderator(SqlStore(url), clock=clock)
    before = other.state.sequence
    assert other.tick() == 0
    assert (other.state.sequence, other.overdue()) == (before, moderator.overdue())
