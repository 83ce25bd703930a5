"""The transcript of an auction: what lets a bidder check an award without trusting the moderator. Pure.

It shows the announcement, the seed that it was bound to, the ratings that weighed, a commitment for every bid in the
moderator's order, and a digest of the award. Bidders get their commitment as a receipt when they bid.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from auction.formats import award as decide
from auction.formats import format_of
from auction.formats.spot import spot_award
from auction.model.award import Award, Draw, check_bids
from auction.model.bid import Announcement, Bid, Ratings, ShownRating, StandingOffer, commitment, digest
from auction.model.errors import AuctionError, TranscriptWrong


class Entry(msgspec.Struct, frozen=True):
    """One bid in the transcript: its name, its place in the moderator's order, and the bidder's commitment to it."""

    bid: str
    sequence: int
    commitment: str


class Excluded(msgspec.Struct, frozen=True):
    """A bid that could not be considered, and why: an attribute that the block requires, capacity, a hold, a ban or a
    debt; `not matched` where one of the two sides does not deal with the other. Of an offer the commitment is empty."""

    bid: str
    sequence: int
    commitment: str
    why: str


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """What is published after the close. It tells no losing price: that is for the award's explanation, or the
    bidder."""

    announcement: Announcement
    seed: str
    ratings: tuple[ShownRating, ...]
    entries: tuple[Entry, ...]
    award_digest: str
    offers: tuple[StandingOffer, ...] = ()  # among which a spot award was made, as they stood; everybody could see them
    decided_ms: int = 0
    excluded: tuple[Excluded, ...] = ()

    @property
    def digest(self) -> str:
        """The hex hash over all of it, to be put into the journal and compared between bidders."""
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
    """The transcript of a decided auction. Only ratings of parties that bid are in it. `excluded` are the bids that
    were not considered, with why. Raises as the formats do."""
    ordered = check_bids(announcement, bids)
    bidders = sorted({bid.bidder for bid in ordered})
    return Transcript(
        announcement=announcement,
        seed=award.seed,
        ratings=tuple(ratings[bidder] for bidder in bidders if bidder in ratings),
        entries=tuple(Entry(bid.bid, bid.sequence, commitment(bid)) for bid in ordered),
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
    """The transcript of an award among standing offers, in the order in which the moderator took them."""
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


def verify(transcript: Transcript, award: Award, bids: Iterable[Bid]) -> None:
    """Check everything, once all bids are opened: decide the auction anew and compare. A spot award among standing
    offers has no bids: they stand in the transcript. Bids that were excluded may be opened too.

    Raises TranscriptWrong where a bid was left out, added or changed, the seed is another, or the award another.
    """
    excluded = {one.bid: one for one in transcript.excluded}
    ordered = []
    for bid in sorted(bids, key=lambda bid: bid.sequence):
        if bid.bid not in excluded:
            ordered.append(bid)
        elif _is_another(excluded[bid.bid], bid):
            raise TranscriptWrong(f"bid {bid.bid} was excluded as another than it is")
    entries = tuple(Entry(bid.bid, bid.sequence, commitment(bid)) for bid in ordered)
    if entries != transcript.entries:
        raise TranscriptWrong("the bids are not the ones of the transcript")
    ratings = {rating.party: rating for rating in transcript.ratings}
    try:
        seed = bytes.fromhex(transcript.seed)
        if transcript.offers:
            again = spot_award(transcript.announcement, transcript.offers, ratings, seed, transcript.decided_ms)
        else:
            again = decide(transcript.announcement, ordered, ratings, seed)
    except (AuctionError, ValueError) as error:
        raise TranscriptWrong(f"the auction cannot be decided as it is told: {error}") from error
    if again != award or digest_of_award(award) != transcript.award_digest:
        raise TranscriptWrong("the award does not follow from the bids, the ratings and the announced rule")


def _is_another(excluded: Excluded, bid: Bid) -> bool:
    return (excluded.sequence, excluded.commitment) != (bid.sequence, commitment(bid))


def verify_own(transcript: Transcript, award: Award, bid: Bid) -> str:
    """Check what one bidder can without the others' bids: that its bid was counted as it was made, and lost to a
    better. Returns why it was excluded, where it was: whether that is so the bidder knows itself, but for `not
    matched`. Empty for a bid that was counted.

    The seed is checked against the announced one, and what the format lets one bidder check besides (`check_own`): in
    sealed formats for one block the own score, and the winner's place and price. Raises TranscriptWrong with what does
    not hold.
    """
    announcement = transcript.announcement
    try:
        Draw(announcement, bytes.fromhex(transcript.seed))
    except (AuctionError, ValueError) as error:
        raise TranscriptWrong(f"the seed is not the announced one: {error}") from error
    if digest_of_award(award) != transcript.award_digest or award.seed != transcript.seed:
        raise TranscriptWrong("the award is not the one of the transcript")
    for one in transcript.excluded:
        if one.bid == bid.bid and not _is_another(one, bid):
            if any(winning.bid == bid.bid for winning in award.winners):
                raise TranscriptWrong(f"bid {bid.bid} is excluded, and has won")
            return one.why
    if Entry(bid.bid, bid.sequence, commitment(bid)) not in transcript.entries:
        raise TranscriptWrong(f"bid {bid.bid} is not in the transcript as it was made")
    ratings = {rating.party: rating for rating in transcript.ratings}
    format_of(announcement).check_own(announcement, award, bid, ratings)
    return ""
