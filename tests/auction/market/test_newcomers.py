"""Where new names start, and quality that is insured by bond: what is shown, what wins, what it costs, what verifies.

Expected values are worked out by hand, or by `newcomer_start_ppm`, which has tests of its own.
"""

from __future__ import annotations

import msgspec
import pytest
from markets import asked, awarded, market, money, nobody, settled

from auction.formats.transcript import verify, verify_own
from auction.model.bid import QualityWeights, commitment
from auction.model.errors import BadValue, InsufficientFunds, TranscriptWrong
from auction.model.rating import RatingRules, lower_ppm
from auction.model.weighing import AT_THE_PRIOR, newcomer_start_ppm
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import replay, violations
from auction.moderator.reputation import Reputation

RULES = RatingRules(newcomer_bond=0, newcomer_weight=1_000_000, value_full=100)
PRIOR = lower_ppm(500_000, 500_000, RULES.z_squared)
QUALITY = QualityWeights(opinion=1_000)


def of_bad_records() -> tuple[Moderator, ManualClock]:
    """p0 is known, and has served a tenth of what it had to: all of the market's money."""
    moderator, clock = market(providers=1, config=MarketConfig(rating=RULES))
    for _ in range(3):
        name = awarded(moderator, clock, (200,), format="first_price")
        clock.advance(moderator.agreement(name).ends_ms - clock.now_ms)
        settled(moderator, name, 20)
        moderator.rate(name, "rita", False, device="phone")
        moderator.rate(name, "p0", True)
    moderator.register("new", "provider", capacity_bps=10_000)
    moderator.deposit("new", 100_000, "EUR")
    return moderator, clock


def test_a_new_name_starts_no_higher_than_a_tenth_of_the_money_was_served() -> None:
    moderator, _ = of_bad_records()
    known, new = moderator.rating("p0", "anonymise"), moderator.rating("new", "anonymise")
    assert not known.newcomer
    assert known.lower_ppm < PRIOR > known.evidence_lower_ppm
    assert new.newcomer
    assert new.lower_ppm <= newcomer_start_ppm([(known.lower_ppm, 60)], RULES) == known.lower_ppm
    assert known.lower_ppm - new.lower_ppm < 5  # as near to it as whole numbers go
    assert new.evidence_lower_ppm <= known.evidence_lower_ppm < new.evidence_lower_ppm + 5
    assert moderator.rating("new", "other").lower_ppm == PRIOR  # in another service nobody has served anything


def test_the_announcement_says_where_they_start_and_later_deals_change_nothing_of_it() -> None:
    moderator, clock = of_bad_records()
    terms = AuctionTerms(reserve=500, open_for_ms=1_000_000, receipts=False, quality=QUALITY)
    later = msgspec.structs.replace(asked(clock), starts_ms=clock.now_ms + 2_000_000, ends_ms=clock.now_ms + 2_060_000)
    announcement = moderator.announce("rita", later, terms)
    start = moderator.rating("p0", "anonymise")
    assert (announcement.start_ppm, announcement.evidence_start_ppm) == (start.lower_ppm, start.evidence_lower_ppm)
    for _ in range(3):  # the market gets better meanwhile
        name = awarded(moderator, clock, (200,), format="first_price")
        settled(moderator, name, 200)
        moderator.rate(name, "rita", True, device="phone")
        moderator.rate(name, "p0", True)
    now = moderator.rating("new", "anonymise")
    assert now.lower_ppm > start.lower_ppm
    assert now.evidence_lower_ppm > start.evidence_lower_ppm
    moderator.bid(announcement.auction, BidEntry("new", 300))
    (shown,) = moderator.auction(announcement.auction).ratings
    assert start.lower_ppm - 5 < shown.lower_ppm <= start.lower_ppm
    assert start.evidence_lower_ppm - 5 < shown.evidence_lower_ppm <= start.evidence_lower_ppm
    clock.advance(1_000_000)
    moderator.tick()
    award = moderator.close(announcement.auction)
    assert award.standings[0].quality == 1_000 * shown.lower_ppm // 1_000_000
    verify(moderator.transcript(announcement.auction), award, moderator.bids(announcement.auction, "rita"))


def test_an_announcement_that_says_otherwise_is_found_by_who_reads_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    moderator, clock = of_bad_records()
    terms = AuctionTerms(reserve=500, open_for_ms=10_000, receipts=False, quality=QUALITY)
    moderator.announce("rita", asked(clock), terms)
    wrong: list[str] = []
    replay(moderator.store.entries(), RULES, wrong)
    assert wrong == []
    with monkeypatch.context() as patch:
        patch.setattr(Reputation, "start", lambda *_: AT_THE_PRIOR)  # a newcomer of the moderator's own is favoured
        name = moderator.announce("rita", asked(clock), terms).auction
    replay(moderator.store.entries(), RULES, wrong)
    assert [words.split()[0] for words in wrong] == [name]


def insured(fraction: int = 1_000, price: int = 600) -> tuple[Moderator, ManualClock, str]:
    """p0 asks for 400; p1, as new, for more, and insures so much of the reserve of 1,000."""
    moderator, clock = market(providers=2, config=MarketConfig(rating=RULES))
    terms = AuctionTerms(reserve=1_000, open_for_ms=10_000, receipts=False, quality=QUALITY, format="first_score")
    auction = moderator.announce("rita", asked(clock), terms).auction
    moderator.bid(auction, BidEntry("p0", 400))
    moderator.bid(auction, BidEntry("p1", price, insured=fraction))
    assert money(moderator, "p1") == 100_000 - 100 - fraction  # δR, and what it insures
    clock.advance(10_000)
    moderator.tick()
    return moderator, clock, auction


def test_who_insures_its_quality_is_ranked_by_it_and_that_verifies() -> None:
    moderator, _, auction = insured()
    award = moderator.close(auction)
    assert [(one.bidder, one.quality) for one in award.standings] == [("p1", 1_000), ("p0", 1_000 * PRIOR // 1_000_000)]
    one = moderator.agreement(moderator.auction(auction).agreements[0])
    assert (one.provider, one.insured, one.provider_held) == ("p1", 1_000, 60 + 150 + 1_000)
    bids = moderator.bids(auction, "rita")
    transcript = moderator.transcript(auction)
    verify(transcript, award, bids)
    for bid in bids:
        verify_own(transcript, award, bid)
    without = [msgspec.structs.replace(bid, insured=0) for bid in bids if bid.insured]
    assert without
    assert not {commitment(bid) for bid in without} & {commitment(bid) for bid in bids}  # a bidder commits itself to it
    with pytest.raises(TranscriptWrong):
        verify(transcript, award, [msgspec.structs.replace(bid, insured=0) for bid in bids])
    assert violations(moderator.state) == []


def test_a_part_that_is_insured_counts_as_that_part() -> None:
    moderator, _, auction = insured(300)
    assert [(one.bidder, one.score) for one in moderator.close(auction).standings] == [
        ("p1", 300 - 600),
        ("p0", 1_000 * PRIOR // 1_000_000 - 400),
    ]


def ended(provider: tuple[str, int] | None, recipient: tuple[str, int] | None, share: int = 1_000) -> Moderator:
    moderator, clock, auction = insured(share)
    (name,) = moderator.auction(auction).agreements
    clock.advance(moderator.agreement(name).starts_ms + 30_000 - clock.now_ms)
    moderator.tick()
    for party, said in (("p1", provider), ("rita", recipient)):
        if said is not None:
            moderator.end(name, party, *said)
    clock.advance(8_000_000)
    moderator.tick()
    assert violations(moderator.state) == []
    return moderator


def gains(moderator: Moderator) -> tuple[int, int, int]:
    return money(moderator, "p1") - 100_000, money(moderator, "rita") - 1_000_000, nobody(moderator)


def test_what_is_insured_pays_for_what_is_not_delivered() -> None:
    """P = 600, δ 60; of 300 that were earned at half, U is 300 and δU 30."""
    assert gains(ended(("leaving", 300), ("blaming", 300))) == (300 - 30 - 300, -300 + 30 + 300, 0)
    # Of 100 that were earned, U is 500, and 400 were insured.
    assert gains(ended(("leaving", 100), ("blaming", 100), 400)) == (100 - 50 - 400, -100 + 50 + 400, 0)
    # Nothing is insured against what the recipient does, or what both agree to.
    assert gains(ended(("blaming", 300), ("leaving", 300))) == (300 + 30, -300 - 30, 0)
    assert gains(ended(("finished", 300), ("finished", 300))) == (300, -300, 0)


def test_to_deny_or_to_be_silent_costs_what_to_admit_costs() -> None:
    admitted = gains(ended(("leaving", 300), ("blaming", 300)))[0]
    assert gains(ended(("blaming", 300), ("blaming", 300))) == (admitted, -300 - 30, 30 + 300 + 30)
    assert gains(ended(None, ("blaming", 300)))[0] == admitted
    assert gains(ended(None, None)) == (0, 0, 0)


def test_what_cannot_be_insured_is_refused() -> None:
    moderator, clock = market(providers=2, config=MarketConfig(rating=RULES))
    terms = AuctionTerms(reserve=1_000, open_for_ms=10_000, receipts=False, quality=QUALITY)
    weighs = moderator.announce("rita", asked(clock), terms).auction
    plain = moderator.announce("rita", asked(clock), msgspec.structs.replace(terms, quality=QualityWeights())).auction
    with pytest.raises(BadValue):
        moderator.bid(plain, BidEntry("p0", 400, insured=1))
    with pytest.raises(BadValue):
        moderator.bid(weighs, BidEntry("p0", 400, insured=1_001))
    moderator.release_bond("p0", 100_000, "EUR")
    moderator.withdraw("p0", 99_500, "EUR")
    with pytest.raises(InsufficientFunds):
        moderator.bid(weighs, BidEntry("p0", 400, insured=500))
    held = moderator.hold_auction("rita", asked(clock), terms, [BidEntry("p1", 700, insured=900), BidEntry("p0", 300)])
    one = moderator.agreement(held.agreements[0])
    assert (one.provider, one.insured) == ("p1", 900)
    assert violations(moderator.state) == []
