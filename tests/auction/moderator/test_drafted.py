"""Drafted ratings: the recipient's from measured delivery, the provider's from the charge; a person can overrule."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markets import awarded, market, measured

from auction.model.errors import BadSignature, BadValue, Exists, NotAllowed, WrongState
from auction.model.rating import DAY_MS, RatingRules, draft_of_service
from auction.moderator import Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import violations
from auction.storage.store import Store

HOUR_MS = 3_600_000


def served(
    delivered_ppm: int = 1_000_000,
    by: str = "phone",
    store: Store | None = None,
    audited: int = 0,
    audits_failed: int = 0,
    config: MarketConfig | None = None,
) -> tuple[Moderator, ManualClock, str]:
    """A market with one agreement that was served like this, measured by this party, and charged."""
    moderator, clock = market(store, config)
    name = awarded(moderator, clock)
    moderator.agree(name)
    clock.advance(60_000)
    moderator.start(name)
    delivery = measured(moderator, name, by, delivered_ppm)
    moderator.deliver(msgspec.structs.replace(delivery, audited=audited, audits_failed=audits_failed))
    clock.advance(60_000)
    moderator.finish(name)
    moderator.charge(name)
    return moderator, clock, name


@given(st.integers(0, 1_000_000), st.integers(0, 50), st.integers(0, 50), st.integers(0, 1_000_000))
def test_the_rule_of_the_recipients_draft(delivered: int, audited: int, failed: int, threshold: int) -> None:
    failed = min(failed, audited)
    drafted = draft_of_service(delivered, audited, failed, RatingRules(satisfied_from_ppm=threshold))
    assert drafted.satisfied == (delivered >= threshold and failed == 0)


@pytest.mark.parametrize(
    ("delivered", "audited", "failed", "satisfied"),
    [
        (1_000_000, 0, 0, True),
        (950_000, 0, 0, True),
        (949_999, 0, 0, False),
        (1_000_000, 20, 0, True),
        (1_000_000, 20, 1, False),
        (0, 0, 0, False),
    ],
)
def test_the_recipients_draft_follows_what_its_side_measured(
    delivered: int, audited: int, failed: int, satisfied: bool
) -> None:
    moderator, _, name = served(delivered, audited=audited, audits_failed=failed)
    drafted = moderator.drafted_rating(name, "rita")
    assert drafted is not None
    assert drafted.satisfied is satisfied
    (delivery,) = drafted.evidence
    assert moderator.state.records["delivery"][delivery].delivery.measured_by == "phone"
    if failed:
        assert "1 of 20 audited results wrong" in drafted.remark


def test_what_the_provider_alone_measured_drafts_nothing() -> None:
    moderator, _, name = served(by="p1")
    assert moderator.agreement(name).charged == 250
    assert moderator.drafted_rating(name, "rita") is None
    with pytest.raises(WrongState):
        moderator.rate_as_drafted(name, "rita", device="phone")


def test_who_took_over_is_rated_by_its_own_part() -> None:
    moderator, clock = market()
    name = awarded(moderator, clock)
    moderator.agree(name)
    clock.advance(60_000)
    moderator.start(name)
    moderator.deliver(measured(moderator, name, "phone", 100_000))
    clock.advance(30_000)
    moderator.replace(name)
    assert moderator.drafted_rating(name, "rita") is None  # nothing is measured of the new one yet
    moderator.deliver(measured(moderator, name, "phone", 1_000_000))
    drafted = moderator.drafted_rating(name, "rita")
    assert drafted is not None
    assert drafted.satisfied
    with pytest.raises(NotAllowed):
        moderator.drafted_rating(name, "p1")  # it is no side any more


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
    assert (service.satisfied, service.device, len(service.evidence)) == (True, "phone", 1)
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


@pytest.mark.parametrize(("served_ms", "mean_ppm"), [(0, 333_333), (15_000, 416_666), (45_000, 583_333)])
def test_evidence_of_who_failed_covers_what_another_had_to_serve(served_ms: int, mean_ppm: int) -> None:
    """It delivered all until it failed, so its own part was perfect; what it had taken on was the whole window."""
    moderator, clock = market(config=MarketConfig(rating=RatingRules(value_full=250)))
    name = awarded(moderator, clock)
    moderator.agree(name)
    starts_ms = moderator.agreement(name).starts_ms
    clock.advance(starts_ms + served_ms - clock.now_ms)
    moderator.start(name)
    if served_ms:
        moderator.deliver(measured(moderator, name, "phone", served_ms * 1_000_000 // 60_000))
    taken = moderator.replace(name)
    moderator.deliver(measured(moderator, name, "phone", 1_000_000))
    clock.advance(60_000)
    moderator.finish(name)
    moderator.charge(name)
    # One deal that weighs fully, beside a prior of one yes and one no.
    assert moderator.rating("p1", "anonymise").evidence_mean_ppm == mean_ppm
    assert moderator.rating(taken.provider, "anonymise").evidence_mean_ppm > 500_000
