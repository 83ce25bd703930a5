"""Every row of the table of attacks, each party with its own token: what the attacker gains, to the unit.

P = 4,000, R = 5,000, δ = 10 %, Φ = 1,000, e = 100 unless a test says otherwise. Names of attackers begin with `m`.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")

from arena import Arena, arena, refused
from markets import asked, both_sign, public_key_of, signed

from auction.model.agreement import Agreement
from auction.model.bid import Bid, StandingOffer, commitment
from auction.model.block import Block
from auction.moderator import AuctionTerms, BidEntry
from auction.web.client import MarketClient

E = 100


@pytest.fixture
def field() -> Iterator[Arena]:
    with arena() as made:
        yield made


# --- recipient with accomplices as runners-up ---


def test_recipient_with_accomplices_cannot_take_an_honest_bond(field: Arena) -> None:
    field.add("mallory", "recipient")
    field.add("north")
    field.add("mole")
    name = field.award("mallory", ("north", 4_000), ("mole", 4_500), fail_over=True)
    assert not hasattr(field.by("mallory"), "replace")
    field.start(name, "mallory", "north", "mole")
    # North serves; mallory blames it, and has its accomplice take the rest over.
    field.by("mallory").end(name, "mallory", "blaming", 0)
    field.by("mole").assignments("mole")
    rest = field.by("mole").take_over(name, "mole").id
    field.by("north").hand_in(name, "north", signed(field.market, name, 20))
    field.by("north").end(name, "north", "blaming", 667)
    for party in ("mallory", "mole"):
        field.by(party).end(rest, party, "finished", 0)
    field.to_the_end()
    assert field.gain("mallory", "mole") <= 0
    assert field.gain("north") >= 666 - 400  # what it was signed for, less δU at most, which nobody gets


# --- what one side alone claims ---


def test_provider_that_never_serves_and_claims(field: Arena) -> None:
    field.add("clinic", "recipient")
    field.add("mallory")
    name = field.award("clinic", ("mallory", 4_000))
    field.start(name, "clinic", "mallory")
    field.by("mallory").end(name, "mallory", "finished", 4_000)
    field.by("clinic").end(name, "clinic", "blaming", 0)
    field.to_the_end()
    assert field.gain("mallory") <= 0
    assert field.gain("clinic") >= -E - 400


def test_provider_that_claims_in_the_moment_when_the_window_ends(field: Arena) -> None:
    """It measures itself, and ends before anybody else can say anything: nothing is paid before C, and then e."""
    field.add("clinic", "recipient")
    field.add("mallory")
    name = field.award("clinic", ("mallory", 4_000))
    field.start(name, "clinic", "mallory")
    field.clock.advance(60_000)
    claimed = field.by("mallory").end(name, "mallory", "finished", 4_000)
    assert (claimed.state, claimed.charged) == ("closing", 0)
    field.to_the_end()
    assert field.gain("mallory") <= E  # the open interval, of a recipient that says nothing at all


def test_recipient_that_reports_zero_goes_silent_or_finishes_first(field: Arena) -> None:
    field.add("mallory", "recipient")
    for number, said in enumerate(("finished", "leaving", "blaming", "")):
        provider = f"north{number}"
        field.add(provider)
        before = field.gain("mallory")
        name = field.award("mallory", (provider, 4_000))
        field.start(name, "mallory", provider)
        field.clock.advance(50_000)
        receipt = signed(field.market, name, 100)  # 3,333 of it
        field.by(provider).hand_in(name, provider, receipt)
        if said:
            field.by("mallory").end(name, "mallory", said, 0)
        field.by(provider).end(name, provider, "blaming", 3_333)
        field.to_the_end()
        assert field.gain("mallory") - before <= -3_333, said
        assert field.gain(provider) >= 3_333 - 66, said  # it may lose δU; nobody wins it


def test_a_maximum_rate_alone_and_nothing_delivered(field: Arena) -> None:
    """Nothing was asked and nothing signed: nothing is earned."""
    field.add("clinic", "recipient")
    field.add("mallory")
    name = field.award("clinic", ("mallory", 4_000))
    assert field.market.agreement(name).minimum_bps is None
    field.start(name, "clinic", "mallory")
    field.clock.advance(60_000)
    field.by("mallory").end(name, "mallory", "finished", 4_000)
    field.by("clinic").end(name, "clinic", "finished", 0)
    field.to_the_end()
    assert field.gain("mallory") <= 0


def test_results_after_the_end_and_false_ones_in_the_last_segments(field: Arena) -> None:
    """No receipt goes beyond the last interval; a false result, wherever it is, costs Φ."""
    from auction.model.earned import FalseInterval
    from auction.model.receipt import next_receipt

    field.market.judges["again"] = lambda _one, proof: proof.results[proof.segment] == b"wrong"
    field.add("clinic", "recipient")
    field.add("mallory")
    name = field.award("clinic", ("mallory", 4_000), judge="again")
    field.start(name, "clinic", "mallory")
    terms = field.market.receipt_terms(name)
    receipt = None
    before = None
    for number in range(1, 121):
        before = receipt
        bits = terms.bits_at(1_000, 500)
        last = number == 120
        receipt = next_receipt(terms, receipt, bits, bits, 0, (b"in",), (b"wrong" if last else b"right",))
    assert receipt is not None
    assert before is not None
    late = msgspec.structs.replace(receipt, number=121)
    assert refused(field.by("mallory").hand_in, name, "mallory", both_sign(field.market, name, late)) == "bad_value"
    field.by("clinic").hand_in(name, "clinic", both_sign(field.market, name, receipt))
    proof = FalseInterval(
        before=both_sign(field.market, name, before),
        after=both_sign(field.market, name, receipt),
        inputs=(b"in",),
        results=(b"wrong",),
        segment=0,
    )
    field.by("clinic").prove(name, proof)
    field.by("clinic").end(name, "clinic", "finished", 3_966)
    field.by("mallory").end(name, "mallory", "finished", 3_966)
    field.to_the_end()
    # 119 of 120 intervals, less Φ, for work of which it saved one segment.
    assert (field.gain("mallory"), field.gain("clinic"), field.nobody) == (3_966 - 1_000, -3_966, 1_000)


# --- chains ---


def test_prime_that_says_its_subcontractor_delivered_nothing(field: Arena) -> None:
    field.add("clinic", "recipient")
    field.add("mallory")
    field.add("north")
    prime = field.award("clinic", ("mallory", 4_000))
    one = field.market.agreement(prime)
    block = msgspec.structs.replace(asked(field.clock), starts_ms=one.starts_ms, ends_ms=one.ends_ms)
    terms = AuctionTerms(reserve=2_000, open_for_ms=10_000, format="first_price")
    auction = field.by("mallory").announce("mallory", block, terms, prime=prime).auction
    field.by("north").bid(auction, BidEntry("north", 2_000))
    field.clock.advance(10_000)
    field.market.tick()
    under = field.market.auction(auction).agreements[0]
    field.start(prime, "clinic", "mallory", "north")
    field.clock.advance(60_000)
    field.by("clinic").hand_in(prime, "clinic", signed(field.market, prime, 120))
    for party in ("clinic", "mallory"):
        field.by(party).end(prime, party, "finished", 4_000)
    field.by("north").hand_in(under, "north", signed(field.market, under, 120))
    field.by("north").end(under, "north", "finished", 2_000)
    field.by("mallory").end(under, "mallory", "blaming", 0)
    field.to_the_end()
    assert (field.gain("mallory"), field.gain("north")) == (2_000, 2_000)


# --- names ---


def test_rival_is_not_shut_out_by_naming_it_or_its_key(field: Arena) -> None:
    field.add("clinic", "recipient")
    field.add("north")
    stranger = MarketClient(field.url, "", retry_for_ms=0)
    assert refused(stranger.register, "mallory", "provider", controller="north") == "not_allowed"
    assert refused(stranger.register, "mallory", "provider", public_key=public_key_of("north")) == "not_allowed"
    forged = field.signature("mallory", "mole")
    assert (
        refused(stranger.register, "mallory", "provider", public_key=public_key_of("north"), signature=forged)
        == "bad_signature"
    )
    mallory = field.add("mallory")
    assert (
        refused(mallory.register, "device", "device", belongs_to="mallory", public_key=public_key_of("north"))
        == "not_allowed"
    )
    assert refused(mallory.register, "device", "device", belongs_to="north") == "not_allowed"
    # North can still bid beside mallory, and register a party of its own.
    field.by("north").register("south", "provider", controller="north")
    own = field.signature("fresh", "fresh")
    stranger.register("fresh", "provider", public_key=public_key_of("fresh"), signature=own)
    name = field.award("clinic", ("mallory", 4_500), ("north", 4_000))
    assert field.market.agreement(name).provider == "north"


def test_rival_is_not_shut_out_by_its_key_or_controller_as_a_name(field: Arena) -> None:
    field.add("clinic", "recipient")
    field.add("north", controller="holding")
    stranger = MarketClient(field.url, "", retry_for_ms=0)
    key = public_key_of("north")
    assert refused(stranger.register, key, "provider") == "exists"  # whom it ties to is told before its form
    for name in (key.upper(), public_key_of("a key of tomorrow")):
        assert refused(stranger.register, name, "provider") == "bad_value"
    assert refused(stranger.register, "holding", "provider") == "exists"
    mallory = field.add("mallory")
    assert refused(mallory.change_capacity, key, 1) == "unknown"
    assert field.market.state.interests["north"] == {"north", "holding", key}
    fresh = stranger.register("fresh", "provider", key="once")
    assert stranger.register("fresh", "provider", key="once").party == fresh.party  # sent again, it is the same


@pytest.mark.parametrize("kind", ["agreement", "auction", "bid", "block", "group", "party"])
def test_no_name_is_one_that_the_market_gives(field: Arena, kind: str) -> None:
    """The market's own ids can be told ahead: what is held for an agreement would lie in the account of an auction
    that has its name, and go to who withdraws that."""
    field.add("mallory", "recipient")
    mole, clock = field.add("mole"), field.clock
    terms = AuctionTerms(reserve=100, open_for_ms=10_000)
    for name in (f"{kind}-{field.market.state.sequence + 9}", f"{kind}-100.2"):
        assert refused(field.by("mallory").announce, "mallory", asked(clock), terms, auction=name) == "bad_value"
        block = msgspec.structs.replace(asked(clock), id=name, provider="mole")
        assert refused(field.by("mallory").announce, "mallory", block, terms) == "bad_value"
        assert refused(mole.publish_block, block) == "bad_value"
        assert refused(mole.stand_offer, offered("mole", name, clock.now_ms)) == "bad_value"
        stranger = MarketClient(field.url, "", retry_for_ms=0)
        assert refused(stranger.register, name, "provider") == "bad_value"
        # Nor a person's name: the market could give the id to nobody else then.
        assert refused(stranger.register, "", "recipient", name=name) == "bad_value"


def test_auction_and_offer_of_one_name(field: Arena) -> None:
    """Both hold money by their names."""
    north, mole, clock = field.add("north"), field.add("mole"), field.clock
    north.stand_offer(offered("north", "fast", clock.now_ms))
    block = msgspec.structs.replace(asked(clock), id="mine", provider="mole")
    mole.publish_block(block)
    terms = AuctionTerms(reserve=100, open_for_ms=10_000)
    assert refused(mole.announce, "mole", "mine", terms, auction="fast") == "exists"
    mole.announce("mole", "mine", terms, auction="slow")
    assert refused(north.stand_offer, offered("north", "slow", clock.now_ms)) == "exists"
    mole.withdraw_auction("slow")
    north.withdraw_offer("fast", "north")
    assert (field.gain("mole"), field.gain("north")) == (0, 0)


def test_nobody_takes_the_name_of_a_block_that_will_be_asked_for(field: Arena) -> None:
    mole, clinic, clock = field.add("mole"), field.add("clinic", "recipient"), field.clock
    last = field.market.state.sequence + 1
    block = msgspec.structs.replace(asked(clock, 1), id=f"block-of-auction-{last}", provider="mole")
    assert refused(mole.publish_block, block) == "bad_value"
    made = clinic.announce("clinic", asked(clock), AuctionTerms(reserve=5_000, open_for_ms=10_000))
    assert (made.auction, made.block) == (f"auction-{last}", f"block-of-auction-{last}")


def test_a_stranger_uses_up_no_key_of_the_operator(field: Arena) -> None:
    field.add("clinic", "recipient", funds=0)
    stranger = MarketClient(field.url, "", retry_for_ms=0)
    stranger.register("mallory", "recipient", key="transfer-4711")
    assert field.operator.deposit("clinic", 500, "EUR", key="transfer-4711") == 500
    assert field.operator.deposit("clinic", 500, "EUR", key="transfer-4711") == 500  # once


def offered(provider: str, name: str, now_ms: int) -> StandingOffer:
    return StandingOffer(
        offer=name,
        provider=provider,
        service="s",
        unit_price=1_000,
        currency="EUR",
        quantity=1,
        rate_bps_max=1_000,
        valid_until_ms=now_ms + 60_000,
    )


def test_block_unit_or_auction_named_like_anothers(field: Arena) -> None:
    field.add("clinic", "recipient")
    field.add("mallory", "recipient")
    field.add("north")
    start = field.clock.now_ms + 600_000
    block = Block(id="mine", provider="north", service="s", starts_ms=start, ends_ms=start + 60_000, minimum_bps=1_000)
    field.by("north").publish_block(block)
    wanted = msgspec.structs.replace(asked(field.clock), id="mine")
    terms = AuctionTerms(reserve=5_000, open_for_ms=10_000)
    assert refused(field.by("mallory").announce, "mallory", wanted, terms) == "exists"
    # Two who ask for blocks of one name, and parts that another has named before: each has its own.
    same = msgspec.structs.replace(asked(field.clock), id="same")
    first = field.by("clinic").announce("clinic", same, terms, auction="first").auction
    assert refused(field.by("mallory").announce, "mallory", same, terms, auction="first") == "exists"
    second = field.by("mallory").announce("mallory", same, terms).auction
    for auction in (first, second):
        field.by("north").bid(auction, BidEntry("north", 4_000))
    field.clock.advance(10_000)
    field.market.tick()
    one, other = (field.market.agreement(field.market.auction(name).agreements[0]) for name in (first, second))
    assert one.block != other.block
    assert (field.market.block(one.block).holder, field.market.block(other.block).holder) == ("clinic", "mallory")
    parts = field.by("north").split_block_in_time("mine", "north", start + 30_000)
    taken = msgspec.structs.replace(block, id=f"{parts[1].id}.1")
    field.by("north").publish_block(taken)
    again = field.by("north").split_block_in_rate(parts[1].id, "north", 500)
    assert len({taken.id, again[0].id, again[1].id}) == 3
    offer = StandingOffer(
        offer="deal", provider="north", service="s", unit_price=10, currency="EUR", quantity=1, rate_bps_max=1_000,
        valid_until_ms=field.clock.now_ms + 60_000,
    )  # fmt: skip
    field.by("north").stand_offer(offer)
    field.add("mole")
    stolen = msgspec.structs.replace(offer, provider="mole")
    assert refused(field.by("mole").stand_offer, stolen) == "not_allowed"


# --- groups ---


def test_organiser_of_a_group_cannot_name_costs_late_or_settle_two_groups(field: Arena) -> None:
    mallory = field.add("mallory", "recipient")
    for name in ("ann", "ben", "north"):
        field.add(name, "provider" if name == "north" else "recipient")
    terms = AuctionTerms(reserve=5_000, open_for_ms=10_000, format="first_price")
    auction = mallory.announce("mallory", asked(field.clock), terms).auction
    group = mallory.open_group(auction, "mallory").id
    assert refused(mallory.open_group, auction, "mallory") == "exists"
    field.by("ann").join_group(group, "ann", 3_000)
    field.by("ben").join_group(group, "ben", 3_000)
    assert refused(field.by("ann").join_group, group, "ann", 2_000) == "bad_value"
    seen = mallory.group_of(group)
    assert (seen.limits, field.by("ann").group_of(group).limits) == ({}, {"ann": 3_000})  # sealed
    field.by("north").bid(auction, BidEntry("north", 4_000))
    field.clock.advance(10_000)
    field.market.tick()
    with pytest.raises(TypeError):
        mallory.settle_group(group, 4_000)  # type: ignore[call-arg]
    mallory.settle_group(group)
    assert refused(mallory.settle_group, group) == "too_late"
    name = field.market.auction(auction).agreements[0]
    assert refused(mallory.open_group, auction, "mallory") in ("wrong_state", "exists")
    field.start(name, "mallory", "north")
    field.by("north").end(name, "north", "finished", 4_000)
    field.by("mallory").end(name, "mallory", "finished", 4_000)
    field.to_the_end()
    assert (field.gain("mallory"), field.gain("ann"), field.gain("ben")) == (0, -2_000, -2_000)


def test_organiser_that_never_settles_gives_all_back(field: Arena) -> None:
    mallory = field.add("mallory", "recipient")
    field.add("ann", "recipient")
    field.add("north")
    auction = mallory.announce(
        "mallory", asked(field.clock), AuctionTerms(reserve=5_000, open_for_ms=10_000, format="first_price")
    ).auction
    group = mallory.open_group(auction, "mallory").id
    field.by("ann").join_group(group, "ann", 3_000)
    field.by("north").bid(auction, BidEntry("north", 4_000))
    field.clock.advance(10_000)
    field.to_the_end()
    assert field.gain("ann") == 0


# --- bids, awards and announcements that nobody keeps ---


def test_bid_that_shields_another_costs_its_own(field: Arena) -> None:
    """A low bid that keeps others off, and does not serve: δU of it goes to nobody, and the next may take over."""
    field.add("clinic", "recipient")
    field.add("mallory")
    field.add("mole")
    field.add("north")
    name = field.award("clinic", ("mallory", 1_000), ("north", 4_000), ("mole", 5_000), fail_over=True)
    field.start(name, "clinic", "north", "mole")
    field.by("clinic").end(name, "clinic", "blaming", 0)
    field.by("north").assignments("north")
    assert refused(field.by("mole").take_over, name, "mole") == "no_award"
    rest = field.by("north").take_over(name, "north").id
    assert field.market.agreement(rest).provider == "north"
    field.to_the_end()
    assert field.gain("mallory", "mole") == -100


def test_in_the_open_a_bid_that_nobody_can_beat_shields_nobody(field: Arena) -> None:
    """It leaves at the cost of δ of 1. The bidder that it kept from leading takes over, at the price that it asked."""
    field.add("clinic", "recipient")
    for provider in ("mallory", "mole", "north"):
        field.add(provider)
    bids = (("mole", 4_900), ("mallory", 1), ("north", 4_000))
    name = field.award("clinic", *bids, format="open", fail_over=True)
    assert field.market.agreement(name).provider == "mallory"
    field.start(name, "clinic", "mallory", "north", "mole")
    field.by("mallory").end(name, "mallory", "leaving", 0)
    field.by("north").assignments("north")
    assert refused(field.by("mole").take_over, name, "mole") == "no_award"
    rest = field.by("north").take_over(name, "north").id
    assert field.market.agreement(rest).price == 4_000 * 50 // 60
    field.to_the_end()
    assert field.gain("mallory", "mole") <= 0


def test_nothing_is_locked_for_ever(field: Arena) -> None:
    """An award that nobody keeps, an announcement that nobody pays: capacity and bonds are free in the end."""
    field.add("mallory", "recipient")
    field.add("north")
    name = field.award("mallory", ("north", 4_000))
    assert refused(field.by("mallory").announce, "mallory", asked(field.clock),
                   AuctionTerms(reserve=10**9, open_for_ms=10_000)) == "insufficient_funds"  # fmt: skip
    card = AuctionTerms(reserve=5_000, open_for_ms=10_000, method="card", source="tok")
    unpaid = field.by("mallory").announce("mallory", asked(field.clock), card).auction
    assert refused(field.by("north").bid, unpaid, BidEntry("north", 4_000)) == "wrong_state"
    field.to_the_end()
    assert field.market.auction(unpaid).state == "void"
    assert (field.market.agreement(name).state, field.gain("mallory"), field.gain("north")) == ("settled", 0, 0)
    field.award("mallory", ("north", 4_000))  # it has its capacity and its money again


def test_never_delivering_or_revealing_costs(field: Arena) -> None:
    field.add("clinic", "recipient")
    field.add("mallory")
    terms = AuctionTerms(reserve=5_000, open_for_ms=10_000, reveal_for_ms=10_000)
    auction = field.by("clinic").announce("clinic", asked(field.clock), terms).auction
    field.by("mallory").commit(auction, "mallory", "a" * 64)
    field.clock.advance(20_000)
    field.market.tick()
    assert (field.gain("mallory"), field.nobody) == (-5_000, 5_000)  # R
    name = field.award("clinic", ("mallory", 4_000))
    field.start(name, "clinic")
    field.by("clinic").end(name, "clinic", "blaming", 0)
    field.to_the_end()
    assert field.gain("mallory") == -5_000 - 400
    # A new name needs δR + Φ to bid at all, however small the market's own minimum is.
    field.add("m2", funds=1_749)
    other = field.by("clinic").announce("clinic", asked(field.clock), AuctionTerms(reserve=5_000, open_for_ms=10_000))
    assert refused(field.by("m2").bid, other.auction, BidEntry("m2", 4_000)) == "insufficient_funds"


def test_revealed_commitment_holds_what_a_bid_holds(field: Arena) -> None:
    field.add("clinic", "recipient")
    field.add("north")
    terms = AuctionTerms(reserve=5_000, open_for_ms=10_000, reveal_for_ms=10_000)
    auction = field.by("clinic").announce("clinic", asked(field.clock), terms).auction
    bid = Bid(bid="bid", auction=auction, bidder="north", price=4_000, currency="EUR", salt="x")
    field.by("north").commit(auction, "north", commitment(bid))
    assert field.gain("north") == -5_000
    field.clock.advance(10_000)
    field.by("north").reveal(auction, BidEntry("north", 4_000, salt="x"))
    assert field.gain("north") == -500


def test_two_auctions_for_one_window_punish_nobody(field: Arena) -> None:
    """Who has bid in both and has capacity for one is excluded from the other, and forfeits nothing."""
    field.add("mallory", "recipient")
    field.add("north", capacity_bps=1_000)
    auctions = []
    for _ in range(2):
        terms = AuctionTerms(reserve=5_000, open_for_ms=10_000, format="first_price")
        auctions.append(field.by("mallory").announce("mallory", asked(field.clock), terms).auction)
        field.by("north").bid(auctions[-1], BidEntry("north", 4_000))
    field.clock.advance(10_000)
    field.market.tick()
    states = [field.market.auction(one).state for one in auctions]
    assert states == ["agreed", "void"]
    assert field.nobody == 0
    assert [why for _, why in field.market.state.records["auction"][auctions[1]].excluded] == ["capacity"]


# --- ratings and cards ---


def deal(field: Arena, recipient: str, provider: str, price: int) -> Agreement:
    name = field.award(recipient, (provider, price), reserve=max(price, 1))
    field.start(name, recipient, provider)
    field.by(provider).end(name, provider, "finished", price)
    return field.by(recipient).end(name, recipient, "finished", price)


def rate_both(field: Arena, one: Agreement) -> None:
    field.by(one.recipient).rate(one.id, one.recipient, True, device=f"phone-{one.recipient}")
    field.by(one.provider).rate(one.id, one.provider, True)


def test_ratings_for_nothing_weigh_nothing(field: Arena) -> None:
    field.add("mallory", "recipient")
    field.operator.register("phone-mallory", "device", belongs_to="mallory")
    field.add("mole")
    start = field.operator.rating("mole", "anonymise").lower_ppm
    for _ in range(3):
        rate_both(field, deal(field, "mallory", "mole", 0))
    assert field.operator.rating("mole", "anonymise").lower_ppm == start
    # Refunded before it is rated, and after.
    one = deal(field, "mallory", "mole", 5_000)
    field.by("mole").refund(one.id, 5_000, key="before")
    rate_both(field, one)
    assert field.operator.rating("mole", "anonymise").lower_ppm == start
    other = deal(field, "mallory", "mole", 5_000)
    rate_both(field, other)
    assert field.operator.rating("mole", "anonymise").lower_ppm > start
    field.by("mole").refund(other.id, 5_000, key="after")
    assert field.operator.rating("mole", "anonymise").lower_ppm == start
    assert field.gain("mallory", "mole") == 0


def test_ring_of_three_is_shown_as_circular(field: Arena) -> None:
    """Accomplices can rate each other for the price of the fees: it is shown, and said to be no defence."""
    for name in ("m1", "m2", "m3"):
        field.add(name)
    for payer, payee in (("m1", "m2"), ("m2", "m3"), ("m3", "m1")):
        deal(field, payer, payee, 5_000)
    assert [field.operator.standing(name).circular_ppm for name in ("m1", "m2", "m3")] == [1_000_000] * 3


def test_charge_taken_back_is_a_no_by_itself(field: Arena) -> None:
    field.add("mallory", "recipient")
    field.operator.register("phone-mallory", "device", belongs_to="mallory")
    field.add("north")
    one = deal(field, "mallory", "north", 5_000)
    rate_both(field, one)
    before = field.operator.rating("mallory")
    field.operator.charge_back(one.id, 5_000, key="bank")
    after = field.operator.rating("mallory")
    assert after.lower_ppm < before.lower_ppm
    assert after.mean_ppm < before.mean_ppm
    assert refused(field.by("mallory").charge_back, one.id, 1, key="own") == "not_allowed"
