"""Memory, the saved state and the table of records do not grow with the deals of the past.

What is kept: parties, sums of ratings and of pairs, what is not over, auctions for 45 days after, settled agreements
for 120 days (while charges can be taken back) and while something is owed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from markets import asked, market, settled, signed

from auction import SqlStore
from auction.command.cli import main
from auction.model.bid import StandingOffer
from auction.model.block import Block, Timeline
from auction.model.errors import BadValue, Exists, Unknown
from auction.model.rating import DAY_MS, RatingRules
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator import state as state_file
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import replay, violations
from auction.moderator.saved import Copy, restore
from auction.storage.store import MemoryStore

FIGURES = (200, 150, 0, 200)


def deal(moderator: Moderator, clock: ManualClock, number: int) -> str:
    """One auction with two bids, its agreement settled and rated by one side or both, in half a day."""
    announced = moderator.announce("rita", asked(clock), AuctionTerms(reserve=200, open_for_ms=10_000, receipts=False))
    auction = announced.auction
    for party in ("p0", "p1"):
        moderator.bid(auction, BidEntry(party, 100 + number % 7 + (party == "p1")))
    clock.advance(120_000)
    moderator.tick()
    (name,) = moderator.auction(auction).agreements
    one = moderator.agreement(name)
    settled(moderator, name, min(one.price, FIGURES[number % 4]))
    moderator.rate(name, "rita", number % 3 > 0, device="phone")
    if number % 2:
        moderator.rate(name, one.provider, True)
    if number % 5 == 0 and one.price > 20 and moderator.agreement(name).charged > 20:
        moderator.charge_back(name, 10)
    clock.advance(DAY_MS // 2)
    return name


def size(moderator: Moderator) -> dict[str, int]:
    """How many of everything there are in memory, without the journal."""
    state, reputation = moderator.state, moderator.state.reputation
    counts = {kind: len(of_kind) for kind, of_kind in state.records.items()}
    counts |= {f"state.{name}": len(content) for name, content in vars(state).items() if hasattr(content, "__len__")}
    counts["timelines"] = sum(map(len, state.timelines.values()))
    for name, content in vars(reputation).items():
        if isinstance(content, dict) and name != "_shown":
            counts[f"reputation.{name}"] = len(content)
            counts[f"reputation.{name} in all"] = sum(
                len(one[0] if isinstance(one, tuple) and isinstance(one[0], list) else one)
                for one in content.values()
                if isinstance(one, list | dict | tuple) and hasattr(one, "__len__")
            )
    counts["balances"] = len(state.ledger.balances)
    counts["answers"] = len(moderator._answers)
    return counts


def test_it_stays_the_same_however_many_deals_there_were() -> None:
    moderator, clock = market(providers=2)
    first = deal(moderator, clock, 0)
    for number in range(1, 290):
        deal(moderator, clock, number)
    after_145_days = size(moderator)
    for number in range(290, 580):
        deal(moderator, clock, number)
    after_290_days = size(moderator)
    grown = {name: (after_145_days[name], count) for name, count in after_290_days.items()}
    assert not {name: pair for name, pair in grown.items() if pair[1] > pair[0] + 8}, "something grows"
    assert after_290_days["agreement"] <= 2 * 120 + 2
    assert after_290_days["auction"] <= 2 * 45 + 2 >= after_290_days["award"]
    assert after_290_days["bid"] <= 2 * (2 * 45 + 2)
    assert after_290_days["block"] <= 2 * 45 + 2
    with pytest.raises(Unknown):
        moderator.agreement(first)
    assert violations(moderator.state) == []
    again = replay(moderator.store.entries())
    assert again.records == moderator.state.records


def shown(moderator: Moderator) -> list[Any]:
    services = (("p0", "anonymise"), ("p1", "anonymise"), ("rita", ""))
    return [moderator.rating(*one) for one in services]


def test_ratings_are_what_they_would_be_if_nothing_was_put_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin keeps everything, and so counts a history anew from its first deal whenever money has changed. The deals
    of a pair go beyond its bound, so what a pair had counts."""
    bounded = MarketConfig(rating=RatingRules(pair_weight_max=300_000))

    def played() -> tuple[Moderator, list[Any]]:
        moderator, clock = market(config=bounded, providers=2)
        numbers = random.Random(7)
        seen = []
        for number in range(330):
            name = deal(moderator, clock, number)
            if numbers.random() < 0.1 and moderator.agreement(name).charged > 50:
                moderator.refund(name, 20, key=f"back-{number}")
            seen.append(shown(moderator))
        return moderator, seen

    moderator, seen = played()
    assert len(moderator.state.records["agreement"]) < 250
    monkeypatch.setattr(state_file, "RETIRE", dict.fromkeys(state_file.RETIRE, lambda *_: []))
    twin, expected = played()
    assert len(twin.state.records["agreement"]) == 330
    assert seen == expected


def test_a_stored_market_holds_no_more_either_and_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/market.db"
    moderator, clock = market(SqlStore(url), providers=2)
    for number in range(12):
        deal(moderator, clock, number)
    clock.advance(50 * DAY_MS)
    moderator.tick()
    deal(moderator, clock, 12)
    with moderator.store.snapshot() as stored:  # type: ignore[attr-defined]
        rows = [kind for kind, _ in stored.records()]
    assert (rows.count("auction"), rows.count("bid"), rows.count("agreement")) == (1, 2, 13)
    clock.advance(130 * DAY_MS)
    moderator.tick()
    deal(moderator, clock, 13)
    with moderator.store.snapshot() as stored:  # type: ignore[attr-defined]
        rows = [kind for kind, _ in stored.records()]
    assert (rows.count("auction"), rows.count("agreement"), rows.count("exchange")) == (1, 1, 1)
    assert main(["verify", "-d", url]) == 0, capsys.readouterr().out
    again = Moderator(SqlStore(url), clock=clock)
    assert shown(again) == shown(moderator)
    assert again.state.records == moderator.state.records


def test_what_is_owed_is_kept_until_it_is_paid() -> None:
    """A recipient that was shown a receipt above its figure owes: agreement and debt stay."""
    moderator, clock = market(providers=1)
    moderator.withdraw("rita", 1_000_000 - 5_500, "EUR")
    auction = moderator.announce(
        "rita", asked(clock), AuctionTerms(reserve=5_000, open_for_ms=10_000, format="first_price")
    ).auction
    moderator.bid(auction, BidEntry("p0", 4_000))
    clock.advance(10_000)
    moderator.tick()
    (name,) = moderator.auction(auction).agreements
    one = moderator.agreement(name)
    clock.advance(one.starts_ms - clock.now_ms)
    for party in ("p0", "rita"):
        moderator.assignments(party)
    clock.advance(60_000)
    receipt = signed(moderator, name, 120)
    moderator.end(name, "rita", "finished", 0)
    clock.advance(3_700_000)
    moderator.tick()
    moderator.withdraw("rita", moderator.balance("rita"), "EUR")
    owed = moderator.hand_in(name, "p0", receipt).debt
    assert owed > 0
    clock.advance(400 * DAY_MS)
    moderator.deposit("p0", 1, "EUR")
    moderator.deposit("p0", 1, "EUR")
    assert moderator.agreement(name).debt == owed
    with pytest.raises(Unknown):
        moderator.auction(auction)
    moderator.deposit("rita", owed, "EUR")
    with pytest.raises(Unknown):
        moderator.agreement(name)
    assert moderator.state.records["debt"] == {}
    assert violations(moderator.state) == []
    assert replay(moderator.store.entries()).records == moderator.state.records


def test_a_timeline_forgets_what_is_over_and_nothing_else() -> None:
    numbers = random.Random(3)
    kept, whole = Timeline(), Timeline()
    for now_ms in range(0, 60_000, 20):
        starts_ms = now_ms + numbers.randrange(500)
        ends_ms = starts_ms + numbers.randrange(1, 400)
        for one in (kept, whole):
            one.add(starts_ms, ends_ms, numbers.randrange(1, 2) * 7)
        kept.forget(now_ms)
        window = (now_ms + numbers.randrange(900), now_ms + 900 + numbers.randrange(1, 300))
        assert kept.peak_bps(*window) == whole.peak_bps(*window)
    assert len(kept) < 200 < len(whole)


def is_refused(call: Callable[[Moderator], object], moderator: Moderator) -> bool:
    try:
        call(moderator)
    except Exists:
        return True
    return False


def test_a_name_is_never_given_to_a_second_thing() -> None:
    """Also when the first is put away: links, receipts and invoices name things for longer than they are kept."""
    moderator, clock = market(store := MemoryStore())
    moderator.register("rob", "recipient")
    moderator.deposit("rob", 10_000, "EUR")
    terms = AuctionTerms(reserve=200, open_for_ms=10_000, receipts=False)

    def own(name: str, provider: str = "") -> Block:
        return msgspec.structs.replace(asked(clock), id=name, provider=provider)

    def offer(name: str, provider: str = "p1") -> StandingOffer:
        fields = {"service": "anonymise", "unit_price": 10, "currency": "EUR", "quantity": 1, "rate_bps_max": 500}
        return StandingOffer(offer=name, provider=provider, valid_until_ms=clock.now_ms + 9_000, **fields)  # type: ignore[arg-type]

    moderator.announce("rita", own("cell"), terms, auction="first")
    moderator.bid("first", BidEntry("p0", 100))
    moderator.publish_block(own("spare", "p1"))
    moderator.stand_offer(offer("standing"))
    clock.advance(120_000)
    moderator.tick()
    (agreement,) = moderator.auction("first").agreements
    settled(moderator, agreement)
    clock.advance(60 * DAY_MS)
    moderator.deposit("rita", 1, "EUR")
    for kind, name in (("auction", "first"), ("block", "cell"), ("block", "spare"), ("offer", "standing")):
        assert name not in moderator.state.records[kind]
    assert moderator.agreement(agreement).block == "cell"  # its charges can be taken back for 120 days

    calls: dict[str, Callable[[Moderator], object]] = {
        "an auction": lambda market: market.announce("rob", own(""), terms, auction="first"),
        "an auction named as an offer": lambda market: market.announce("rob", own(""), terms, auction="standing"),
        "the block of an auction": lambda market: market.announce("rob", own("cell"), terms),
        "a block": lambda market: market.publish_block(own("spare", "p0")),
        "an offer": lambda market: market.stand_offer(offer("standing", "p0")),
        "an offer named as an auction": lambda market: market.stand_offer(offer("first", "p0")),
    }
    restored = restore(list(Copy(moderator.state, b"", {}, []).parts()))
    assert restored is not None
    assert restored.state.names_used == moderator.state.names_used == replay(store.entries()).names_used
    assert len(moderator.state.names_used) == 5
    for one in (moderator, Moderator(store, clock=clock)):
        taken = [what for what, call in calls.items() if not is_refused(call, one)]
        assert taken == []
    for name in ("block-of-first", "block-of-auction-99"):  # they are the market's own
        with pytest.raises(BadValue):
            moderator.publish_block(own(name, "p0"))
    moderator.stand_offer(offer("standing"))  # its provider places it again
    assert violations(moderator.state) == []
