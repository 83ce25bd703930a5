"""The transcript: an honest one verifies for everyone, and whatever a moderator changes is found."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import SEED, World, announce, bid_of, rate, worlds

from auction.formats import FORMATS, award
from auction.formats.transcript import Entry, Transcript, digest_of_award, verify, verify_own, write_transcript
from auction.model.award import Award
from auction.model.bid import Bid, QualityWeights, commit_seed
from auction.model.errors import TranscriptWrong

SEALED = st.sampled_from(["second_score", "first_score", "first_price", "second_price", "uniform_price", "spot"])


@given(SEALED.flatmap(lambda name: worlds(format=name, weighs="score" in name, newcomers=name != "uniform_price")))
def test_an_honest_transcript_verifies_for_every_bidder(world: World) -> None:
    announcement, bids, ratings, seed = world
    result = award(announcement, bids, ratings, seed)
    transcript = write_transcript(announcement, bids, ratings, result)
    verify(transcript, result, bids)
    for bid in bids:
        verify_own(transcript, result, bid)
    wire = msgspec.json.decode(msgspec.json.encode(transcript), type=Transcript)
    assert (wire, wire.digest) == (transcript, transcript.digest)
    assert msgspec.json.decode(msgspec.json.encode(result), type=Award) == result


ANNOUNCEMENT = announce(quality=QualityWeights(opinion=50))
BIDS = [bid_of("p", 60, 0, salt="x"), bid_of("q", 40, 1, salt="y"), bid_of("r", 50, 2, salt="z")]
RATINGS = {"p": rate("p", 900_000), "q": rate("q", 200_000), "r": rate("r", 100_000)}
HONEST = award(ANNOUNCEMENT, BIDS, RATINGS, SEED)
TRANSCRIPT = write_transcript(ANNOUNCEMENT, BIDS, RATINGS, HONEST)


def forged(result: Award, **change: Any) -> Transcript:
    """A transcript that a cheating moderator makes to go with its award."""
    return msgspec.structs.replace(TRANSCRIPT, award_digest=digest_of_award(result), **change)


def with_standing(place: int, **change: Any) -> Award:
    standings = list(HONEST.standings)
    standings[place] = msgspec.structs.replace(standings[place], **change)
    return msgspec.structs.replace(HONEST, standings=tuple(standings))


def swapped() -> Award:
    first, second, third = HONEST.standings
    second = msgspec.structs.replace(second, outcome="won", needed=None)
    first = msgspec.structs.replace(first, outcome="lost")
    winning = msgspec.structs.replace(HONEST.winners[0], bid=second.bid, bidder=second.bidder)
    return msgspec.structs.replace(HONEST, standings=(second, first, third), winners=(winning,))


def priced(price: int) -> Award:
    return msgspec.structs.replace(HONEST, winners=(msgspec.structs.replace(HONEST.winners[0], price=price),))


CHEATS: dict[str, tuple[Award, Transcript]] = {
    "the winner is paid more": (priced(99), forged(priced(99))),
    "the winner is paid less": (priced(60), forged(priced(60))),
    "the second wins": (swapped(), forged(swapped())),
    "the best score is told lower": (with_standing(0, score=-99), forged(with_standing(0, score=-99))),
    "the best bid is put beyond the reserve": (
        with_standing(0, outcome="beyond_reserve"),
        forged(with_standing(0, outcome="beyond_reserve")),
    ),
    "the bid is not in the list": (HONEST, forged(HONEST, entries=TRANSCRIPT.entries[1:])),
    "another seed": (HONEST, forged(HONEST, seed=b"other".hex())),
    "set aside for newcomers without the draw": (
        msgspec.structs.replace(HONEST, newcomers_only=True),
        forged(msgspec.structs.replace(HONEST, newcomers_only=True)),
    ),
    "no seed": (HONEST, forged(HONEST, seed="xyz")),
    "another award": (HONEST, forged(priced(61))),
    "a rating was changed afterwards": (HONEST, forged(HONEST, ratings=(rate("p", 1), *TRANSCRIPT.ratings[1:]))),
    "the bid was changed": (HONEST, forged(HONEST, entries=(Entry("p0", 0, "0" * 64), *TRANSCRIPT.entries[1:]))),
}


@pytest.mark.parametrize("cheat", sorted(CHEATS))
def test_what_a_moderator_changes_is_found(cheat: str) -> None:
    result, transcript = CHEATS[cheat]
    verify(TRANSCRIPT, HONEST, BIDS)
    with pytest.raises(TranscriptWrong):
        verify(transcript, result, BIDS)
    with pytest.raises(TranscriptWrong):
        verify_own(transcript, result, BIDS[0])


def test_who_is_said_to_have_come_earlier_is_found() -> None:
    """q came for the tie, after the announcement; the moderator says that it was there before."""
    announcement = announce(format="first_price", sequence=10)
    bids = [bid_of(name, 50, place, registered=came) for place, (name, came) in enumerate((("p", 3), ("q", 12)))]
    result = award(announcement, bids, {}, SEED)
    came = {"p": 3, "q": 12}
    assert (result.winners[0].bidder, result.late) == ("p", ("q1",))
    verify(write_transcript(announcement, bids, {}, result), result, bids, came)
    said = [bids[0], msgspec.structs.replace(bids[1], registered=4)]
    forgery = award(announcement, said, {}, SEED)
    transcript = write_transcript(announcement, said, {}, forgery)
    verify(transcript, forgery, said)  # it fits itself: what is wrong is said of q alone
    with pytest.raises(TranscriptWrong):
        verify(transcript, forgery, said, came)
    with pytest.raises(TranscriptWrong):
        verify_own(transcript, forgery, bids[1])  # q was told otherwise when it bid


def test_one_that_came_late_and_won_a_tie_is_found_by_who_lost_it() -> None:
    announcement = announce(format="first_price", sequence=10)
    bids = [bid_of(name, 50, place, registered=came) for place, (name, came) in enumerate((("p", 3), ("q", 12)))]
    honest = award(announcement, bids, {}, SEED)
    first, second = honest.standings
    swapped = (
        msgspec.structs.replace(second, outcome="won", needed=None),
        msgspec.structs.replace(first, outcome="lost", needed=49),
    )
    winning = msgspec.structs.replace(honest.winners[0], bid=second.bid, bidder=second.bidder)
    cheat = msgspec.structs.replace(honest, standings=swapped, winners=(winning,))
    transcript = write_transcript(announcement, bids, {}, cheat)
    with pytest.raises(TranscriptWrong):
        verify(transcript, cheat, bids)
    with pytest.raises(TranscriptWrong):
        verify_own(transcript, cheat, bids[0])


def test_a_bid_that_never_was_is_found_once_all_are_opened() -> None:
    shill = bid_of("shill", 59, 3)
    result = award(ANNOUNCEMENT, [*BIDS, shill], RATINGS, SEED)
    transcript = write_transcript(ANNOUNCEMENT, [*BIDS, shill], RATINGS, result)
    with pytest.raises(TranscriptWrong):
        verify(transcript, result, BIDS)


def test_the_commitment_tells_no_price_without_its_salt() -> None:
    salted = {write_transcript(ANNOUNCEMENT, [bid_of("p", 1, 0, salt=s)], {}, HONEST).entries[0] for s in ("a", "b")}
    assert len(salted) == 2


def test_every_format_of_the_table_can_be_announced_and_verified() -> None:
    changes: dict[str, dict[str, Any]] = {
        "packages": {"items": ("i",)},
        "packages_large": {"items": ("i",)},
        "dutch": {"ramp": {"start_price": 0, "step": 1, "step_ms": 1}},
    }
    for name in FORMATS:
        fields = {"auction": "a", "block": "b", "service": "s", "currency": "EUR", "reserve": 100, "format": name}
        fields |= {"closing": {"opens_ms": 0, "closes_ms": 9}, "seed_commitment": commit_seed("a", SEED)}
        announcement = msgspec.convert(fields | changes.get(name, {}), type(ANNOUNCEMENT))
        if name == "packages_large":
            pytest.importorskip("highspy", reason="the extra `packages` is not installed")
        items = announcement.items
        bids: list[Bid] = [bid_of("p", 0, 0, items=items), bid_of("q", 0, 1, items=items)]
        result = award(announcement, bids, {}, SEED)
        assert len(result.winners) == 1, name
        verify(write_transcript(announcement, bids, {}, result), result, bids)
