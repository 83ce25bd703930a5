"""Commit and reveal: bidders first send hashes, and reveal their bids after the close. An unrevealed bid forfeits its
hold. Pure.

For a moderator that must not be able to read bids before the close. Any sealed format decides over the revealed bids.
The moderator decides where a forfeited hold goes; it must not keep it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from auction.model.bid import Announcement, Bid, check_name, check_time, commitment
from auction.model.errors import BadSignature, BadValue, Exists, NotAllowed, TooLate, WrongState
from auction.model.money import check_integer


class Commitment(msgspec.Struct, frozen=True, kw_only=True):
    """A hash (`auction.model.bid.commitment`) sent before the close, with the moderator's sequence and time."""

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
    """Raises WrongState before the opening, TooLate at or after the close, Exists for a bidder's second commitment or
    for a copy of another bidder's hash."""
    closing = announcement.closing
    if new.auction != announcement.auction or closing.reveal_until_ms is None:
        raise BadValue(f"the commitment is not for auction {announcement.auction}")
    if new.placed_ms < closing.opens_ms:
        raise WrongState(f"the auction opens at {closing.opens_ms} ms")
    if new.placed_ms >= closing.closes_ms:
        raise TooLate(f"the auction closed at {closing.closes_ms} ms")
    for old in handed_in:
        if old.bidder == new.bidder or old.commitment == new.commitment:
            raise Exists(f"{old.bidder} has sent a commitment already")


def check_reveal(announcement: Announcement, handed_in: Commitment, bid: Bid, until_ms: int = 0) -> None:
    """Raises NotAllowed for another bidder's bid, BadSignature for a bid other than the committed one, WrongState
    before the close, and TooLate after the time for revealing (`until_ms` if that is later: the market was away).
    `bid.placed_ms` is the moderator's time of the reveal."""
    closing = announcement.closing
    if bid.auction != handed_in.auction or bid.bidder != handed_in.bidder:
        raise NotAllowed(f"the commitment is {handed_in.bidder}'s in auction {handed_in.auction}")
    if bid.placed_ms < closing.closes_ms:
        raise WrongState("bids can be revealed only after the close")
    if closing.reveal_until_ms is None or bid.placed_ms >= max(closing.reveal_until_ms, until_ms):
        raise TooLate(f"the time for revealing ended at {closing.reveal_until_ms} ms")
    if commitment(bid) != handed_in.commitment:
        raise BadSignature(f"the bid of {bid.bidder} is not the one that was committed to")
