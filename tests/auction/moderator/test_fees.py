"""The moderator's fee: announced, held with the price, taken of what was earned; nothing is earned, nothing is due."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markets import asked, awarded, figure_of, market, money, nobody, poll, public_key_of, settled, signed

from auction import AuctionTerms, BidEntry, Fee, ManualClock, MarketConfig, Moderator
from auction.model.bid import StandingOffer
from auction.model.billing import as_text
from auction.model.errors import AuctionError, BadCurrency, InsufficientFunds
from auction.model.holding import with_delta
from auction.model.takeover import may_cost
from auction.moderator.invariants import replay, violations
from auction.payment.protocol import Dispute, Outcome
from auction.storage.store import MemoryStore

FEE = Fee(ppm=25_000, fixed=10)  # 2.5 % and 10
RITA, BOND = 1_000_000, 100_000


def with_fee(fee: Fee = FEE, **named: Any) -> tuple[Moderator, ManualClock]:
    return market(config=MarketConfig(fee=fee), **named)


def check(moderator: Moderator, paid_in: int) -> None:
    """What was paid in is with parties, with nobody, or with the operator; nothing is held."""
    balances = moderator.state.ledger.balances
    parties = sum(money(moderator, name) for name in moderator.state.records["party"])
    assert parties + nobody(moderator) + balances.get("fees", 0) == paid_in
    assert violations(moderator.state) == []


def test_a_fee_is_announced_held_and_taken_of_what_was_earned() -> None:
    moderator, clock = market(store := MemoryStore(), MarketConfig(fee=FEE))
    auction = moderator.announce("rita", asked(clock), AuctionTerms(reserve=1_000, open_for_ms=10_000, receipts=False))
    assert auction.fee == FEE
    assert RITA - money(moderator, "rita") == 1_100 + 25 + 10  # R(1+δ) and the fee of R
    moderator.bid(auction.auction, BidEntry("p0", 400))
    clock.advance(10_000)
    moderator.close(auction.auction)
    (name,) = moderator.auction(auction.auction).agreements
    one = moderator.agreement(name)
    assert (one.price, one.recipient_held) == (1_000, 1_135)  # alone: at the reserve
    clock.advance(120_000)
    one = settled(moderator, name, 600)
    assert (one.paid, one.charged, one.fee_charged) == (600, 600, 15 + 10)
    assert money(moderator, "rita") == RITA - 600 - 25
    assert money(moderator, "p0") == BOND + 600
    assert moderator.fees() == 25
    check(moderator, RITA + 3 * BOND)
    assert replay(store.entries()).records == moderator.state.records
    bill = moderator.invoice(name)
    assert (bill.charged, [line.amount for line in bill.lines]) == (625, [600, 25])
    assert "fee of the market" in as_text(bill)
    with pytest.raises(BadCurrency):
        moderator.withdraw_fees(5, "USD")
    with pytest.raises(InsufficientFunds):
        moderator.withdraw_fees(26, "EUR")
    assert moderator.withdraw_fees(20, "EUR") == 5
    check(moderator, RITA + 3 * BOND - 20)


@pytest.mark.parametrize("ends", ["nothing", "silence", "blame", "differ"])
def test_nobody_pays_a_fee_for_what_was_not_earned(ends: str) -> None:
    moderator, clock = with_fee()
    name = awarded(moderator, clock)  # at 250
    clock.advance(120_000)
    if ends == "nothing":
        one = settled(moderator, name, 0)
    elif ends == "blame":
        moderator.end(name, "rita", "blaming", 0)
    elif ends == "differ":
        moderator.end(name, "rita", "finished", 100)
        moderator.end(name, "p1", "finished", 250)
    clock.advance(4_000_000)
    moderator.tick()
    one = moderator.agreement(name)
    assert one.state == "settled"
    assert moderator.fees() == one.fee_charged == (100 * 25_000 // 1_000_000 + 10 if ends == "differ" else 0)
    check(moderator, RITA + 3 * BOND)


def test_the_cost_that_is_told_has_the_fee() -> None:
    moderator, clock = with_fee()
    name = awarded(moderator, clock)
    clock.advance(120_000)
    told = moderator.cost_of(name, "rita", "finished", 200)
    assert [(one.amount, one.why) for one in told.payouts if one.target == "operator"] == [(15, "the market's fee")]


def test_rules_that_change_leave_what_was_announced() -> None:
    moderator, clock = with_fee()
    name = awarded(moderator, clock)
    moderator.change_rules(MarketConfig(fee=Fee(ppm=500_000)))
    clock.advance(120_000)
    assert settled(moderator, name).fee_charged == 6 + 10
    assert moderator.announce("rita", asked(clock), AuctionTerms(reserve=10, open_for_ms=9)).fee == Fee(ppm=500_000)
    for wrong in ({"ppm": 1_000_001}, {"ppm": -1}, {"fixed": -1}):
        with pytest.raises(AuctionError):
            Fee(**wrong)


def test_who_buys_a_block_pays_the_fee_and_holds_it() -> None:
    moderator, clock = with_fee()
    block = moderator.publish_block(msgspec.structs.replace(asked(clock), provider="p0"))
    terms = AuctionTerms(reserve=100, open_for_ms=10_000, receipts=False, format="first_price")
    auction = moderator.announce("p0", block.id, terms).auction
    moderator.bid(auction, BidEntry("rita", 400))
    assert RITA - money(moderator, "rita") == 440 + 10 + 10
    clock.advance(10_000)
    moderator.close(auction)
    (name,) = moderator.auction(auction).agreements
    clock.advance(120_000)
    assert settled(moderator, name).fee_charged == 20
    assert money(moderator, "rita") == RITA - 420
    check(moderator, RITA + 3 * BOND)


def test_a_spot_award_holds_the_fee_or_is_refused() -> None:
    moderator, clock = with_fee()
    offer = {
        "offer": "o",
        "provider": "p0",
        "service": "anonymise",
        "unit_price": 200,
        "currency": "EUR",
    }
    moderator.stand_offer(
        StandingOffer(**offer, quantity=5, rate_bps_max=1_000, valid_until_ms=clock.now_ms + 80_000_000)  # type: ignore[arg-type]
    )
    moderator.register("poor", "recipient", public_key=public_key_of("poor"))
    moderator.deposit("poor", 234, "EUR")
    terms = AuctionTerms(reserve=200, open_for_ms=1_000, receipts=False)
    with pytest.raises(InsufficientFunds):
        moderator.spot("poor", asked(clock), terms)
    moderator.deposit("poor", 1, "EUR")
    assert moderator.spot("poor", asked(clock), terms).recipient_held == 220 + 5 + 10
    assert moderator.balance("poor") == 0


def test_of_several_winners_each_agreement_has_its_fee() -> None:
    moderator, clock = with_fee()
    terms = AuctionTerms(reserve=101, open_for_ms=10_000, receipts=False, format="uniform_price", quantity=3)
    auction = moderator.announce("rita", asked(clock, 3_000), terms).auction
    assert RITA - money(moderator, "rita") == 303 + 31 + 7 + 3 * 10
    moderator.bid(auction, BidEntry("p0", 50, quantity=2))
    moderator.bid(auction, BidEntry("p1", 60))
    clock.advance(10_000)
    moderator.close(auction)
    names = moderator.auction(auction).agreements
    assert len(names) == 2
    clock.advance(120_000)
    fees = [settled(moderator, name).fee_charged for name in names]
    assert fees == [202 * 25 // 1_000 + 10, 101 * 25 // 1_000 + 10]
    assert moderator.fees() == sum(fees)
    check(moderator, RITA + 3 * BOND)


def test_who_takes_a_rest_over_is_paid_with_its_fee_out_of_the_reserve() -> None:
    moderator, clock = with_fee()
    name = awarded(moderator, clock, fail_over=True, receipts=True)
    clock.advance(50_000)
    poll(moderator, "p1", "p2", "rita")
    clock.advance(10_000)
    moderator.tick()
    clock.advance(20_000)
    poll(moderator, "p2", "rita")
    receipt = signed(moderator, name, 60)
    moderator.hand_in(name, "p1", receipt)
    figure = figure_of(moderator, name, receipt)
    moderator.end(name, "p1", "leaving", figure)
    rest = moderator.take_over(name, "p2")
    assert rest.recipient_held >= rest.own_hold == with_delta(rest.price, 100_000) + FEE.of(rest.price)
    moderator.end(name, "rita", "blaming", figure)
    clock.advance(5_000)
    poll(moderator, "p2", "rita")
    clock.advance(5_000)
    moderator.tick()
    clock.advance(100_000)
    settled(moderator, rest.id)
    clock.advance(4_000_000)
    moderator.tick()
    assert moderator.fees() == FEE.of(figure) + FEE.of(rest.price)
    check(moderator, RITA + 3 * BOND)


def test_a_group_shares_the_price_and_its_organiser_pays_the_fee() -> None:
    moderator, clock = with_fee()
    for name in ("mia", "max"):
        moderator.register(name, "recipient")
        moderator.deposit(name, 1_000, "EUR")
    auction = moderator.announce("rita", asked(clock), AuctionTerms(reserve=1_000, open_for_ms=10_000, receipts=False))
    group = moderator.open_group(auction.auction, "rita").id
    moderator.bid(auction.auction, BidEntry("p0", 400))
    moderator.bid(auction.auction, BidEntry("p1", 500))
    for name in ("rita", "mia", "max"):
        moderator.join_group(group, name, 300)
    clock.advance(10_000)
    moderator.tick()
    (name,) = moderator.auction(auction.auction).agreements  # at 500
    moderator.settle_group(group)
    clock.advance(120_000)
    settled(moderator, name, 250)
    parts = {one: 1_000 - moderator.balance(one) for one in ("mia", "max")}
    parts["rita"] = RITA - money(moderator, "rita")
    assert parts["rita"] + parts["mia"] + parts["max"] == 250 + 6 + 10
    assert 16 + 83 <= parts["rita"] <= 16 + 84
    check(moderator, RITA + 3 * BOND + 2_000)


class Card:
    """Captures so much at most."""

    def __init__(self, most: int) -> None:
        self.most = most

    def authorise(self, key: str, source: str, amount: int, currency: str) -> Outcome:
        assert amount == 1_100 + 35
        return Outcome(True, "card")

    def capture(self, key: str, reference: str, amount: int) -> Outcome:
        assert amount == 250 + 16
        return Outcome(True, reference, "", min(amount, self.most))

    def void(self, key: str, reference: str) -> Outcome:
        return Outcome(True, reference)

    def refund(self, key: str, reference: str, amount: int) -> Outcome:
        return Outcome(True, reference)

    def read_dispute(self, payload: bytes, signature: str) -> Dispute | None:
        return None


@pytest.mark.parametrize(("captured", "provider", "fees"), [(300, 250, 16), (260, 250, 10), (100, 100, 0)])
def test_a_card_pays_the_provider_first_and_what_is_missing_is_owed(captured: int, provider: int, fees: int) -> None:
    moderator, clock = with_fee(processors={"card": Card(captured)})
    terms = AuctionTerms(reserve=1_000, open_for_ms=10_000, receipts=False, method="card", source="token")
    auction = moderator.announce("rita", asked(clock), terms).auction
    moderator.pay(auction)
    moderator.bid(auction, BidEntry("p0", 200))
    moderator.bid(auction, BidEntry("p1", 250))
    moderator.withdraw("rita", RITA, "EUR")  # so that nothing of what is owed is paid at once
    clock.advance(10_000)
    moderator.tick()
    (name,) = moderator.auction(auction).agreements
    clock.advance(120_000)
    one = settled(moderator, name)
    assert (money(moderator, "p0") - BOND, moderator.fees()) == (provider, fees)
    assert one.debt == 266 - provider - fees
    moderator.deposit("rita", 1_000, "EUR")
    assert (money(moderator, "p0") - BOND, moderator.fees()) == (250, 16)
    assert violations(moderator.state) == []


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(10_000, 500_000),
    st.integers(0, 10**6),
    st.integers(0, 500),
)
def test_what_a_rest_may_cost_leaves_room_for_its_fee(
    held: int, owed: int, delta_ppm: int, ppm: int, fixed: int
) -> None:
    fee = Fee(ppm=ppm, fixed=fixed)
    price, left = may_cost(held, owed, delta_ppm, fee), max(0, held - owed)
    assert with_delta(price, delta_ppm) + fee.of(price) <= left
    assert with_delta(price + 1, delta_ppm) + fee.of(price + 1) > left
