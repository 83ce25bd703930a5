"""Commit and reveal: bidders first hand in hashes, and open them after the close; who does not forfeits the bond. Pure.

For a moderator who should not be able to read bids before the close. Any sealed format decides over the opened bids.
Where the forfeited bond goes is the moderator's matter; it must not be the moderator's own pocket.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from auction.model.bid import Announcement, Bid, check_name, check_time, commitment
from auction.model.errors import BadSignature, BadValue, Exists, NotAllowed, TooLate, WrongState
from auction.model.money import check_integer


class Commitment(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed hash (`auction.bid.commitment`) handed in before the close, with the moderator's sequence and time."""

    auction: str
    bidder: str
    commitment: str
    sequence: int
    placed_ms: int

    def __post_init__(self) -> None:
        check_name(self.auction, "auction")
        check_name(self.bidder, "bidder")
        if type(self.commitment) is not str or len(self.commitment) != 64:
            raise BadValue("a commitment is a SHA-256 in hexadecimal")
        check_integer(self.sequence, "sequence")
        check_time(self.placed_ms, "time of the commitment")


def check_commitment(announcement: Announcement, handed_in: Iterable[Commitment], new: Commitment) -> None:
    """Raises WrongState before the opening, TooLate at or after the close, Exists for a second one or for a copy of
    another bidder's hash."""
    closing = announcement.closing
    if new.auction != announcement.auction or closing.reveal_until_ms is None:
        raise BadValue(f"auction {announcement.auction} does not take this commitment")
    if new.placed_ms < closing.opens_ms:
        raise WrongState(f"the auction opens at {closing.opens_ms} ms")
    if new.placed_ms >= closing.closes_ms:
        raise TooLate(f"the auction closed at {closing.closes_ms} ms")
    for old in handed_in:
        if old.bidder == new.bidder or old.commitment == new.commitment:
            raise Exists(f"{old.bidder} has handed in a commitment already")


def check_reveal(announcement: Announcement, handed_in: Commitment, bid: Bid) -> None:
    """Raises NotAllowed for another's bid, BadSignature where the bid is not what was committed to, WrongState before
    the close, and TooLate once revealing is over. `bid.placed_ms` is the moderator's time of the reveal."""
    closing = announcement.closing
    if bid.auction != handed_in.auction or bid.bidder != handed_in.bidder:
        raise NotAllowed(f"the commitment is {handed_in.bidder}'s in auction {handed_in.auction}")
    if bid.placed_ms < closing.closes_ms:
        raise WrongState("bids are revealed after the close")
    if closing.reveal_until_ms is None or bid.placed_ms >= closing.reveal_until_ms:
        raise TooLate(f"the time for revealing ended at {closing.reveal_until_ms} ms")
    if commitment(bid) != handed_in.commitment:
        raise BadSignature(f"the bid of {bid.bidder} is not the one that was committed to")
