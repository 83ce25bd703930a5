"""Auctions through the moderator: every format, both directions, commit and reveal, spot, and attempts to cheat."""

from __future__ import annotations

import msgspec
import pytest
from markets import asked, awarded, market, settled
from simulated_cards import Cards

from auction.formats import award as decide
from auction.formats.transcript import verify as verify_transcript
from auction.formats.transcript import verify_own
from auction.model.bid import Bid, Closing, QualityWeights, Ramp, StandingOffer, commit_seed, commitment
from auction.model.errors import (
    AuctionError,
    BadAmount,
    BadSignature,
    BadValue,
    Exists,
    Expired,
    InsufficientFunds,
    LinkedParties,
    NoAward,
    NoCapacity,
    NotAllowed,
    TooLate,
    TranscriptWrong,
    WrongState,
)
from auction.model.ledger import bond
from auction.model.rating import RatingRules
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import verify, violations
from auction.storage.sql_store import SqlStore
from auction.storage.store import Store

DAY_MS = 86_400_000


def opened(terms: AuctionTerms, providers: int = 3, **config: object) -> tuple[Moderator, ManualClock, str]:
    moderator, clock = market(providers=providers, config=MarketConfig(**config))  # type: ignore[arg-type]
    return moderator, clock, moderator.announce("rita", asked(clock), terms).auction


def test_an_open_descending_auction_with_proxies_and_a_soft_close() -> None:
    terms = AuctionTerms(
        receipts=False,
        reserve=1_000,
        open_for_ms=10_000,
        format="open",
        increment=10,
        extend_within_ms=2_000,
        extend_by_ms=2_000,
        extend_times_max=2,
    )
    moderator, clock, auction = opened(terms)
    moderator.bid(auction, BidEntry("p0", 900, limit=500))
    with pytest.raises(BadValue):
        moderator.bid(auction, BidEntry("p1", 895))
    clock.advance(9_000)
    moderator.bid(auction, BidEntry("p1", 800, limit=600))
    assert moderator.auction(auction).closes_ms == clock.now_ms + 2_000
    assert [bid.limit for bid in moderator.bids(auction, "p2")] == [None, None]  # limits are the bidders' own
    clock.advance(1_500)
    assert moderator.auction(auction).state == "open"
    clock.advance(500)
    moderator.tick()
    award = moderator.close(auction)
    assert (award.winners[0].bidder, award.winners[0].price) == ("p0", 590)


def test_a_dutch_ramp_ends_with_the_first_who_accepts() -> None:
    ramp = Ramp(start_price=100, step=50, step_ms=1_000)
    moderator, clock, auction = opened(
        AuctionTerms(receipts=False, reserve=1_000, open_for_ms=60_000, format="dutch", ramp=ramp)
    )
    with pytest.raises(BadValue):
        moderator.bid(auction, BidEntry("p0", 240))
    clock.advance(3_000)
    moderator.bid(auction, BidEntry("p1", 240))
    award = moderator.close(auction)
    assert (award.winners[0].bidder, award.winners[0].price) == ("p1", 250)
    with pytest.raises(TooLate):
        moderator.bid(auction, BidEntry("p0", 1))


def test_units_of_a_block_are_sold_at_one_price_and_the_rest_stays_with_the_seller() -> None:
    moderator, clock = market(providers=1)
    for name in ("anna", "bert", "cleo"):
        moderator.register(name, "recipient")
        moderator.deposit(name, 10_000, "EUR")
    whole = msgspec.structs.replace(asked(clock, rate_bps=10_000), id="whole", provider="p0")
    moderator.publish_block(whole)
    terms = AuctionTerms(receipts=False, reserve=10, open_for_ms=1_000, format="uniform_price", quantity=10)
    auction = moderator.announce("p0", "whole", terms).auction
    for name, price, quantity in (("anna", 90, 3), ("bert", 70, 4)):
        moderator.bid(auction, BidEntry(name, price, quantity=quantity))
    clock.advance(1_000)
    moderator.tick()
    agreements = [moderator.agreement(name) for name in moderator.auction(auction).agreements]
    assert sorted((one.recipient, one.price) for one in agreements) == [("anna", 30), ("bert", 40)]
    held = {
        block.holder: block.committed_bps for block in moderator.state.records["block"].values() if block.id != "whole"
    }
    assert held == {"anna": 3_000, "bert": 4_000, "p0": 3_000}
    assert violations(moderator.state) == []


def test_packages_of_items_go_to_several_winners() -> None:
    terms = AuctionTerms(receipts=False, reserve=400, open_for_ms=1_000, format="packages", items=("north", "south"))
    moderator, clock, auction = opened(terms)
    moderator.bid(auction, BidEntry("p0", 100, items=("north",)))
    moderator.bid(auction, BidEntry("p1", 150, items=("south",)))
    moderator.bid(auction, BidEntry("p2", 300, items=("north", "south")))
    clock.advance(1_000)
    moderator.tick()
    agreements = [moderator.agreement(name) for name in moderator.auction(auction).agreements]
    # Without p0 the pair would cost 300 instead of 250: it gets 100 + 50; p1 likewise 150 + 50.
    assert sorted((one.provider, one.price) for one in agreements) == [("p0", 150), ("p1", 200)]
    assert violations(moderator.state) == []


def test_ratings_are_shown_and_enter_the_score_as_they_stood_at_the_announcement() -> None:
    moderator, clock = market(config=MarketConfig(rating=RatingRules(value_full=100)))
    for _ in range(4):
        name = awarded(moderator, clock, prices=(300, 200, 400))
        settled(moderator, name)
        moderator.rate(name, "rita", True, device="phone")
        moderator.rate(name, "p1", True)
        clock.advance(200_000)
    terms = AuctionTerms(receipts=False, reserve=900, open_for_ms=10_000, quality=QualityWeights(opinion=1_000))
    auction = moderator.announce("rita", asked(clock), terms).auction
    moderator.bid(auction, BidEntry("p0", 300))
    moderator.bid(auction, BidEntry("p1", 400))
    shown = {rating.party: rating for rating in moderator.auction(auction).ratings}
    assert (shown["p0"].count, shown["p1"].count) == (0, 4)
    assert shown["p1"].lower_ppm > shown["p0"].lower_ppm
    clock.advance(10_000)
    moderator.tick()
    award = moderator.close(auction)
    assert award.winners[0].bidder == "p1"
    gap = 1_000 * shown["p1"].lower_ppm // 1_000_000 - 1_000 * shown["p0"].lower_ppm // 1_000_000
    assert award.winners[0].price == 300 + gap
    assert "p1 won it" in moderator.explain(auction)


def test_any_bidder_can_compute_the_award_again_from_what_is_shown() -> None:
    moderator, clock, auction = opened(AuctionTerms(receipts=False, reserve=500, open_for_ms=10_000))
    for number in range(3):
        moderator.bid(auction, BidEntry(f"p{number}", 300))
    clock.advance(10_000)
    moderator.tick()
    view = moderator.auction(auction)
    assert commit_seed(auction, bytes.fromhex(view.seed)) == view.announcement.seed_commitment  # fixed before bidding
    ratings = {rating.party: rating for rating in view.ratings}
    assert decide(view.announcement, moderator.bids(auction, "p2"), ratings, bytes.fromhex(view.seed)) == view.award


def test_the_transcript_lets_each_bidder_check_the_award() -> None:
    moderator, clock, auction = opened(AuctionTerms(receipts=False, reserve=500, open_for_ms=10_000))
    for number, price in enumerate((300, 250, 350)):
        moderator.bid(auction, BidEntry(f"p{number}", price, salt=f"salt {number}"))
    with pytest.raises(WrongState):
        moderator.transcript(auction)
    clock.advance(10_000)
    moderator.tick()
    transcript, award = moderator.transcript(auction), moderator.close(auction)
    for bid in moderator.bids(auction, "p0"):
        verify_own(transcript, award, bid)
    dearer = msgspec.structs.replace(award.winners[0], price=award.winners[0].price + 1)
    with pytest.raises(TranscriptWrong):
        verify_own(transcript, msgspec.structs.replace(award, winners=(dearer,)), moderator.bids(auction, "p1")[0])


def sealed_entry(auction: str, bidder: str, price: int) -> tuple[BidEntry, str]:
    bid = Bid(bid="-", auction=auction, bidder=bidder, price=price, currency="EUR", salt=f"salt of {bidder}")
    return BidEntry(bidder, price, salt=bid.salt), commitment(bid)


def test_commit_and_reveal_and_the_bond_of_who_does_not() -> None:
    moderator, clock, auction = opened(
        AuctionTerms(receipts=False, reserve=900, open_for_ms=1_000, reveal_for_ms=1_000)
    )
    entries = {}
    for number, price in enumerate((300, 100, 200)):
        entry, hashed = sealed_entry(auction, f"p{number}", price)
        entries[number] = entry
        moderator.commit(auction, f"p{number}", hashed)
        with pytest.raises(Exists):
            moderator.commit(auction, f"p{number}", hashed)
    with pytest.raises(WrongState):
        moderator.bid(auction, entries[0])
    with pytest.raises(WrongState):
        moderator.reveal(auction, entries[0])
    assert b'"price":100' not in b"".join(entry.body for entry in moderator.store.entries())
    clock.advance(1_000)
    with pytest.raises(BadSignature):
        moderator.reveal(auction, msgspec.structs.replace(entries[0], price=99))
    moderator.reveal(auction, entries[0])
    moderator.reveal(auction, entries[2])
    with pytest.raises(TooLate):
        moderator.commit(auction, "p1", "0" * 64)
    clock.advance(1_000)
    with pytest.raises(TooLate):
        moderator.reveal(auction, entries[1])
    assert moderator.close(auction).winners[0].bidder == "p2"
    assert moderator.state.ledger.balance(bond("p1")) == 100_000 - 900  # R, to nobody
    assert (moderator.state.ledger.balance("nobody"), moderator.balance("rita")) == (900, 1_000_000 - 330)
    assert violations(moderator.state) == []


def test_spot_answers_from_standing_offers_without_waiting_for_the_store(tmp_path: object) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/m.db")
    moderator, clock = market(store)
    for number, price in enumerate((300, 200, 250)):
        moderator.stand_offer(an_offer(clock, number, price))
    terms = AuctionTerms(receipts=False, reserve=260, open_for_ms=50, format="spot")
    written = len(list(store.entries()))
    agreement = moderator.spot("rita", asked(clock), terms, wait=False)
    assert (agreement.provider, agreement.price, agreement.state) == ("p1", 200, "agreed")
    assert len(list(store.entries())) == written
    moderator.flush()
    assert len(list(store.entries())) == written + 1
    assert moderator.spot("rita", asked(clock), terms).provider == "p2"  # p1's one unit is gone
    with pytest.raises(NoAward):
        moderator.spot("rita", asked(clock), terms)
    clock.advance(60_000)
    with pytest.raises(NoAward):
        moderator.spot("rita", asked(clock), msgspec.structs.replace(terms, reserve=999))
    with pytest.raises(Expired):
        moderator.stand_offer(msgspec.structs.replace(moderator.state.records["offer"]["o0"]))
    assert verify(store) == []


def test_shill_bids_by_linked_parties_are_refused() -> None:
    moderator, _, auction = opened(AuctionTerms(receipts=False, reserve=900, open_for_ms=1_000))
    moderator.register("mask", "provider", controller="rita", capacity_bps=10_000)
    moderator.register("twin-a", "provider", controller="holding", capacity_bps=10_000)
    moderator.register("twin-b", "provider", controller="holding", capacity_bps=10_000)
    for name in ("mask", "twin-a", "twin-b"):
        moderator.deposit(name, 10_000, "EUR")
        moderator.post_bond(name, 10_000, "EUR")
    with pytest.raises(LinkedParties):
        moderator.bid(auction, BidEntry("mask", 500))
    moderator.bid(auction, BidEntry("twin-a", 500))
    with pytest.raises(LinkedParties):
        moderator.bid(auction, BidEntry("twin-b", 400))
    moderator.bid(auction, BidEntry("twin-a", 450))


def test_shill_bids_within_one_command_are_refused_and_nothing_changes() -> None:
    moderator, clock = market()
    for name in ("twin-a", "twin-b"):
        moderator.register(name, "provider", controller="holding", capacity_bps=10_000)
        moderator.deposit(name, 10_000, "EUR")
        moderator.post_bond(name, 10_000, "EUR")
    before = moderator.state.sequence
    entries = [BidEntry("twin-a", 500), BidEntry("twin-b", 400)]
    with pytest.raises(LinkedParties):
        moderator.hold_auction("rita", asked(clock), AuctionTerms(receipts=False, reserve=900, open_for_ms=1), entries)
    assert moderator.state.sequence == before


@pytest.mark.parametrize("price", [-1, 2**63, 1.0, float("nan"), float("inf"), "5", None, True])
def test_a_bid_at_a_price_that_is_no_amount_is_refused(price: object) -> None:
    moderator, _, auction = opened(AuctionTerms(receipts=False, reserve=900, open_for_ms=1_000))
    before = moderator.state.sequence
    with pytest.raises(BadAmount):
        moderator.bid(auction, BidEntry("p0", price))  # type: ignore[arg-type]
    assert moderator.state.sequence == before


def test_who_may_not_bid() -> None:
    moderator, _, auction = opened(AuctionTerms(receipts=False, reserve=900, open_for_ms=1_000))
    moderator.release_bond("p0", 100_000, "EUR")
    moderator.withdraw("p0", 95_001, "EUR")
    with pytest.raises(InsufficientFunds):
        moderator.bid(auction, BidEntry("p0", 5))  # a newcomer has 5,000 at least
    with pytest.raises(NotAllowed):
        moderator.bid(auction, BidEntry("phone", 5))
    other, clock = market()
    too_big = asked(clock, rate_bps=10_001)
    big = other.announce("rita", too_big, AuctionTerms(receipts=False, reserve=900, open_for_ms=1_000)).auction
    with pytest.raises(NoCapacity):
        other.bid(big, BidEntry("p0", 5))


def finished(moderator: Moderator, clock: ManualClock) -> str:
    return awarded(moderator, clock)


def test_rating_without_an_agreement_twice_or_for_oneself_is_refused() -> None:
    moderator, clock = market()
    moderator.register("other", "recipient")
    moderator.register("others-phone", "device", belongs_to="other")
    name = finished(moderator, clock)
    with pytest.raises(WrongState):
        moderator.rate(name, "rita", True, device="phone")  # not charged yet
    settled(moderator, name)
    before = moderator.state.sequence
    wrong: list[tuple[str, str]] = [("other", "others-phone"), ("p0", ""), ("rita", "others-phone"), ("phone", "phone")]
    for rater, device in wrong:
        with pytest.raises(NotAllowed):
            moderator.rate(name, rater, True, device=device)
    with pytest.raises(AuctionError):
        moderator.rate("agreement-0", "rita", True, device="phone")
    with pytest.raises(AuctionError):
        moderator.rate(name, "rita", True)  # from none of its devices
    assert moderator.state.sequence == before
    moderator.rate(name, "rita", True, device="phone")
    with pytest.raises(Exists):
        moderator.rate(name, "rita", False, device="phone")


def test_ratings_are_hidden_until_both_are_in_or_fourteen_days_have_passed() -> None:
    moderator, clock = market()
    name = finished(moderator, clock)
    settled(moderator, name)
    shown = moderator.rate(name, "rita", False, device="phone")
    assert shown.service is not None
    provider_sees = moderator.opinions(name)
    assert provider_sees == ()
    assert moderator.rating("p1", "anonymise").count == 0
    clock.advance(14 * DAY_MS - 1)
    moderator.tick()
    assert moderator.opinions(name) == ()
    clock.advance(1)
    moderator.tick()
    assert [opinion.satisfied for opinion in moderator.opinions(name)] == [False]
    assert moderator.rating("p1", "anonymise").count == 1
    assert moderator.rating("rita").silence_ppm == 1_000_000  # the provider said nothing
    with pytest.raises(AuctionError):
        moderator.rate(name, "p1", False)


def test_many_small_or_circular_deals_buy_nothing() -> None:
    rules = RatingRules(newcomer_bond=0, value_full=1_000)
    moderator, clock = market(config=MarketConfig(rating=rules))
    before = moderator.rating("p1", "anonymise")
    for _ in range(30):  # at 1 unit each
        name = awarded(moderator, clock, prices=(1, 1), reserve=1)
        provider = moderator.agreement(name).provider
        settled(moderator, name)
        moderator.rate(name, "rita", True, device="phone")
        moderator.rate(name, provider, True)
        clock.advance(200_000)
    after = moderator.rating("p1", "anonymise")
    assert after.count > 5
    assert after.lower_ppm - before.lower_ppm < 10_000


def test_a_newcomer_starts_at_the_prior_and_owes_a_bond_so_that_a_new_name_is_no_escape() -> None:
    moderator, _, auction = opened(AuctionTerms(receipts=False, reserve=900, open_for_ms=1_000))
    moderator.register("fresh", "provider", capacity_bps=10_000)
    assert moderator.rating("fresh", "anonymise").newcomer
    with pytest.raises(InsufficientFunds):
        moderator.bid(auction, BidEntry("fresh", 1))


def test_closing_times_are_the_moderators() -> None:
    moderator, clock, auction = opened(AuctionTerms(receipts=False, reserve=900, open_for_ms=1_000))
    with pytest.raises(WrongState):
        moderator.close(auction)
    assert (
        Closing(opens_ms=clock.now_ms, closes_ms=clock.now_ms + 1_000)
        == moderator.auction(auction).announcement.closing
    )
    clock.advance(1_000)
    moderator.tick()
    assert moderator.auction(auction).state == "void"
    with pytest.raises(TooLate):
        moderator.bid(auction, BidEntry("p0", 1))


def an_offer(clock: ManualClock, number: int, price: int) -> StandingOffer:
    return StandingOffer(
        offer=f"o{number}",
        provider=f"p{number}",
        service="anonymise",
        unit_price=price,
        currency="EUR",
        quantity=1,
        rate_bps_max=5_000,
        valid_until_ms=clock.now_ms + 60_000,
    )


def test_the_transcript_of_a_spot_award_shows_the_offers_as_they_stood(store: Store) -> None:
    moderator, clock = market(store)
    for number, price in ((0, 250), (1, 200), (2, 900)):
        moderator.stand_offer(an_offer(clock, number, price))
    terms = AuctionTerms(receipts=False, reserve=260, open_for_ms=50, format="spot")
    agreement = moderator.spot("rita", asked(clock), terms, wait=False)
    award = moderator.auction(agreement.auction).award
    assert award is not None
    transcript = moderator.transcript(agreement.auction)
    assert [(offer.provider, offer.quantity) for offer in transcript.offers] == [("p0", 1), ("p1", 1), ("p2", 1)]
    verify_transcript(transcript, award, ())
    cheaper = msgspec.structs.replace(transcript.offers[0], unit_price=100)
    with pytest.raises(TranscriptWrong):
        verify_transcript(msgspec.structs.replace(transcript, offers=(cheaper, *transcript.offers[1:])), award, ())


@pytest.mark.parametrize("format", ["spot", "packages_large"])
def test_formats_that_need_no_command_of_their_own_go_through_bid_and_close(format: str) -> None:
    items = ("up", "down") if format == "packages_large" else ()
    moderator, clock, auction = opened(
        AuctionTerms(receipts=False, reserve=900, open_for_ms=1_000, format=format, items=items)
    )
    for number, price in enumerate((300, 200, 250)):
        moderator.bid(auction, BidEntry(f"p{number}", price, items=items))
    clock.advance(1_000)
    award = moderator.close(auction)
    assert [(one.bidder, one.price) for one in award.winners] == [("p1", 200)]
    verify_transcript(moderator.transcript(auction), award, moderator.bids(auction, "p0"))


def test_a_method_of_payment_that_the_market_does_not_know_is_refused_at_the_announcement() -> None:
    moderator, clock = market()
    terms = AuctionTerms(reserve=900, open_for_ms=1_000, method="crd")
    standing = msgspec.structs.replace(terms, format="spot")
    before = moderator.state.sequence
    for call in (
        lambda: moderator.announce("rita", asked(clock), terms),
        lambda: moderator.hold_auction("rita", asked(clock), terms, [BidEntry("p0", 5)]),
        lambda: moderator.spot("rita", asked(clock), standing),
    ):
        with pytest.raises(BadValue, match="not accept payment by 'crd'"):
            call()
    assert moderator.state.sequence == before


def test_no_auction_in_one_command_is_paid_with_a_card() -> None:
    """A card is authorised before bidding opens."""
    moderator, clock = market()
    moderator.processors["card"] = Cards()
    terms = AuctionTerms(reserve=900, open_for_ms=1_000, method="card", source="tok")
    before = moderator.state.sequence
    for call in (
        lambda: moderator.hold_auction("rita", asked(clock), terms, [BidEntry("p0", 5)]),
        lambda: moderator.spot("rita", asked(clock), msgspec.structs.replace(terms, format="spot")),
    ):
        with pytest.raises(BadValue, match="announce, then pay"):
            call()
    assert moderator.state.sequence == before
    assert moderator.announce("rita", asked(clock), terms).auction
