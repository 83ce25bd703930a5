"""Endpoints and assignments: a provider is told what it serves, may take over or is wanted for, where, and no more."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from markets import asked, awarded, market, settled

from auction.model.bid import StandingOffer
from auction.model.endpoint import Assignments
from auction.model.errors import AuctionError, BadSignature, BadValue, NotAllowed, Unknown
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.invariants import verify
from auction.storage.sql_store import SqlStore
from auction.storage.store import Store

HERS = "r" * 40
HIS = "p" * 40


def offered(moderator: Moderator, clock: ManualClock, provider: str = "p2", **change: Any) -> StandingOffer:
    fields: dict[str, Any] = {
        "offer": f"offer-of-{provider}",
        "provider": provider,
        "service": "anonymise",
        "unit_price": 70,
        "currency": "EUR",
        "quantity": 5,
        "rate_bps_max": 5_000,
        "valid_until_ms": clock.now_ms + 1_000_000,
    }
    return moderator.stand_offer(StandingOffer(**fields | change))


def told(answer: Assignments) -> list[tuple[str, str, int]]:
    return [(one.role, one.agreement or one.offer, one.price) for one in answer.assignments]


def test_an_endpoint_is_published_read_and_replaced(store: Store) -> None:
    moderator, _ = market(store)
    with pytest.raises(Unknown):
        moderator.endpoint("rita")
    moderator.publish_endpoint("rita", HERS, address="tcp://192.0.2.1:4000")
    moderator.publish_endpoint("rita", HERS, address="tcp://192.0.2.1:4001", key="again")
    moderator.publish_endpoint("rita", HERS, address="tcp://192.0.2.1:4001", key="again")
    assert moderator.endpoint("rita").address == "tcp://192.0.2.1:4001"
    moderator.publish_endpoint("p0", HIS)
    assert moderator.endpoint("p0").curve_key == HIS
    assert Moderator(store, clock=ManualClock()).endpoint("p0") == moderator.endpoint("p0")
    if isinstance(store, SqlStore):
        assert verify(store) == []


@pytest.mark.parametrize("curve_key", ["", "short", "x" * 41, "x" * 39 + "\n", "x" * 39 + "é", 7])
def test_a_key_that_is_none_is_refused(curve_key: Any) -> None:
    moderator, _ = market()
    before = moderator.state.sequence
    with pytest.raises(BadValue):
        moderator.publish_endpoint("rita", curve_key)
    assert moderator.state.sequence == before


def test_a_market_of_signed_statements_takes_signed_endpoints_alone() -> None:
    moderator, _ = market()
    moderator.change_rules(msgspec.structs.replace(moderator.config, signatures=True))
    with pytest.raises(BadSignature):
        moderator.publish_endpoint("rita", HERS)


def test_devices_publish_nothing() -> None:
    moderator, _ = market()
    with pytest.raises(NotAllowed):
        moderator.publish_endpoint("phone", HERS)


def test_winner_and_runners_up_are_told_where_to_go_and_others_nothing() -> None:
    moderator, clock = market(providers=4)
    moderator.publish_endpoint("rita", HERS, address="tcp://192.0.2.1:4000")
    name = awarded(moderator, clock, prices=(300, 200, 250), fail_over=True)
    assert told(moderator.assignments("p1")) == [("winner", name, 250)]
    assert told(moderator.assignments("p2")) == [("runner_up", name, 250)]
    assert told(moderator.assignments("p0")) == [("runner_up", name, 300)]
    assert told(moderator.assignments("p3")) == []
    (one,) = moderator.assignments("p1").assignments
    assert (one.address, one.curve_key, one.recipient) == ("tcp://192.0.2.1:4000", HERS, "rita")
    assert (one.service, one.maximum_bps, one.ends_ms - one.starts_ms) == ("anonymise", 1_000, 60_000)
    assert told(moderator.assignments("rita")) == [("recipient", name, 250)]
    with pytest.raises(NotAllowed):
        moderator.assignments("phone")


def test_who_takes_over_is_the_winner_of_the_rest() -> None:
    moderator, clock = market()
    name = awarded(moderator, clock, fail_over=True)
    clock.advance(60_000)
    moderator.end(name, "rita", "blaming", 0)
    assert told(moderator.assignments("p0")) == [("offer", name, 250)]  # it is there, and p2 is not
    assert told(moderator.assignments("p2")) == [("offer", name, 208)]  # 50 of 60 s at 250
    assert told(moderator.assignments("p0")) == [("runner_up", name, 300)]
    rest = moderator.take_over(name, "p2").id
    assert told(moderator.assignments("p1")) == [("winner", name, 250)]
    assert told(moderator.assignments("p2")) == [("winner", rest, 208)]
    assert told(moderator.assignments("p0")) == [("runner_up", rest, 300)]


def test_an_agreement_that_is_over_is_no_assignment() -> None:
    moderator, clock = market()
    first, second = awarded(moderator, clock), awarded(moderator, clock)
    assert told(moderator.assignments("p1")) == [("winner", first, 250), ("winner", second, 250)]
    settled(moderator, first, 0)
    assert told(moderator.assignments("p1")) == [("winner", second, 250)]
    clock.advance(moderator.agreement(second).ends_ms - clock.now_ms - 1)
    assert len(moderator.assignments("p1").assignments) == 1
    clock.advance(1)
    assert told(moderator.assignments("p1")) == []


def test_offers_that_a_recipient_keeps_warm() -> None:
    moderator, clock = market()
    offer = offered(moderator, clock).offer
    moderator.publish_endpoint("rita", HERS, address="tcp://192.0.2.1:4000")
    assert told(moderator.assignments("p2")) == []
    moderator.keep_warm("rita", (offer,), clock.now_ms + 5_000)
    assert told(moderator.assignments("p2")) == [("standing", offer, 70)]
    assert moderator.assignments("p2").assignments[0].address == "tcp://192.0.2.1:4000"
    clock.advance(5_000)
    assert told(moderator.assignments("p2")) == []
    moderator.keep_warm("rita", (offer,), clock.now_ms + 5_000)
    moderator.withdraw_offer(offer, "p2")
    assert told(moderator.assignments("p2")) == []
    with pytest.raises(Unknown):
        moderator.keep_warm("rita", ("no offer",), clock.now_ms + 5_000)


def test_open_auctions_of_the_services_asked_for_and_only_ones_own_bid() -> None:
    moderator, clock = market()
    terms = AuctionTerms(receipts=False, reserve=1_000, open_for_ms=10_000)
    wanted = moderator.announce("rita", asked(clock), terms).auction
    moderator.announce("rita", asked(clock, service="scan"), terms)
    assert moderator.assignments("p0").auctions == ()
    moderator.bid(wanted, BidEntry("p0", 300))
    moderator.bid(wanted, BidEntry("p1", 200))
    (one,) = moderator.assignments("p0", services=("anonymise",)).auctions
    assert (one.announcement.auction, one.announcer, one.block.maximum_bps) == (wanted, "rita", 1_000)
    assert one.own_price == 300
    (other,) = moderator.assignments("p2", services=("anonymise", "other")).auctions
    assert other.own_price is None
    clock.advance(10_000)
    assert moderator.assignments("p0", services=("anonymise",)).auctions == ()  # time alone has closed it


def test_the_version_changes_with_what_concerns_the_provider_and_with_nothing_else() -> None:
    moderator, clock = market()
    awarded(moderator, clock)
    version = moderator.assignments("p1").version
    moderator.deposit("rita", 5, "EUR")
    clock.advance(1)
    agreed = moderator.assignments("p1").version
    assert agreed == version
    moderator.publish_endpoint("rita", HERS, address="tcp://192.0.2.1:4000")
    assert moderator.assignments("p1").version != agreed


def test_waiting_for_news_ends_with_the_news_or_with_the_time(tmp_path: Path) -> None:
    moderator, clock = market(SqlStore(f"sqlite:///{tmp_path / 'market.db'}"))
    known = moderator.assignments("p1").version
    began = time.monotonic()
    assert moderator.assignments("p1", known=known, wait_ms=60).version == known
    assert time.monotonic() - began >= 0.059  # both ends are whole milliseconds
    answers: list[Assignments] = []
    waiting = threading.Thread(target=lambda: answers.append(moderator.assignments("p1", known=known, wait_ms=20_000)))
    waiting.start()
    name = awarded(moderator, clock)
    waiting.join(10)
    assert [told(answer) for answer in answers] == [[("winner", name, 250)]]


def test_awaiting_a_close() -> None:
    moderator, clock = market()
    auction = moderator.announce(
        "rita", asked(clock), AuctionTerms(receipts=False, reserve=1_000, open_for_ms=10_000)
    ).auction
    assert moderator.await_close(auction, wait_ms=20).state == "open"
    clock.advance(10_000)
    assert moderator.await_close(auction, wait_ms=20_000).state == "void"
    with pytest.raises(AuctionError):
        moderator.await_close("no auction")


def test_what_is_told_is_what_a_look_at_every_record_finds() -> None:
    """The feed remembers which records were alive; a fresh moderator over the same journal looks at all."""
    moderator, clock = market()
    names = []
    for number in range(12):
        names.append(awarded(moderator, clock))
        if number % 3 == 0:
            settled(moderator, names[-1])
        if number % 3 == 1:
            moderator.end(names[-1], "rita", "leaving", 0)
        fresh = Moderator(moderator.store, clock=clock)
        for provider in ("p0", "p1", "p2"):
            assert fresh.assignments(provider) == moderator.assignments(provider)
