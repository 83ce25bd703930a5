"""Drafted ratings: the recipient's from what was earned, the provider's from the charge; a person can overrule."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markets import awarded, market, settled

from auction.model.errors import BadSignature, BadValue, Exists, NotAllowed, WrongState
from auction.model.rating import DAY_MS, RatingRules, draft_of_service
from auction.moderator import Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import violations
from auction.storage.store import Store

HOUR_MS = 3_600_000


def served(
    earned: int = 250, store: Store | None = None, config: MarketConfig | None = None
) -> tuple[Moderator, ManualClock, str]:
    """A market with one agreement, at 250, that has come to this."""
    moderator, clock = market(store, config)
    name = awarded(moderator, clock)
    clock.advance(120_000)
    settled(moderator, name, earned)
    return moderator, clock, name


@given(st.integers(1, 1_000_000), st.integers(0, 1_000_000), st.booleans(), st.integers(0, 1_000_000))
def test_the_rule_of_the_recipients_draft(price: int, paid: int, falsified: bool, threshold: int) -> None:
    paid = min(paid, price)
    drafted = draft_of_service(price, paid, falsified, RatingRules(satisfied_from_ppm=threshold))
    assert drafted.satisfied == (paid * 1_000_000 // price >= threshold and not falsified)


@pytest.mark.parametrize(("earned", "satisfied"), [(250, True), (238, True), (237, False), (0, False)])
def test_the_recipients_draft_follows_what_was_earned(earned: int, satisfied: bool) -> None:
    moderator, _, name = served(earned)
    drafted = moderator.drafted_rating(name, "rita")
    assert drafted is not None
    assert drafted.satisfied is satisfied


def test_the_providers_draft_follows_the_charge() -> None:
    moderator, _, name = served()
    drafted = moderator.drafted_rating(name, "p1")
    assert drafted is not None
    assert (drafted.satisfied, drafted.remark) == (True, "the charge was captured")
    moderator.charge_back(name, 250)
    drafted = moderator.drafted_rating(name, "p1")
    assert drafted is not None
    assert (drafted.satisfied, drafted.remark) == (False, "the charge was charged_back")
    other, clock = market()
    assert other.drafted_rating(awarded(other, clock), "p1") is None


def test_both_rate_as_drafted_and_the_next_auction_shows_it(store: Store) -> None:
    moderator, clock, name = served(store=store)
    assert moderator.rate_as_drafted(name, "rita", device="phone", key="r").satisfied
    assert moderator.rate_as_drafted(name, "rita", device="phone", key="r").satisfied  # sent twice, done once
    assert moderator.opinions(name) == ()
    moderator.rate_as_drafted(name, "p1")
    service, payment = moderator.opinions(name)
    assert (service.satisfied, service.device) == (True, "phone")
    assert payment.satisfied
    awarded(moderator, clock)
    assert moderator.rating("p1", "anonymise").count == 1
    with pytest.raises(WrongState):
        moderator.rate_as_drafted(name, "rita", device="phone")
    assert violations(moderator.state) == []
    assert Moderator(store, clock=clock).opinions(name) == moderator.opinions(name)


def test_a_draft_that_nobody_overrules_counts_when_its_time_has_come(store: Store) -> None:
    moderator, clock, name = served(store=store)
    moderator.rate(name, "p1", True)
    moderator.rate_as_drafted(name, "rita", device="phone", overrule_ms=HOUR_MS)
    with pytest.raises(Exists):
        moderator.rate_as_drafted(name, "rita", device="phone", overrule_ms=HOUR_MS)
    clock.advance(HOUR_MS - 1)
    moderator.tick()
    assert moderator.opinions(name) == ()
    again = Moderator(store, clock=clock, config=moderator.config)  # a moderator that is started again knows of it
    clock.advance(1)
    again.tick()
    service, _ = again.opinions(name)
    assert (service.satisfied, service.at_ms) == (True, clock.now_ms)
    assert violations(again.state) == []


@pytest.mark.parametrize("late_ms", [0, HOUR_MS, 30 * DAY_MS])
def test_a_person_overrules_a_draft_by_rating(late_ms: int) -> None:
    moderator, clock, name = served()
    moderator.rate_as_drafted(name, "rita", device="phone", overrule_ms=HOUR_MS)
    moderator.rate(name, "rita", False, device="phone", remark="the sound was bad")
    clock.advance(HOUR_MS + late_ms)
    moderator.rate(name, "p1", True) if late_ms < 14 * DAY_MS else moderator.tick()
    service = moderator.opinions(name)[0]
    assert (service.satisfied, service.remark) == (False, "the sound was bad")


def test_a_moderator_that_was_away_takes_the_draft_as_of_its_time_before_it_reveals() -> None:
    moderator, clock, name = served()
    moderator.rate_as_drafted(name, "rita", device="phone", overrule_ms=HOUR_MS)
    due_ms = clock.now_ms + HOUR_MS
    clock.advance(30 * DAY_MS)
    moderator.tick()
    (service,) = moderator.opinions(name)
    assert service.at_ms == due_ms
    assert moderator.rating("p1", "anonymise").count == 1


def test_what_cannot_be_drafted_or_not_by_this_one_is_refused() -> None:
    moderator, clock, name = served()
    before = moderator.state.sequence
    with pytest.raises(NotAllowed):
        moderator.rate_as_drafted(name, "p0")
    with pytest.raises(NotAllowed):
        moderator.rate_as_drafted(name, "rita", device="p0")
    for overrule_ms in (-1, 14 * DAY_MS, 1.5):
        with pytest.raises(BadValue):
            moderator.rate_as_drafted(name, "rita", device="phone", overrule_ms=overrule_ms)  # type: ignore[arg-type]
    assert moderator.state.sequence == before
    unfinished = awarded(moderator, clock)
    with pytest.raises(WrongState):
        moderator.rate_as_drafted(unfinished, "p1")


def test_a_market_of_signed_statements_wants_the_drafted_words_signed() -> None:
    moderator, _, name = served()
    moderator.change_rules(msgspec.structs.replace(moderator.config, signatures=True))
    with pytest.raises(BadSignature):
        moderator.rate_as_drafted(name, "rita", device="phone")
