"""The transcript of an auction, with which a bidder can check an award without trusting the moderator. Pure.

It has the announcement, the seed that the announcement commits to, the ratings that weighed, a commitment for every bid
in the moderator's order, and a digest of the award.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from auction.formats import award as decide
from auction.formats import format_of
from auction.formats.spot import spot_award
from auction.model.award import Award, Draw, check_bids
from auction.model.bid import Announcement, Bid, Ratings, ShownRating, StandingOffer, commitment, digest
from auction.model.errors import AuctionError, TranscriptWrong


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One bid in the transcript: its name, its place in the moderator's order, the bidder's commitment to it, and the
    entry of the journal that the bidder came with, which says whether it comes last in ties."""

    bid: str
    sequence: int
    commitment: str
    registered: int = 0


def entry_of(bid: Bid) -> Entry:
    return Entry(bid.bid, bid.sequence, commitment(bid), bid.registered)


class Excluded(msgspec.Struct, frozen=True):
    """A bid that was not considered, and the reason: a required attribute, capacity, a hold, a ban or a debt; `not
    matched` if one side refuses to deal with the other. An offer's commitment is empty."""

    bid: str
    sequence: int
    commitment: str
    why: str


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """The transcript published after the close. It has no losing prices; the award's explanation has them."""

    announcement: Announcement
    seed: str
    ratings: tuple[ShownRating, ...]
    entries: tuple[Entry, ...]
    award_digest: str
    offers: tuple[StandingOffer, ...] = ()  # the standing offers of a spot award, as they were; they were public
    decided_ms: int = 0
    excluded: tuple[Excluded, ...] = ()

    @property
    def digest(self) -> str:
        """The hex hash of the transcript, which bidders can compare."""
        return digest("auction.transcript", msgspec.json.encode(self)).hex()


def digest_of_award(award: Award) -> str:
    return digest("auction.award", msgspec.json.encode(award)).hex()


def write_transcript(
    announcement: Announcement,
    bids: Iterable[Bid],
    ratings: Ratings,
    award: Award,
    excluded: Iterable[tuple[Bid, str]] = (),
) -> Transcript:
    """Writes the transcript of a decided auction, with only the ratings of parties that bid. `excluded` are the bids
    that were not considered, with the reasons. Raises what the formats raise."""
    ordered = check_bids(announcement, bids)
    bidders = sorted({bid.bidder for bid in ordered})
    return Transcript(
        announcement=announcement,
        seed=award.seed,
        ratings=tuple(ratings[bidder] for bidder in bidders if bidder in ratings),
        entries=tuple(map(entry_of, ordered)),
        award_digest=digest_of_award(award),
        excluded=tuple(Excluded(bid.bid, bid.sequence, commitment(bid), why) for bid, why in excluded),
    )


def write_spot_transcript(
    announcement: Announcement,
    offers: Iterable[StandingOffer],
    ratings: Ratings,
    award: Award,
    decided_ms: int,
    excluded: Iterable[tuple[StandingOffer, str]] = (),
) -> Transcript:
    """Writes the transcript of an award among standing offers, in the moderator's order."""
    among = tuple(offers)
    providers = sorted({offer.provider for offer in among})
    return Transcript(
        announcement=announcement,
        seed=award.seed,
        ratings=tuple(ratings[provider] for provider in providers if provider in ratings),
        entries=(),
        award_digest=digest_of_award(award),
        offers=among,
        decided_ms=decided_ms,
        excluded=tuple(Excluded(offer.offer, offer.sequence, "", why) for offer, why in excluded),
    )


def verify(
    transcript: Transcript, award: Award, bids: Iterable[Bid], registered: Mapping[str, int] | None = None
) -> None:
    """Checks everything, if all bids are known: decides the auction again and compares. A spot award among standing
    offers has no bids: the transcript has the offers. Excluded bids may be among the bids.
    With `registered`, the entry of each party's registration (`Party.registered`), it also checks who is last in ties.

    Raises TranscriptWrong if a bid was left out, added or changed, or the seed or the award differs.
    """
    excluded = {one.bid: one for one in transcript.excluded}
    ordered = []
    for bid in sorted(bids, key=lambda bid: bid.sequence):
        if bid.bid not in excluded:
            ordered.append(bid)
        elif _is_another(excluded[bid.bid], bid):
            raise TranscriptWrong(f"bid {bid.bid} differs from the excluded one of its name")
    if tuple(map(entry_of, ordered)) != transcript.entries:
        raise TranscriptWrong("the bids are not those in the transcript")
    for bid in ordered:
        if registered is not None and registered.get(bid.bidder, bid.registered) != bid.registered:
            raise TranscriptWrong(f"{bid.bidder} was not registered by entry {bid.registered}")
    ratings = {rating.party: rating for rating in transcript.ratings}
    try:
        seed = bytes.fromhex(transcript.seed)
        if transcript.offers:
            again = spot_award(transcript.announcement, transcript.offers, ratings, seed, transcript.decided_ms)
        else:
            again = decide(transcript.announcement, ordered, ratings, seed)
    except (AuctionError, ValueError) as error:
        raise TranscriptWrong(f"the auction cannot be decided from this transcript: {error}") from error
    if again != award or digest_of_award(award) != transcript.award_digest:
        raise TranscriptWrong("the award does not follow from the bids, the ratings and the announced rule")


def _is_another(excluded: Excluded, bid: Bid) -> bool:
    return (excluded.sequence, excluded.commitment) != (bid.sequence, commitment(bid))


def verify_own(transcript: Transcript, award: Award, bid: Bid) -> str:
    """Checks what one bidder can without the others' bids: that its bid was counted unchanged, and lost to a better
    one. Returns the reason if it was excluded, which the bidder can judge itself, except for `not matched`; empty for a
    bid that was counted.

    It checks the seed against the announced commitment, and runs the format's `check_own`: in sealed formats for one
    block the bidder's score, and the winner's place and price. Raises TranscriptWrong with the first check that fails.
    """
    announcement = transcript.announcement
    try:
        Draw(announcement, bytes.fromhex(transcript.seed))
    except (AuctionError, ValueError) as error:
        raise TranscriptWrong(f"the seed is not the announced one: {error}") from error
    if digest_of_award(award) != transcript.award_digest or award.seed != transcript.seed:
        raise TranscriptWrong("the award is not the one in the transcript")
    for one in transcript.excluded:
        if one.bid == bid.bid and not _is_another(one, bid):
            if any(winning.bid == bid.bid for winning in award.winners):
                raise TranscriptWrong(f"bid {bid.bid} is excluded, but has won")
            return one.why
    if entry_of(bid) not in transcript.entries:
        raise TranscriptWrong(f"bid {bid.bid} is not in the transcript unchanged")
    ratings = {rating.party: rating for rating in transcript.ratings}
    format_of(announcement).check_own(announcement, award, bid, ratings)
    return ""
