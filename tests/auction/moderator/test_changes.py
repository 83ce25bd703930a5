"""What may change of a party: capacity, keys, its token; and what a command would cost before it is sent."""

from __future__ import annotations

import pytest
from markets import asked, awarded, both_sign, key_of, market, money, poll, public_key_of, signed

from auction.model.bid import StandingOffer
from auction.model.errors import (
    BadSignature,
    BadToken,
    BadValue,
    Exists,
    InsufficientFunds,
    LinkedParties,
    NoCapacity,
    NotAllowed,
    Replayed,
    TooLate,
    WrongState,
)
from auction.model.party import Party, Signature
from auction.model.receipt import next_receipt
from auction.model.signing import party_body, sign_statement
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.invariants import replay, violations
from auction.moderator.terms import Cost
from auction.storage.store import MemoryStore

TERMS = AuctionTerms(receipts=False, reserve=1_000, open_for_ms=10_000)


def signature_for(moderator: Moderator, party: str, wanted: str, by: str, nonce: str = "n") -> Signature:
    """`party` asks for the key of `wanted`; the statement is signed by the key of `by`."""
    body = party_body(moderator.party(party).controller, public_key_of(wanted))
    expires_ms = moderator.now_ms() + 1_000
    return sign_statement(key_of(by), "key", "", party, body, nonce=nonce, expires_ms=expires_ms)


def change_key(moderator: Moderator, party: str, wanted: str) -> Party:
    signature = signature_for(moderator, party, wanted, wanted, nonce=f"{party}-{wanted}")
    return moderator.change_key(party, public_key_of(wanted), signature)


# --- capacity ---


def test_capacity_never_goes_below_what_is_promised() -> None:
    moderator, clock = market(store := MemoryStore())
    awarded(moderator, clock)  # p1 serves 1,000
    with pytest.raises(NoCapacity, match="promised 1000"):
        moderator.change_capacity("p1", 999)
    assert moderator.change_capacity("p1", 1_000).capacity_bps == 1_000
    auction = moderator.announce("rita", asked(clock), TERMS).auction
    with pytest.raises(NoCapacity):
        moderator.bid(auction, BidEntry("p1", 100))
    moderator.change_capacity("p1", 2_000)
    moderator.bid(auction, BidEntry("p1", 100))
    clock.advance(10_000)
    assert moderator.close(auction).winners[0].bidder == "p1"
    clock.advance(200_000)  # both windows are over
    moderator.change_capacity("p1", 0)
    assert violations(moderator.state) == []
    assert replay(store.entries()).records == moderator.state.records
    moderator.change_capacity("p1", 5)  # to more is always possible


@pytest.mark.parametrize("kind", ["sealed", "committed", "open", "offer"])
def test_nobody_gets_rid_of_a_binding_bid_by_its_capacity(kind: str) -> None:
    moderator, clock = market()
    terms = {"sealed": {}, "committed": {"reveal_for_ms": 1_000}, "open": {"format": "open"}, "offer": {}}[kind]
    auction = moderator.announce("rita", asked(clock), AuctionTerms(reserve=1_000, open_for_ms=9_000, **terms)).auction  # type: ignore[arg-type]
    if kind == "committed":
        moderator.commit(auction, "p0", "ab" * 32)
    elif kind == "offer":
        offer = {"offer": "o", "provider": "p0", "service": "anonymise", "unit_price": 10, "currency": "EUR"}
        moderator.stand_offer(
            StandingOffer(**offer, quantity=1, rate_bps_max=1_000, valid_until_ms=clock.now_ms + 9_000)  # type: ignore[arg-type]
        )
    else:
        moderator.bid(auction, BidEntry("p0", 100, limit=100 if kind == "open" else None))
    with pytest.raises(NoCapacity):
        moderator.change_capacity("p0", 999)
    moderator.change_capacity("p0", 1_000)
    clock.advance(20_000)
    moderator.tick()
    if kind in ("committed", "offer"):
        moderator.change_capacity("p0", 0)


def test_capacity_is_a_providers_and_a_number() -> None:
    moderator, _ = market()
    with pytest.raises(NotAllowed):
        moderator.change_capacity("rita", 5)
    with pytest.raises(BadValue):
        moderator.change_capacity("p0", -1)
    with pytest.raises(BadValue):
        moderator.change_capacity("p0", True)


# --- keys ---


def test_a_key_is_changed_by_who_has_the_new_one() -> None:
    moderator, _ = market()
    for by in ("p0", "p1"):
        with pytest.raises(BadSignature):
            moderator.change_key("p0", public_key_of("new"), signature_for(moderator, "p0", "new", by))
    of_another = signature_for(moderator, "p1", "new", "new")
    with pytest.raises(BadSignature):  # it was said for another name
        moderator.change_key("p0", public_key_of("new"), of_another)
    right = signature_for(moderator, "p0", "new", "new")
    assert moderator.change_key("p0", public_key_of("new"), right).public_key == public_key_of("new")
    with pytest.raises(Replayed):
        moderator.change_key("p0", public_key_of("third"), right)
    with pytest.raises(BadValue, match="had this key before"):
        change_key(moderator, "p0", "p0")
    for taken in ("p1", "rita"):
        with pytest.raises(Exists):
            change_key(moderator, "p0", taken)
    for wrong in ("", "ab", "00" * 32, "zz" * 32):
        with pytest.raises(BadValue):
            moderator.change_key("p0", wrong, signature_for(moderator, "p0", "third", "third"))


def test_agreements_keep_the_keys_that_they_were_made_with() -> None:
    moderator, clock = market()
    name = awarded(moderator, clock, receipts=True)
    change_key(moderator, "p1", "new")
    change_key(moderator, "rita", "newer")
    clock.advance(50_000)
    poll(moderator, "p1", "rita")
    clock.advance(10_000)
    moderator.tick()
    receipt = signed(moderator, name, 3)  # by the keys that were there when it was agreed
    moderator.hand_in(name, "p1", receipt)
    after = next_receipt(moderator.receipt_terms(name), receipt.receipt, 500, 500, 0)
    said = after.to_sign()
    forged = both_sign(moderator, name, after)
    forged = type(forged)(after, key_of("newer").sign(said), key_of("new").sign(said))
    with pytest.raises(BadSignature):
        moderator.hand_in(name, "p1", forged)
    other = awarded(moderator, clock, receipts=True)
    assert moderator.agreement(other).provider_key == moderator.party(moderator.agreement(other).provider).public_key


def test_a_new_key_unties_nobody() -> None:
    moderator, clock = market()
    moderator.register("sister", "provider", public_key=public_key_of("p0"), capacity_bps=10_000)
    moderator.deposit("sister", 100_000, "EUR")
    change_key(moderator, "sister", "new")
    auction = moderator.announce("rita", asked(clock), TERMS).auction
    moderator.bid(auction, BidEntry("p0", 100))
    with pytest.raises(LinkedParties):
        moderator.bid(auction, BidEntry("sister", 90))


def test_the_token_is_renewed_by_the_new_key_alone() -> None:
    moderator, _ = market()
    change_key(moderator, "p0", "new")

    def signature(by: str) -> Signature:
        expires_ms = moderator.now_ms() + 1_000
        return sign_statement(key_of(by), "token", "", "p0", {}, nonce=by, expires_ms=expires_ms)

    with pytest.raises(BadSignature):
        moderator.renew_token("p0", signature("p0"))
    assert moderator.authenticate(moderator.renew_token("p0", signature("new")).token) == "p0"


# --- tokens ---


def test_the_operator_replaces_a_lost_token_and_the_old_one_opens_nothing() -> None:
    moderator, _ = market(store := MemoryStore())
    old = moderator.register("new", "recipient", key="k")
    assert moderator.register("new", "recipient", key="k").token == ""  # it was shown once
    new = moderator.replace_token("new", key="t")
    assert moderator.replace_token("new", key="t").token == ""
    with pytest.raises(BadToken):
        moderator.authenticate(old.token)
    assert moderator.authenticate(new.token) == "new"
    again = Moderator(store)
    assert again.authenticate(new.token) == "new"
    with pytest.raises(BadToken):
        again.authenticate(old.token)
    again.revoke_token("new")
    with pytest.raises(BadToken):
        again.authenticate(new.token)
    with pytest.raises(BadToken):
        again.authenticate("")
    assert new.token.encode() not in b"".join(entry.body + entry.answer for entry in store.entries())


# --- what a command would cost ---


def test_what_a_bid_would_cost_is_what_it_holds() -> None:
    moderator, clock = market()
    moderator.deposit("p0", 50, "EUR")
    moderator.release_bond("p0", 99_950, "EUR")
    moderator.withdraw("p0", 99_950, "EUR")  # 50 of bond and 50 of balance
    auction = moderator.announce("rita", asked(clock), TERMS).auction
    before = (moderator.balance("p0"), moderator.bond("p0"), moderator.state.sequence)
    with pytest.raises(InsufficientFunds):
        moderator.cost_of_bid(auction, BidEntry("p0", 200))  # a newcomer needs more
    moderator.deposit("p0", 10_000, "EUR")
    cost = moderator.cost_of_bid(auction, BidEntry("p0", 200))
    assert cost == Cost(of_balance=50, of_bond=50)
    assert (moderator.bids(auction, "p0"), moderator.state.sequence) == ([], before[2] + 1)
    before = (moderator.balance("p0"), moderator.bond("p0"), 0)
    moderator.bid(auction, BidEntry("p0", 200))
    assert before[0] - moderator.balance("p0") == cost.of_balance
    assert before[1] - moderator.bond("p0") == cost.of_bond
    clock.advance(10_000)
    with pytest.raises(TooLate):
        moderator.cost_of_bid(auction, BidEntry("p0", 100))


def test_what_withdrawing_would_cost_is_what_comes_back() -> None:
    moderator, clock = market()
    auction = moderator.announce("rita", asked(clock), TERMS).auction
    assert moderator.cost_of_withdrawing(auction) == Cost(of_balance=-1_100, of_bond=0)
    assert moderator.auction(auction).state == "open"
    moderator.bid(auction, BidEntry("p0", 100))
    with pytest.raises(WrongState, match="before the first one"):
        moderator.cost_of_withdrawing(auction)


def test_what_leaving_would_cost_is_what_it_costs() -> None:
    moderator, clock = market()
    name = awarded(moderator, clock)
    clock.advance(80_000)
    foreseen = moderator.cost_of(name, "rita", "leaving", 125)
    before = money(moderator, "rita")
    moderator.end(name, "rita", "leaving", 125)
    clock.advance(4_000_000)
    moderator.tick()
    back = money(moderator, "rita") - before
    assert sum(one.amount for one in foreseen.payouts if one.target == "recipient") == back
