"""Paying: prepaid balances and cards, authorised before bidding, captured once, refunded, charged back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from markets import asked, awarded, counted_bytes, market, nobody, settled
from stripe_server import StripeServer, notice

from auction.model.errors import (
    BadAmount,
    BadCurrency,
    BadSignature,
    BadValue,
    Declined,
    InsufficientFunds,
    NotAllowed,
    PaymentUnknown,
    PrepaymentRequired,
    WrongState,
)
from auction.model.lifecycle import CHARGEBACK_MS
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.invariants import violations
from auction.payment.protocol import Outcome
from auction.payment.stripe import StripeProcessor
from auction.storage.store import MemoryStore

pytest.importorskip("stripe", reason="the extra `cards` is not installed")
SECRET = "whsec_test"


@pytest.fixture
def server() -> Iterator[StripeServer]:
    with StripeServer() as running:
        yield running
        running.shutdown()


def card_auction(server: StripeServer, source: str = "pm_card_visa") -> tuple[Moderator, ManualClock, str]:
    """A market with a card processor, and an auction with a reserve of 1,000 that waits for its card."""
    moderator, clock = market()
    moderator.processors["card"] = StripeProcessor("sk_test_1", SECRET, server.url)
    terms = AuctionTerms(
        reserve=1_000, open_for_ms=10_000, receipts=False, format="first_price", method="card", source=source
    )
    return moderator, clock, moderator.announce("rita", asked(clock), terms).auction


def agreed(moderator: Moderator, clock: ManualClock, auction: str) -> str:
    """The agreement with p1 at 250, after the card was authorised."""
    moderator.pay(auction)
    moderator.bid(auction, BidEntry("p1", 250))
    clock.advance(10_000)
    moderator.tick()
    return moderator.auction(auction).agreements[0]


def test_prepaid_held_at_the_award_and_paid_by_what_was_earned() -> None:
    moderator, clock = market()
    name = awarded(moderator, clock)
    assert moderator.state.ledger.balance(f"held:{name}") == 275
    assert settled(moderator, name, 83).charged == 83
    assert (moderator.balance("p1"), moderator.balance("rita")) == (83, 1_000_000 - 83)


def test_prepaid_refund_and_chargeback() -> None:
    moderator, clock = market()
    name = awarded(moderator, clock)
    settled(moderator, name)
    assert moderator.refund(name, 50, key="r1").refunded == 50
    assert moderator.refund(name, 50, key="r1").refunded == 50
    with pytest.raises(BadValue):
        moderator.refund(name, 201, key="r2")
    moderator.withdraw("p1", 200, "EUR")
    moderator.release_bond("p1", 99_900, "EUR")
    moderator.withdraw("p1", 99_900, "EUR")
    back = moderator.charge_back(name, 200)
    assert (back.state, back.charged_back) == ("settled", 200)
    # Its bond pays first, and then it owes.
    assert (moderator.state.ledger.balance("bond:p1"), moderator.balance("p1")) == (0, -100)
    assert moderator.balance("rita") == 1_000_000
    assert violations(moderator.state) == []


def test_what_is_not_there_is_not_held() -> None:
    moderator, clock = market()
    moderator.withdraw("rita", 1_000_000 - 1_099, "EUR")
    with pytest.raises(InsufficientFunds):
        moderator.announce("rita", asked(clock), AuctionTerms(reserve=1_000, open_for_ms=1))


@pytest.mark.parametrize("amount", [-1, 2**63, 2**70, 1.0, float("nan"), float("inf"), True, "5", None])
def test_bad_amounts_are_refused_and_nothing_changes(amount: object) -> None:
    moderator, _ = market()
    before = moderator.state.sequence
    for command in (moderator.deposit, moderator.withdraw, moderator.post_bond):
        with pytest.raises(BadAmount):
            command("rita", amount, "EUR")  # type: ignore[arg-type]
    assert moderator.state.sequence == before


def test_balances_do_not_overflow() -> None:
    moderator, _ = market()
    with pytest.raises(BadAmount):
        moderator.deposit("rita", 2**63 - 1, "EUR")
    assert moderator.balance("rita") == 1_000_000


def test_another_currency_is_refused() -> None:
    moderator, _ = market()
    for currency in ("USD", "eur", "EURO", ""):
        with pytest.raises(BadCurrency):
            moderator.deposit("rita", 1, currency)


def test_a_card_is_authorised_before_bidding_captured_once_and_the_rest_let_go(server: StripeServer) -> None:
    moderator, clock, auction = card_auction(server)
    with pytest.raises(WrongState):
        moderator.bid(auction, BidEntry("p1", 250))
    name = agreed(moderator, clock, auction)
    assert server.intents["pi_1"]["amount_capturable"] == 1_100  # R(1+δ)
    assert (moderator.agreement(name).recipient_held, moderator.balance("rita")) == (275, 1_000_000)
    assert settled(moderator, name, 100).charged == 100
    assert (server.settled(), moderator.balance("p1")) == (100, 100)
    assert -moderator.state.ledger.balance("outside:card") == 100
    moderator.refund(name, 30, key="r")
    assert (server.settled(), moderator.balance("p1")) == (70, 70)
    assert violations(moderator.state) == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("pm_card_visa_chargeDeclined", "generic_decline"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "insufficient_funds"),
    ],
)
def test_a_declined_card_makes_the_auction_void(server: StripeServer, source: str, reason: str) -> None:
    moderator, _, auction = card_auction(server, source)
    for _ in range(2):
        with pytest.raises(Declined) as caught:
            moderator.pay(auction)
        assert caught.value.reason == reason
    assert len(server.requests) == 1
    assert moderator.auction(auction).state == "void"
    assert violations(moderator.state) == []


def test_what_was_authorised_is_let_go_where_it_is_withdrawn(server: StripeServer) -> None:
    moderator, _, auction = card_auction(server)
    moderator.pay(auction)
    moderator.withdraw_auction(auction)
    assert server.intents["pi_1"]["status"] == "canceled"
    assert violations(moderator.state) == []


def test_what_was_authorised_is_let_go_where_nobody_bids(server: StripeServer) -> None:
    moderator, clock, auction = card_auction(server)
    moderator.pay(auction)
    clock.advance(10_000)
    moderator.tick()
    assert (moderator.auction(auction).state, server.intents["pi_1"]["status"]) == ("void", "canceled")
    assert violations(moderator.state) == []


def test_nothing_earned_is_voided_not_captured(server: StripeServer) -> None:
    moderator, clock, auction = card_auction(server)
    assert settled(moderator, agreed(moderator, clock, auction), 0).charged == 0
    assert server.intents["pi_1"]["status"] == "canceled"


def test_a_card_is_captured_by_time_alone(server: StripeServer) -> None:
    """The recipient says nothing: the provider's figure counts, and its card pays δ of the rest to nobody."""
    moderator, clock, auction = card_auction(server)
    name = agreed(moderator, clock, auction)
    moderator.end(name, "p1", "blaming", 150)
    clock.advance(3_600_000)
    moderator.tick()
    assert (server.settled(), moderator.balance("p1"), nobody(moderator)) == (160, 150, 10)
    assert violations(moderator.state) == []


class Miser:
    """A processor that captures less than it authorised."""

    def __init__(self, captured: int) -> None:
        self.captured = captured

    def authorise(self, key: str, source: str, amount: int, currency: str) -> Outcome:
        return Outcome(True, "ref")

    def capture(self, key: str, reference: str, amount: int) -> Outcome:
        return Outcome(self.captured > 0, "ref", "" if self.captured else "expired", min(amount, self.captured))

    def void(self, key: str, reference: str) -> Outcome:
        return Outcome(True, "ref")

    def refund(self, key: str, reference: str, amount: int) -> Outcome:
        return Outcome(True, "ref")

    def read_dispute(self, payload: bytes, signature: str) -> None:
        return None


@pytest.mark.parametrize(
    ("captured", "provider", "burnt", "owed"), [(155, 150, 5, 5), (40, 40, 0, 120), (0, 0, 0, 160)]
)
def test_captured_less_than_charged_goes_to_the_provider_first_and_the_rest_is_a_debt(
    captured: int, provider: int, burnt: int, owed: int
) -> None:
    moderator, clock = market()
    moderator.processors["card"] = Miser(captured)
    terms = AuctionTerms(reserve=1_000, open_for_ms=10_000, receipts=False, format="first_price", method="card")
    auction = moderator.announce("rita", asked(clock), terms).auction
    name = agreed(moderator, clock, auction)
    moderator.withdraw("rita", 1_000_000, "EUR")
    moderator.end(name, "p1", "blaming", 150)
    clock.advance(3_600_000)
    moderator.tick()
    assert (moderator.balance("p1"), nobody(moderator), moderator.agreement(name).debt) == (provider, burnt, owed)
    assert moderator.drafted_payment_rating(name) is False
    assert violations(moderator.state) == []
    with pytest.raises(NotAllowed):
        moderator.announce("rita", asked(clock), AuctionTerms(reserve=1, open_for_ms=1))
    moderator.deposit("rita", 200, "EUR")
    assert (moderator.balance("p1"), nobody(moderator), moderator.balance("rita")) == (150, 10, 200 - owed)
    assert moderator.agreement(name).debt == 0
    assert violations(moderator.state) == []


def test_card_money_is_taken_out_as_far_as_a_bond_covers_it() -> None:
    moderator, clock = market()
    moderator.processors["card"] = Miser(10_000)
    terms = AuctionTerms(reserve=1_000, open_for_ms=10_000, receipts=False, format="first_price", method="card")
    name = agreed(moderator, clock, moderator.announce("rita", asked(clock), terms).auction)
    settled(moderator, name)
    moderator.release_bond("p1", 99_900, "EUR")
    moderator.withdraw("p1", 99_900, "EUR")
    with pytest.raises(NotAllowed):
        moderator.withdraw("p1", 101, "EUR")  # 250 came by card, 100 of bond cover it once
    moderator.withdraw("p1", 100, "EUR")
    clock.advance(CHARGEBACK_MS)
    moderator.withdraw("p1", 150, "EUR")


def test_a_dispute_is_charged_back_once(server: StripeServer) -> None:
    moderator, clock, auction = card_auction(server, "pm_card_createDispute")
    name = agreed(moderator, clock, auction)
    settled(moderator, name)
    assert moderator.drafted_payment_rating(name) is True
    payload, signature = notice(SECRET, "pi_1", 250, "evt_1")
    with pytest.raises(BadSignature):
        moderator.dispute("card", payload.replace(b"250", b"251"), signature)
    for _ in range(2):  # processors send their notices again
        moderator.dispute("card", payload, signature)
    agreement = moderator.agreement(name)
    assert (agreement.state, agreement.charged_back, agreement.refunded) == ("settled", 250, 0)
    assert moderator.balance("p1") == 0
    assert moderator.drafted_payment_rating(name) is False
    assert moderator.dispute("card", *notice(SECRET, "pi_1", 1, "evt_2", kind="charge.updated")) is None
    assert violations(moderator.state) == []


def test_a_lost_answer_is_asked_for_again_and_moves_money_once(server: StripeServer) -> None:
    moderator, clock, auction = card_auction(server)
    server.lose_answers = 1
    with pytest.raises(PaymentUnknown):
        moderator.pay(auction)
    name = agreed(moderator, clock, auction)
    server.lose_answers = 2
    assert settled(moderator, name).capturing == 250
    moderator.tick()
    assert moderator.agreement(name).capturing == 250
    moderator.tick()
    assert (moderator.agreement(name).charged, moderator.agreement(name).capturing) == (250, 0)
    assert (len(server.intents), server.settled()) == (1, 250)
    assert len({key for _, key in server.requests}) == 2


def test_a_payment_that_a_dead_process_left_open_is_resumed(server: StripeServer) -> None:
    store = MemoryStore()
    moderator, clock = market(store)
    moderator.processors["card"] = StripeProcessor("sk_test_1", SECRET, server.url)
    terms = AuctionTerms(reserve=1_000, open_for_ms=10_000, receipts=False, method="card", source="pm_card_visa")
    auction = moderator.announce("rita", asked(clock), terms).auction
    server.lose_answers = 1
    with pytest.raises(PaymentUnknown):
        moderator.pay(auction)
    successor = Moderator(store, clock=clock, processors=moderator.processors, random_bytes=counted_bytes())
    assert successor.resume_payments() == 1
    assert successor.auction(auction).state == "open"
    assert len(server.intents) == 1
    assert successor.resume_payments() == 0


def test_who_will_probably_not_pay_has_to_prepay_or_is_refused(server: StripeServer) -> None:
    moderator, clock = market()
    moderator.processors["card"] = StripeProcessor("sk_test_1", SECRET, server.url)
    for _ in range(3):
        name = awarded(moderator, clock, prices=(9_000, 9_500), reserve=10_000)
        settled(moderator, name)
        moderator.charge_back(name, moderator.agreement(name).charged)
    assert moderator.payment_probability_ppm("rita") < 800_000
    card = AuctionTerms(reserve=1_000, open_for_ms=10_000, receipts=False, method="card", source="pm_card_visa")
    auction = moderator.announce("rita", asked(clock), card).auction
    with pytest.raises((PrepaymentRequired, NotAllowed)):
        moderator.pay(auction)
    assert server.requests == []
