"""Who may deal with whom: parties that one refuses, the operator's ban, attributes that a block requires."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from markets import asked, awarded, key_of, market, money, nobody, poll, public_key_of, settled

from auction.formats.transcript import verify, verify_own
from auction.model.bid import Bid, Ramp, StandingOffer, commitment
from auction.model.errors import (
    AuctionError,
    BadValue,
    LinkedParties,
    NoAward,
    NoCapacity,
    NotAllowed,
    TranscriptWrong,
    WrongState,
)
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.invariants import replay, violations
from auction.moderator.records import Debt
from auction.storage.store import MemoryStore

TERMS: dict[str, Any] = {"receipts": False, "reserve": 1_000, "open_for_ms": 10_000}


def announced(moderator: Moderator, clock: ManualClock, requires: dict[str, str] | None = None, **terms: Any) -> str:
    block = msgspec.structs.replace(asked(clock), requires=requires or {})
    return moderator.announce("rita", block, AuctionTerms(**TERMS | terms)).auction


def offer_of(clock: ManualClock, provider: str, unit_price: int) -> StandingOffer:
    return StandingOffer(
        offer=f"offer-{provider}",
        provider=provider,
        service="anonymise",
        unit_price=unit_price,
        currency="EUR",
        quantity=3,
        rate_bps_max=5_000,
        valid_until_ms=clock.now_ms + 80_000_000,
    )


def check_transcript(moderator: Moderator, auction: str) -> dict[str, str]:
    """The transcript verifies, for all bids together and for each bidder alone; what each bidder is told."""
    transcript, view = moderator.transcript(auction), moderator.auction(auction)
    assert view.award is not None
    bids = moderator.bids(auction, "rita")
    verify(transcript, view.award, bids)
    return {bid.bidder: verify_own(transcript, view.award, bid) for bid in bids}


# --- parties that one will not deal with ---


def test_a_refused_party_is_not_matched_and_all_can_still_verify() -> None:
    moderator, clock = market(store := MemoryStore())
    moderator.refuse_party("rita", "p1")
    auction = announced(moderator, clock)
    for number, price in enumerate((300, 200, 250)):
        moderator.bid(auction, BidEntry(f"p{number}", price))  # the refused one is not told by a refusal
    clock.advance(10_000)
    award = moderator.close(auction)
    assert [(one.bidder, one.price) for one in award.winners] == [("p2", 300)]
    assert money(moderator, "p1") == 100_000  # nothing is held any more, and nothing lost
    assert check_transcript(moderator, auction) == {"p0": "", "p1": "not matched", "p2": ""}
    assert "was not considered: not matched" in moderator.explain(auction)
    shown = msgspec.json.encode((moderator.transcript(auction), moderator.close(auction), moderator.explain(auction)))
    assert b'"p1"' not in shown  # others see a bid that was not matched, and not whose list it was
    assert violations(moderator.state) == []
    assert replay(store.entries()).records == moderator.state.records


def test_a_transcript_that_excludes_the_winner_or_another_bid_is_wrong() -> None:
    moderator, clock = market()
    moderator.refuse_party("rita", "p1")
    auction = announced(moderator, clock)
    bids = [moderator.bid(auction, BidEntry(f"p{number}", 300 - number)) for number in range(3)]
    clock.advance(10_000)
    award, transcript = moderator.close(auction), moderator.transcript(auction)
    (excluded,) = transcript.excluded
    other = msgspec.structs.replace(bids[1], price=1)
    with pytest.raises(TranscriptWrong, match="differs from the excluded"):
        verify(transcript, award, [bids[0], other, bids[2]])
    with pytest.raises(TranscriptWrong, match="not in the transcript"):
        verify_own(transcript, award, other)
    won = msgspec.structs.replace(excluded, bid=bids[2].bid, sequence=bids[2].sequence, commitment=commitment(bids[2]))
    with pytest.raises(TranscriptWrong, match="is excluded, but has won"):
        verify_own(msgspec.structs.replace(transcript, excluded=(won,)), award, bids[2])
    with pytest.raises(TranscriptWrong, match="not those"):
        verify(msgspec.structs.replace(transcript, excluded=()), award, bids)


def test_the_list_counts_for_all_that_are_one_in_interest() -> None:
    moderator, clock = market()
    moderator.refuse_party("rita", "p1")
    moderator.register("front", "provider", controller="p1", capacity_bps=10_000)
    moderator.deposit("front", 100_000, "EUR")
    auction = announced(moderator, clock)
    moderator.bid(auction, BidEntry("front", 10))
    moderator.bid(auction, BidEntry("p0", 200))
    clock.advance(10_000)
    assert [one.bidder for one in moderator.close(auction).winners] == ["p0"]


def test_the_list_of_the_announcement_counts() -> None:
    """Nobody is put on a list for a bid that is known, and nobody gets rid of a binding bid by a list."""
    moderator, clock = market()
    auction = announced(moderator, clock)
    moderator.bid(auction, BidEntry("p1", 200))
    moderator.refuse_party("rita", "p1")
    moderator.refuse_party("p1", "rita")
    clock.advance(10_000)
    assert [one.bidder for one in moderator.close(auction).winners] == ["p1"]
    again = announced(moderator, clock)
    with pytest.raises(NotAllowed, match="has refused to deal with"):
        moderator.bid(again, BidEntry("p1", 200))
    moderator.accept_party("p1", "rita")
    moderator.bid(again, BidEntry("p1", 200))
    clock.advance(10_000)
    assert moderator.close(again).failed
    moderator.accept_party("rita", "p1")
    name = awarded(moderator, clock)
    assert moderator.agreement(name).provider == "p1"


@pytest.mark.parametrize(
    "terms", [{"format": "open"}, {"format": "dutch", "ramp": Ramp(start_price=100, step=50, step_ms=2_000)}]
)
def test_where_a_bid_moves_others_a_refused_party_cannot_bid(terms: dict[str, Any]) -> None:
    moderator, clock = market()
    moderator.refuse_party("rita", "p1")
    auction = announced(moderator, clock, **terms)
    with pytest.raises(NotAllowed, match="accepts no bids from p1"):
        moderator.bid(auction, BidEntry("p1", 100, limit=100))
    moderator.bid(auction, BidEntry("p0", 100, limit=100))


@pytest.mark.parametrize("who", [("rita", "p0"), ("p0", "rita")])
def test_offers_of_who_is_not_matched_are_left_out_of_a_spot_award(who: tuple[str, str]) -> None:
    moderator, clock = market()
    for number in (0, 1):
        moderator.stand_offer(offer_of(clock, f"p{number}", 100 + number))
    moderator.refuse_party(*who)
    agreement = moderator.spot("rita", asked(clock), AuctionTerms(**TERMS))
    assert agreement.provider == "p1"
    transcript, award = moderator.transcript(agreement.auction), moderator.auction(agreement.auction).award
    assert award is not None
    verify(transcript, award, [])
    assert [(one.bid, one.why) for one in transcript.excluded] == [("offer-p0", "not matched")]
    moderator.refuse_party("rita", "p1")
    moderator.refuse_party("rita", "p2")
    with pytest.raises(NoAward):
        moderator.spot("rita", asked(clock), AuctionTerms(**TERMS))


def test_an_auction_held_at_once_leaves_the_refused_out() -> None:
    moderator, clock = market()
    moderator.refuse_party("rita", "p1")
    held = moderator.hold_auction(
        "rita",
        asked(clock),
        AuctionTerms(**TERMS),
        [BidEntry(f"p{i}", price) for i, price in enumerate((300, 200, 250))],
    )
    assert moderator.agreement(held.agreements[0]).provider == "p2"
    assert check_transcript(moderator, held.auction)["p1"] == "not matched"
    assert violations(moderator.state) == []


def test_who_is_refused_or_lacks_something_takes_no_rest_over() -> None:
    for hinder in ("refused", "attribute", "banned", ""):
        moderator, clock = market()
        for number in range(3):
            moderator.change_attributes(f"p{number}", {"iso27001": "yes"})
        block = msgspec.structs.replace(asked(clock), requires={"iso27001": "yes"})
        auction = moderator.announce("rita", block, AuctionTerms(**TERMS | {"fail_over": True})).auction
        for number, price in enumerate((300, 200, 250)):
            moderator.bid(auction, BidEntry(f"p{number}", price))
        clock.advance(10_000)
        moderator.tick()
        (name,) = moderator.auction(auction).agreements
        clock.advance(80_000)
        if hinder == "refused":
            moderator.refuse_party("rita", "p2")
        elif hinder == "attribute":
            moderator.change_attributes("p2", {})
        elif hinder == "banned":
            moderator.ban("p2")
        poll(moderator, "p2", "rita")
        moderator.end(name, "rita", "blaming", 100)
        if hinder:
            with pytest.raises(NoAward):
                moderator.take_over(name, "p2")
        else:
            assert moderator.take_over(name, "p2").provider == "p2"


def test_a_block_is_not_resold_to_who_is_not_matched_with_its_provider() -> None:
    moderator, clock = market()
    moderator.register("rob", "recipient", public_key=public_key_of("rob"))
    moderator.deposit("rob", 1_000, "EUR")
    name = awarded(moderator, clock)
    one = moderator.agreement(name)
    moderator.refuse_party(one.provider, "rob")
    with pytest.raises(NotAllowed, match="not matched"):
        moderator.resell_block(one.block, "rita", "rob", 10)
    moderator.accept_party(one.provider, "rob")
    moderator.resell_block(one.block, "rita", "rob", 10)


def test_a_list_is_bounded_and_names_parties(monkeypatch: pytest.MonkeyPatch) -> None:
    moderator, _ = market()
    assert moderator.refused_by("rita") == ()
    assert moderator.refuse_party("rita", "p0").refused == moderator.refuse_party("rita", "p0").refused == ("p0",)
    for other, error in (("rita", BadValue), ("phone", NotAllowed), ("nobody", AuctionError)):
        with pytest.raises(error):
            moderator.refuse_party("rita", other)
    monkeypatch.setattr("auction.moderator.rules.admission.REFUSED_MAX", 1)
    with pytest.raises(BadValue):
        moderator.refuse_party("rita", "p1")


# --- the operator's ban ---


def test_a_ban_lets_what_is_agreed_go_on_and_begins_nothing() -> None:
    moderator, clock = market(store := MemoryStore())
    name = awarded(moderator, clock)
    provider = moderator.agreement(name).provider
    moderator.stand_offer(offer_of(clock, provider, 100))
    sealed, committed = announced(moderator, clock), announced(moderator, clock, reveal_for_ms=5_000)
    moderator.bid(sealed, BidEntry(provider, 10))
    moderator.bid(sealed, BidEntry("p0", 300))
    moderator.commit(committed, provider, "ab" * 32)
    moderator.ban(provider)
    for call in (
        lambda: moderator.bid(sealed, BidEntry(provider, 5)),
        lambda: moderator.commit(announced(moderator, clock, reveal_for_ms=5_000), provider, "cd" * 32),
        lambda: moderator.stand_offer(offer_of(clock, provider, 100)),
        lambda: moderator.announce(provider, asked(clock), AuctionTerms(**TERMS)),
    ):
        with pytest.raises(NotAllowed, match="banned"):
            call()
    assert moderator.offers("anonymise") == []
    clock.advance(10_000)
    assert [one.bidder for one in moderator.close(sealed).winners] == ["p0"]
    assert check_transcript(moderator, sealed)[provider] == "banned"
    clock.advance(120_000)
    assert settled(moderator, name).paid == 250
    assert nobody(moderator) == 0
    assert money(moderator, provider) == 100_250
    assert violations(moderator.state) == []
    assert replay(store.entries()).records == moderator.state.records
    moderator.lift_ban(provider)
    moderator.bid(announced(moderator, clock), BidEntry(provider, 10))


def test_what_a_banned_party_has_announced_is_void_and_all_goes_back() -> None:
    moderator, clock = market()
    with_bids = announced(moderator, clock)
    moderator.bid(with_bids, BidEntry("p0", 300))
    live = announced(moderator, clock, format="open")
    moderator.bid(live, BidEntry("p1", 300, limit=200))
    committed = announced(moderator, clock, reveal_for_ms=5_000)
    moderator.commit(committed, "p2", "ab" * 32)
    alone = announced(moderator, clock)
    moderator.open_group(alone, "rita")
    group = next(iter(moderator.state.records["group"]))
    moderator.register("mary", "recipient")
    moderator.deposit("mary", 100, "EUR")
    moderator.join_group(group, "mary", 100)
    moderator.ban("rita")
    assert {moderator.auction(name).state for name in (with_bids, live, committed, alone)} == {"void"}
    assert moderator.auction(with_bids).award is None
    assert [money(moderator, name) for name in ("rita", "p0", "p1", "p2", "mary")] == [1_000_000, *[100_000] * 3, 100]
    clock.advance(30 * 3_600_000)
    moderator.tick()
    assert violations(moderator.state) == []


def test_in_the_open_a_banned_leader_binds_nobody() -> None:
    """The price and the next step follow the bids that are left, and so does the capacity that the leader holds."""
    moderator, clock = market(store := MemoryStore())
    auction = announced(moderator, clock, format="open", increment=10)
    moderator.bid(auction, BidEntry("p0", 900, limit=700))
    moderator.bid(auction, BidEntry("p2", 800, limit=650))  # p2 leads at 690
    moderator.bid(auction, BidEntry("p1", 5, limit=0))
    with pytest.raises(BadValue, match="standing price 5"):
        moderator.bid(auction, BidEntry("p0", 600, limit=500))
    before = money(moderator, "p1")
    moderator.ban("p1")
    assert money(moderator, "p1") == before + 100 == 100_000  # its hold is back, and nothing is forfeited
    bidding = moderator.state.records["bidding"][auction]
    assert (bidding.leader.bidder, bidding.price, bidding.limit) == ("p2", 690, 650)
    assert moderator.block(f"{auction}/lead").provider == "p2"
    with pytest.raises(BadValue, match="standing price 690"):
        moderator.bid(auction, BidEntry("p0", 690, limit=685))
    moderator.bid(auction, BidEntry("p0", 600, limit=500))
    assert violations(moderator.state) == []
    moderator.lift_ban("p1")  # its former bid stays withdrawn
    clock.advance(10_000)
    award = moderator.close(auction)
    assert [(one.bidder, one.price) for one in award.winners] == [("p0", 600)]
    (own,) = [bid for bid in moderator.bids(auction, "p1") if bid.bidder == "p1"]
    assert verify_own(moderator.transcript(auction), award, own) == "banned"
    assert violations(moderator.state) == []
    assert replay(store.entries()).records == moderator.state.records


def test_in_the_open_with_fail_over_a_back_up_is_taken_once_and_binds() -> None:
    moderator, clock = market()
    auction = announced(moderator, clock, format="open", fail_over=True)
    moderator.bid(auction, BidEntry("p0", 1))
    moderator.bid(auction, BidEntry("p1", 900))
    with pytest.raises(BadValue, match="same bidder"):
        moderator.bid(auction, BidEntry("p1", 950))
    moderator.bid(auction, BidEntry("p1", 800))
    bidding = moderator.state.records["bidding"][auction]
    assert (bidding.leader.bidder, bidding.price, bidding.extensions) == ("p0", 1, 0)
    clock.advance(10_000)
    award = moderator.close(auction)
    assert [(one.bidder, one.price) for one in award.winners] == [("p0", 1)]
    assert [(one.bidder, one.offered) for one in award.runners_up] == [("p1", 800)]
    assert violations(moderator.state) == []


def test_in_the_open_a_leader_with_a_debt_binds_no_later_bid() -> None:
    moderator, clock = market()
    moderator.register("front", "recipient", controller="owner", public_key=public_key_of("front"))
    moderator.register("shill", "provider", controller="owner", capacity_bps=10_000)
    moderator.deposit("shill", 100_000, "EUR")
    moderator.deposit("front", 5_000, "EUR")
    auction = announced(moderator, clock, format="open")
    moderator.bid(auction, BidEntry("p0", 900, limit=700))
    moderator.bid(auction, BidEntry("shill", 1, limit=0))
    draft = moderator._draft(clock.now_ms)
    draft.put("debt", "d", Debt(id="d", agreement="", debtor="front", to=(("funds:p2", 5),)))
    moderator._journal("owe", "", b"", draft, None)
    moderator.bid(auction, BidEntry("p2", 600, limit=600))
    assert moderator.block(f"{auction}/lead").provider == "p2"
    clock.advance(10_000)
    assert [(one.bidder, one.price) for one in moderator.close(auction).winners] == [("p2", 600)]


def test_who_leads_after_a_ban_has_the_capacity_for_it() -> None:
    moderator, clock = market()
    auction = announced(moderator, clock, format="open")
    moderator.bid(auction, BidEntry("p0", 900, limit=700))
    moderator.bid(auction, BidEntry("p2", 800, limit=650))
    moderator.bid(auction, BidEntry("p1", 5, limit=0))
    start = asked(clock)
    own = msgspec.structs.replace(start, id="own", provider="p2", maximum_bps=9_500)
    moderator.publish_block(own)  # it did not lead, so its bid held no capacity
    moderator.ban("p1")
    assert moderator.block(f"{auction}/lead").provider == "p0"
    assert violations(moderator.state) == []
    clock.advance(10_000)
    assert [one.bidder for one in moderator.close(auction).winners] == ["p0"]


@pytest.mark.parametrize(
    "terms", [{}, {"format": "open"}, {"reveal_for_ms": 5_000}], ids=["sealed", "open", "committed"]
)
def test_a_bid_binds_also_where_it_holds_nothing(terms: dict[str, Any]) -> None:
    """Under a reserve of 0 a bid holds 0: what binds is the bid, and not the money."""
    moderator, clock = market()
    auction = announced(moderator, clock, reserve=0, **terms)
    if terms.get("reveal_for_ms"):
        moderator.commit(auction, "p0", "ab" * 32)
    else:
        moderator.bid(auction, BidEntry("p0", 0, limit=0 if terms else None))
    with pytest.raises(NoCapacity):
        moderator.change_capacity("p0", 999)
    with pytest.raises(WrongState, match="is open"):
        moderator.erase("p0")
    moderator.ban("p0")
    moderator.lift_ban("p0")
    moderator.change_capacity("p0", 0)  # the ban has withdrawn it
    moderator.erase("p0")
    clock.advance(15_000)
    moderator.tick()
    assert moderator.auction(auction).state == "void"
    assert violations(moderator.state) == []


def test_a_commitment_of_who_was_banned_is_revealed_no_more() -> None:
    moderator, clock = market()
    auction = announced(moderator, clock, reveal_for_ms=5_000)
    entry = BidEntry("p0", 300, salt="s")
    hidden = Bid(bid="-", auction=auction, bidder="p0", price=300, currency="EUR", salt="s")
    moderator.commit(auction, "p0", commitment(hidden))
    moderator.ban("p0")
    moderator.lift_ban("p0")
    assert money(moderator, "p0") == 100_000
    clock.advance(10_000)
    with pytest.raises(WrongState, match="withdrawn"):
        moderator.reveal(auction, entry)
    clock.advance(5_000)
    moderator.tick()
    assert (moderator.auction(auction).state, nobody(moderator)) == ("void", 0)


def test_another_name_of_the_banned_is_banned_too() -> None:
    moderator, clock = market()
    moderator.register("front", "provider", controller="p1", capacity_bps=10_000)
    moderator.deposit("front", 100_000, "EUR")
    auction = announced(moderator, clock)
    moderator.bid(auction, BidEntry("front", 10))
    moderator.ban("p1")
    with pytest.raises(NotAllowed, match="p1 is banned"):
        moderator.bid(auction, BidEntry("front", 5))
    clock.advance(10_000)
    assert moderator.close(auction).failed


# --- attributes that a block requires ---


def test_who_lacks_a_required_attribute_is_excluded_with_the_reason() -> None:
    moderator, clock = market()
    moderator.change_attributes("p0", {"iso27001": "yes", "seat": "FR"})
    moderator.change_attributes("p1", {"iso27001": "yes"})
    auction = announced(moderator, clock, {"iso27001": "yes"})
    assert moderator.auction(auction).announcement.requires == {"iso27001": "yes"}
    with pytest.raises(NotAllowed, match="p2 lacks what the block requires: iso27001=yes"):
        moderator.bid(auction, BidEntry("p2", 100))
    moderator.bid(auction, BidEntry("p0", 300))
    moderator.bid(auction, BidEntry("p1", 200))
    moderator.change_attributes("p1", {"iso27001": "expired"})
    clock.advance(10_000)
    assert [one.bidder for one in moderator.close(auction).winners] == ["p0"]
    assert check_transcript(moderator, auction) == {"p0": "", "p1": "attribute iso27001=yes"}
    assert "not considered: attribute iso27001=yes" in moderator.explain(auction)


FORMATS: list[dict[str, Any]] = [
    {"format": name} for name in ("second_score", "first_score", "first_price", "second_price", "open")
] + [
    {"format": "dutch", "ramp": Ramp(start_price=900, step=50, step_ms=2_000)},
    {"format": "uniform_price", "quantity": 2, "reserve": 500},
    {"format": "packages", "items": ("a", "b")},
    {"format": "packages_large", "items": ("a", "b")},
]


@pytest.mark.parametrize("terms", FORMATS, ids=[one["format"] for one in FORMATS])
def test_attributes_are_required_in_every_format(terms: dict[str, Any]) -> None:
    moderator, clock = market()
    moderator.change_attributes("p0", {"tier": "1"})
    moderator.change_attributes("p1", {"tier": "1"})
    auction = announced(moderator, clock, {"tier": ""}, **terms)
    more = {"items": ("a", "b")} if "items" in terms else {}
    with pytest.raises(NotAllowed, match="lacks what the block requires: tier"):
        moderator.bid(auction, BidEntry("p2", 900, **more))
    entries = [BidEntry("p0", 310, **more), BidEntry("p1", 300, **more)]
    if terms["format"] == "dutch":
        entries = [BidEntry("p0", 900)]
    for entry in entries:
        moderator.bid(auction, entry)
    moderator.change_attributes("p1", {})
    clock.advance(10_000)
    assert {one.bidder for one in moderator.close(auction).winners} == {"p0"}
    assert violations(moderator.state) == []


def test_attributes_are_required_of_offers_and_of_who_bids_for_a_block() -> None:
    moderator, clock = market()
    moderator.change_attributes("p1", {"tier": "1"})
    for number in (0, 1):
        moderator.stand_offer(offer_of(clock, f"p{number}", 100 + number))
    block = msgspec.structs.replace(asked(clock), requires={"tier": "1"})
    agreement = moderator.spot("rita", block, AuctionTerms(**TERMS))
    assert agreement.provider == "p1"
    excluded = moderator.transcript(agreement.auction).excluded
    assert [(one.bid, one.why) for one in excluded] == [("offer-p0", "attribute tier=1")]
    sold = moderator.publish_block(msgspec.structs.replace(asked(clock), provider="p0", requires={"hospital": ""}))
    auction = moderator.announce("p0", sold.id, AuctionTerms(**TERMS | {"reserve": 10})).auction
    with pytest.raises(NotAllowed, match="lacks what the block requires: hospital"):
        moderator.bid(auction, BidEntry("rita", 100))
    moderator.change_attributes("rita", {"hospital": "yes"})
    moderator.bid(auction, BidEntry("rita", 100))


def test_attributes_and_requirements_are_bounded() -> None:
    moderator, clock = market()
    for wrong in ({"": "x"}, {"a b": "x"}, {"a": "x" * 129}, {"a": "\n"}, {f"a{i}": "" for i in range(17)}):
        with pytest.raises(BadValue):
            moderator.change_attributes("p0", wrong)
        with pytest.raises(BadValue):
            announced(moderator, clock, wrong)
    with pytest.raises(NotAllowed):
        moderator.change_attributes("phone", {"a": "b"})


def test_a_stolen_key_ties_nobody() -> None:
    """The link of an accomplice keeps nobody out: neither a key that was given up, nor a list."""
    moderator, clock = market()
    from test_changes import change_key

    change_key(moderator, "p0", "new")
    with pytest.raises(AuctionError, match="another party had"):
        moderator.register("thief", "provider", public_key=public_key_of("p0"))
    moderator.register("thief", "provider", capacity_bps=10_000)
    with pytest.raises(AuctionError, match="has or had this key"):
        change_key(moderator, "thief", "p0")
    assert key_of("p0") is not None
    auction = announced(moderator, clock)
    moderator.bid(auction, BidEntry("p0", 100))


def test_own_bids_are_still_refused_as_linked() -> None:
    moderator, clock = market()
    moderator.register("sister", "provider", controller="p0", capacity_bps=10_000)
    moderator.deposit("sister", 100_000, "EUR")
    auction = announced(moderator, clock)
    moderator.bid(auction, BidEntry("p0", 100))
    with pytest.raises(LinkedParties):
        moderator.bid(auction, BidEntry("sister", 100))
    assert isinstance(moderator.bids(auction, "p0")[0], Bid)
