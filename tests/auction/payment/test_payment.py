"""Paying: prepaid balances and cards, authorised at the award, captured in proportion, refunded, charged back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from markets import awarded, counted_bytes, market, settled
from stripe_server import StripeServer, notice

from auction.model.errors import (
    BadAmount,
    BadCurrency,
    BadSignature,
    BadValue,
    Declined,
    InsufficientFunds,
    PaymentUnknown,
    PrepaymentRequired,
)
from auction.moderator import Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.invariants import violations
from auction.payment.stripe import StripeProcessor
from auction.storage.store import MemoryStore

pytest.importorskip("stripe", reason="the extra `cards` is not installed")
SECRET = "whsec_test"


@pytest.fixture
def server() -> Iterator[StripeServer]:
    with StripeServer() as running:
        yield running
        running.shutdown()


def card_market(server: StripeServer, source: str = "pm_card_visa") -> tuple[Moderator, ManualClock, str]:
    """A market with a card processor, and an agreement at 250 that is to be paid by card."""
    moderator, clock = market()
    moderator.processors["card"] = StripeProcessor("sk_test_1", SECRET, server.url)
    return moderator, clock, awarded(moderator, clock, method="card", source=source)


def deliver(moderator: Moderator, name: str, delivered_ppm: int) -> None:


def test_prepaid_held_at_the_award_and_captured_in_proportion() -> None:
    moderator, clock = market()
    name = awarded(moderator, clock)
    assert moderator.state.ledger.balance(f"held:{name}") == 250
    deliver(moderator, name, 333_333)
    assert moderator.charge(name).charged == 83
    assert (moderator.balance("p1"), moderator.balance("rita")) == (83, 1_000_000 - 83)


def test_prepaid_refund_and_chargeback() -> None:
    moderator, clock = market()
    name = awarded(moderator, clock)
    deliver(moderator, name, 1_000_000)
    settled(moderator, name)
    assert moderator.refund(name, 50, key="r1").refunded == 50
    assert moderator.refund(name, 50, key="r1").refunded == 50
    with pytest.raises(BadValue):
        moderator.refund(name, 201, key="r2")
    moderator.withdraw("p1", 200, "EUR")
    back = moderator.charge_back(name, 200)
    assert (back.state, moderator.balance("p1")) == ("declined", -200)
    assert moderator.balance("rita") == 1_000_000
    assert violations(moderator.state) == []


def test_what_is_not_there_is_not_held() -> None:
    moderator, clock = market()
    moderator.withdraw("rita", 1_000_000 - 249, "EUR")
    name = awarded(moderator, clock)
    with pytest.raises(InsufficientFunds):
    assert moderator.agreement(name).state == "awarded"


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


def test_a_card_is_authorised_captured_in_proportion_and_the_rest_let_go(server: StripeServer) -> None:
    moderator, _, name = card_market(server)
    assert moderator.agree(name).state == "agreed"
    assert server.intents["pi_1"]["amount_capturable"] == 250
    deliver(moderator, name, 400_000)
    assert moderator.charge(name).charged == 100
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
def test_a_declined_card_lapses_the_agreement(server: StripeServer, source: str, reason: str) -> None:
    moderator, _, name = card_market(server, source)
    for _ in range(2):
        with pytest.raises(Declined) as caught:
        assert caught.value.reason == reason
    assert len(server.requests) == 1
    assert moderator.agreement(name).state == "lapsed"
    assert moderator.block(moderator.agreement(name).block).state == "void"
    assert violations(moderator.state) == []


def test_an_agreement_given_up_is_voided_at_the_processor(server: StripeServer) -> None:
    moderator, _, name = card_market(server)
    assert moderator.cancel(name).state == "cancelled"
    assert server.intents["pi_1"]["status"] == "canceled"
    assert violations(moderator.state) == []


def test_nothing_delivered_is_voided_not_captured(server: StripeServer) -> None:
    moderator, _, name = card_market(server)
    deliver(moderator, name, 0)
    assert moderator.charge(name).charged == 0
    assert server.intents["pi_1"]["status"] == "canceled"


def test_a_dispute_is_charged_back_once(server: StripeServer) -> None:
    moderator, _, name = card_market(server, "pm_card_createDispute")
    deliver(moderator, name, 1_000_000)
    settled(moderator, name)
    assert moderator.drafted_payment_rating(name) is True
    payload, signature = notice(SECRET, "pi_1", 250, "evt_1")
    with pytest.raises(BadSignature):
        moderator.dispute("card", payload.replace(b"250", b"251"), signature)
    for _ in range(3):  # processors send their notices again
        moderator.dispute("card", payload, signature)
    agreement = moderator.agreement(name)
    assert (agreement.state, agreement.charged_back, agreement.refunded) == ("declined", True, 250)
    assert moderator.balance("p1") == 0
    assert moderator.drafted_payment_rating(name) is False
    assert moderator.dispute("card", *notice(SECRET, "pi_1", 1, "evt_2", kind="charge.updated")) is None
    assert violations(moderator.state) == []


def test_a_lost_answer_is_asked_for_again_and_moves_money_once(server: StripeServer) -> None:
    moderator, _, name = card_market(server)
    server.lose_answers = 1
    with pytest.raises(PaymentUnknown):
    assert moderator.agree(name).state == "agreed"
    deliver(moderator, name, 1_000_000)
    server.lose_answers = 2
    for _ in range(2):
        with pytest.raises(PaymentUnknown):
            settled(moderator, name)
    assert moderator.charge(name).charged == 250
    assert (len(server.intents), server.settled()) == (1, 250)
    assert len({key for _, key in server.requests}) == 2


def test_a_payment_that_a_dead_process_left_open_is_resumed(server: StripeServer) -> None:
    store = MemoryStore()
    moderator, clock = market(store)
    moderator.processors["card"] = StripeProcessor("sk_test_1", SECRET, server.url)
    name = awarded(moderator, clock, method="card", source="pm_card_visa")
    server.lose_answers = 1
    with pytest.raises(PaymentUnknown):
    successor = Moderator(store, clock=clock, processors=moderator.processors, random_bytes=counted_bytes())
    assert [one.state for one in successor.resume_payments()] == ["agreed"]
    assert len(server.intents) == 1
    assert successor.resume_payments() == []


def test_who_will_probably_not_pay_has_to_prepay_or_is_refused(server: StripeServer) -> None:
    moderator, clock = market()
    moderator.processors["card"] = StripeProcessor("sk_test_1", SECRET, server.url)
    for _ in range(3):
        name = awarded(moderator, clock, prices=(9_000, 9_500), reserve=10_000)
        deliver(moderator, name, 1_000_000)
        settled(moderator, name)
        moderator.rate(name, "rita", True, device="phone")
        moderator.rate(name, moderator.agreement(name).provider, False)
    before = moderator.payment_probability_ppm("rita")
    assert before < 800_000
    name = awarded(moderator, clock, method="card", source="pm_card_visa")
    with pytest.raises(PrepaymentRequired):
    assert server.requests == []
